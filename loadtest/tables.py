"""From the commit in A's table to the commit in B's: time, and memory on the way.

Tables of one server: `residents` goes through the fabric's two agents and the gateway with
the suite `hybrid`, `classic_residents` the same way with `classic`, `plain_residents` through
the plain peer. The server writes down when A's transactions committed and tells at once of
B's; one machine's clock measures both.
"""

import json
import subprocess
import time
from dataclasses import dataclass

import psycopg

from fabric.demo import configs
from fabric.demo.fleet import await_that
from fabric.demo.layout import SECRET
from fabric.demo.process import stop
from fabric.demo.registry import count_rows
from loadtest.arrivals import Arrivals
from loadtest.meter import percentile
from loadtest.rows import FIELDS, numbered, read_pool
from loadtest.world import LIGHT, Bench, as_delivered

FABRIC, CLASSIC, PLAIN = "residents", "classic_residents", "plain_residents"
_TABLE = """CREATE TABLE {name} (id bigint PRIMARY KEY, full_name text NOT NULL,
birth_date date NOT NULL, gender text NOT NULL, id_number text NOT NULL, phone text,
address text NOT NULL, ward_code integer NOT NULL, is_active boolean NOT NULL,
updated_at timestamptz NOT NULL)"""
_UNSWEPT = "ALTER TABLE {name} SET (autovacuum_enabled = off)"
"""The server sweeps a table in its own time; whichever way it met would look slow by chance."""
_PLAIN_TOPIC, _PLAIN_NAME = "plain-residents", "public.G01.plain"
_ROWS_PER_COMMIT = 10
_SETTLE_S_MAX = 60.0
_MOVE_S_MAX = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds from commit to commit, of every row of one run."""

    p50_ms: float
    p99_ms: float
    rows: int
    rate: float


class Tables:
    """Host A's and host B's databases, and who moves rows between them."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._pool = read_pool(bench.pool)
        self._urls = bench.world.urls
        self._source = psycopg.connect(self._urls["A"])
        for name in (FABRIC, CLASSIC, PLAIN):
            self._source.execute(_TABLE.format(name=name))
            self._source.execute(_UNSWEPT.format(name=name))
        self._source.commit()
        self._next = {FABRIC: 1, CLASSIC: 1, PLAIN: 1}
        self._plain: list[subprocess.Popen[bytes]] = []
        self._arrivals = Arrivals(self._urls["B"])
        self._arrivals.__enter__()

    def watch(self, table: str) -> None:
        """Time what arrives in B's table from now on; the sink must have made it."""
        with psycopg.connect(self._urls["B"]) as server:
            server.execute(_UNSWEPT.format(name=table))
        self._arrivals.watch(table)

    def fill(self, table: str, rows: int) -> None:
        """Put `rows` new rows into A's table, in one transaction."""
        columns = ", ".join(FIELDS)
        with self._source.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
            for row in numbered(self._pool, self._next[table], rows):
                copy.write_row(row)
        self._source.commit()
        self._next[table] += rows

    # Who moves them

    def start_agents(self) -> None:
        """Agents A and B as `fabric agent run` starts them."""
        layout, broker = self._bench.world.layout, self._bench.world.broker.address
        capture = f"""
[[capture]]
source = "registry"
kind = "postgresql"
url = "{self._urls["A"]}"
slot = "fabric_registry"
publication = "fabric_registry"
[capture.tables]
"public.{FABRIC}" = "{SECRET}"
"public.{CLASSIC}" = "{LIGHT}"
"""
        apply = f"""
[[apply]]
kind = "postgresql"
url = "{self._urls["B"]}"
[apply.tables]
"{SECRET}" = "public.{FABRIC}"
"{LIGHT}" = "public.{CLASSIC}"
"""
        for letter, part in (("A", capture), ("B", apply)):
            host = self._bench.world.host(letter)
            tcti = self._bench.world.machines[letter].tpm.tcti
            text = configs.agent_toml(layout, host, broker, tcti, part)
            host.config.write_text(as_delivered(text))
            self._bench.world.parts[letter].start()
        for letter in "AB":
            self._bench.world.parts[letter].await_ready(_SETTLE_S_MAX)

    def stop_agents(self) -> None:
        """End both agents."""
        for letter in "AB":
            self._bench.world.parts[letter].stop()

    def start_plain(self) -> None:
        """The plain peer's two processes."""
        bench = self._bench
        bench.create_topic(_PLAIN_TOPIC)
        for kind, letter in (("source", "A"), ("sink", "B")):
            settings = {
                "url": self._urls[letter],
                "table": f"public.{PLAIN}",
                "topic": _PLAIN_TOPIC,
                "name": _PLAIN_NAME,
                "route": bench.direct.told(),
            }
            path = bench.folder / f"plain-{kind}.json"
            path.write_text(json.dumps(settings))
            log = bench.folder / f"plain-{kind}.log"
            self._plain.append(bench.spawn(["loadtest.plain", kind, str(path)], log))

    def plain_pids(self) -> tuple[int, int]:
        """Process ids of the plain peer's source and sink."""
        return self._plain[0].pid, self._plain[1].pid

    def agent_pids(self) -> tuple[int, int]:
        """Process ids of agents A and B."""
        return self._bench.pid("A"), self._bench.pid("B")

    def await_equal(self, table: str) -> float:
        """Wait until B has as many rows as A; seconds it took."""
        wanted, began = self._next[table] - 1, time.perf_counter()
        await_that(
            lambda: count_rows("postgresql", self._urls["B"], table) >= wanted,
            f"{wanted} rows of {table}",
            wait_s=_MOVE_S_MAX,
        )
        return time.perf_counter() - began

    # Time

    def latency(self, table: str, *, rate: int, seconds: float) -> Latency:
        """Commit `rate` rows a second for `seconds`, a few a commit, and time each row."""
        first = self._next[table]
        took = self._write(table, rate, seconds)
        rows = self._next[table] - first
        self.await_equal(table)
        left = self._committed(table, first)
        right: dict[int, float] = {}

        def noticed() -> bool:
            right.update(self._arrivals.times(table, first, first + rows - 1))
            return len(right) == rows

        await_that(noticed, f"notices of {table}", wait_s=_SETTLE_S_MAX)
        gaps = [(right[ident] - at) * 1_000 for ident, at in left.items()]
        return Latency(
            p50_ms=percentile(gaps, 0.50),
            p99_ms=percentile(gaps, 0.99),
            rows=rows,
            rate=rows / took,
        )

    def _write(self, table: str, rate: int, seconds: float) -> float:
        """Commit on time; seconds it took. Nothing but the commits falls into that time."""
        commits = int(rate * seconds / _ROWS_PER_COMMIT)
        inserts = self._inserts(table, commits)
        with psycopg.connect(self._urls["A"], autocommit=True) as server:
            began = time.perf_counter()
            for number, insert in enumerate(inserts):
                due = began + number * _ROWS_PER_COMMIT / rate
                time.sleep(max(0.0, due - time.perf_counter()))
                server.execute(insert, prepare=False)
            took = time.perf_counter() - began
        self._next[table] += commits * _ROWS_PER_COMMIT
        return took

    def _inserts(self, table: str, commits: int) -> list[str]:
        """Statements of a few rows each, with their values in place."""
        columns, marks = ", ".join(FIELDS), ", ".join(["%s"] * len(FIELDS))
        group = ", ".join([f"({marks})"] * _ROWS_PER_COMMIT)
        statement = f"INSERT INTO {table} ({columns}) VALUES {group}"  # our own names
        rows = numbered(self._pool, self._next[table], commits * _ROWS_PER_COMMIT)
        writer = psycopg.ClientCursor(self._source)
        return [
            writer.mogrify(
                statement, [value for _ in range(_ROWS_PER_COMMIT) for value in next(rows)]
            )
            for _ in range(commits)
        ]

    def _committed(self, table: str, first: int) -> dict[int, float]:
        """Seconds since 1970 at which A committed each row from `first` on."""
        query = (
            "SELECT id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::double precision"
            f" FROM {table} WHERE id >= %s"  # our own names
        )
        with psycopg.connect(self._urls["A"]) as server:
            return dict(server.execute(query, (first,)).fetchall())

    def stop(self) -> None:
        """End the plain peer and give back the connection."""
        for child in self._plain:
            stop(child)
        self._plain.clear()
        self._arrivals.__exit__()
        self._source.close()
