"""When rows are committed in B: the server tells a listener at each commit.

`pg_xact_commit_timestamp` cannot say it: the sink applies under a replication
origin, and PostgreSQL then stamps every later commit of that session with the first
one's time.
"""

import select
import threading
import time

import psycopg
from psycopg import sql

_CHANNEL = "loadtest"
_POLL_S = 0.2
_FUNCTION = """CREATE OR REPLACE FUNCTION loadtest_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('loadtest', TG_TABLE_NAME || ' ' || (SELECT max(id) FROM fresh));
  RETURN NULL;
END $$"""


class Arrivals:
    """Listens to inserts into tables of one database; use it with `with`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: dict[str, list[tuple[int, float]]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._listening = threading.Event()

    def __enter__(self) -> "Arrivals":
        self._thread.start()
        self._listening.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def watch(self, table: str) -> None:
        """Tell of inserts into `table`, once a statement."""
        trigger = sql.SQL(
            "CREATE TRIGGER loadtest AFTER INSERT ON {} REFERENCING NEW TABLE AS fresh"
            " FOR EACH STATEMENT EXECUTE FUNCTION loadtest_tell()"
        ).format(sql.Identifier(table))
        with psycopg.connect(self._url, autocommit=True) as server:
            server.execute(_FUNCTION)
            server.execute(trigger)

    def _listen(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as server:
            server.execute(f"LISTEN {_CHANNEL}")
            self._listening.set()
            # libpq itself: at 100 commits a second psycopg's own waiting is half of our load.
            told, sockets = server.pgconn, [server.pgconn.socket]
            while not self._stop.is_set():
                if select.select(sockets, (), (), _POLL_S)[0]:
                    told.consume_input()
                while (notice := told.notifies()) is not None:
                    now = time.time()
                    table, _, last = notice.extra.decode().partition(" ")
                    if last:
                        self._seen.setdefault(table, []).append((int(last), now))

    def times(self, table: str, first: int, last: int) -> dict[int, float]:
        """Seconds since 1970 at which each row from `first` to `last` had arrived.

        Rows of one writer arrive in order, so a row has arrived once a later one has.
        """
        found: dict[int, float] = {}
        ident = first
        for upto, at in self._seen.get(table, ()):
            while ident <= min(upto, last):
                found[ident] = at
                ident += 1
        return found
