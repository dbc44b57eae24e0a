"""`kill -9` of agent A or B at random moments: no row lost, none applied twice.

The source keeps a ledger of what it committed. The target counts, by a trigger,
how often each version of each row was written. After the last restart the ledger
and the target agree, and no version was written twice.
"""

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from fabric.demo import proofs
from fabric.demo.enrol import admit_hosts
from fabric.demo.fleet import await_that
from fabric.demo.say import Teller
from fabric.demo.world import Wish, World, build, fill, start_platform

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

KILLS = 20
SEED = 278

_COUNT_WRITES = """
CREATE TABLE written (id bigint NOT NULL, version text NOT NULL, deleted boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE FUNCTION note_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        INSERT INTO written VALUES (OLD.id, OLD.address, true);
        RETURN OLD;
    END IF;
    INSERT INTO written VALUES (NEW.id, NEW.address, false);
    RETURN NEW;
END $$;
CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON residents
    FOR EACH ROW EXECUTE FUNCTION note_write();
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    folder = Path(tempfile.mkdtemp(prefix="fabric-kill-"))
    folder.chmod(0o755)
    running = build(Wish(folder=folder / "w", rows=1_000), Teller())
    try:
        fill(running)
        start_platform(running)
        admit_hosts(running)
        await_that(proofs.in_step(running), "the snapshot in B", wait_s=60)
        yield running
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Writer(threading.Thread):
    """Commits one change after another at the source and writes each into a ledger."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._ask = threading.Event()
        self.ledger: dict[int, str] = {}
        self.committed = 0

    def run(self) -> None:
        draw = random.Random(SEED)
        with psycopg.connect(self._url) as connection:
            while not self._ask.is_set():
                ident = draw.randint(1, 1_000)
                version = f"version {self.committed}"
                connection.execute(
                    "UPDATE residents SET address = %s WHERE id = %s", (version, ident)
                )
                connection.commit()
                self.ledger[ident] = version
                self.committed += 1
                time.sleep(0.002)

    def finish(self) -> None:
        self._ask.set()
        self.join(30)


def test_twenty_kills_lose_nothing_and_apply_nothing_twice(world: World) -> None:
    with psycopg.connect(world.urls["B"], autocommit=True) as target:
        target.execute(_COUNT_WRITES)
    writer = Writer(world.urls["A"])
    writer.start()
    draw = random.Random(SEED)
    for _ in range(KILLS):
        part = world.parts[draw.choice("AB")]
        time.sleep(draw.uniform(0.05, 1.5))
        part.stop(kill=True)
        time.sleep(draw.uniform(0.0, 0.3))
        part.start()
    writer.finish()
    await_that(proofs.in_step(world), "A's and B's tables to be equal", wait_s=90)
    with psycopg.connect(world.urls["B"]) as target:
        rows = target.execute("SELECT id, address FROM residents").fetchall()
        twice = target.execute(
            "SELECT id, version, count(*) FROM written WHERE NOT deleted"
            " GROUP BY id, version HAVING count(*) > 1"
        ).fetchall()
        written = target.execute("SELECT count(*) FROM written").fetchone()
    applied = dict(rows)
    assert {ident: applied[ident] for ident in writer.ledger} == writer.ledger
    assert twice == []
    assert writer.committed > 500
    assert written is not None
    assert written[0] > 0
