"""A process that captures one SQLite file into another is killed again and again: nothing differs.

The child is a small agent: it reads a source, applies blocks, stores the resume token,
releases.
"""

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fabric.database.sqlite import SqliteSink, SqliteSource
from fabric.model.block import Block, trim
from fabric.model.change import ZERO, Run, end_of
from fabric.model.names import Origin, Stream
from fabric.ports import Captured, Reached, SourceTable, StreamState, Target
from tests.contract.worlds import NOTES, NOTES_SCHEMA

ROOT = Path(__file__).parents[2]
KILLS = 6
STREAM = Stream(origin=Origin("G01", "registry", "main"), topic=NOTES, partition=0)


async def capture(folder: Path) -> None:
    """The child: runs until it is killed."""
    source = SqliteSource(
        folder / "source.db",
        [SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)],
        chunk_rows=50,
    )
    sink = SqliteSink(folder / "target.db")
    await sink.open(
        [
            Target(
                topic=NOTES,
                table="notes",
                schema=NOTES_SCHEMA,
                quarantine=False,
                partitions=1,
                salt=bytes(32),
            )
        ]
    )
    token = folder / "token"
    opened = await source.open(token.read_text() if token.exists() else None)
    runs: list[Run] = []
    async for event in source.read():
        if isinstance(event, Captured):
            runs.append(event.run)
            continue
        await apply(sink, opened.generation, runs, event)
        runs.clear()
        part = token.with_suffix(".part")
        part.write_text(event.resume)
        part.replace(token)
        await source.release(event.position)


async def apply(sink: SqliteSink, generation: int, runs: list[Run], reached: Reached) -> None:
    state = await sink.state(STREAM)
    high = state.high if state else ZERO
    upto = end_of(generation, reached.position)
    if upto <= high:
        return
    block = trim(Block(stream=STREAM, after=ZERO, upto=upto, runs=tuple(runs)), high)
    new = StreamState(high=upto, chain=b"", offset=0, cluster="", topic_id="", incomplete=False)
    await sink.apply(block, state, new)


class Writers(threading.Thread):
    """An application that inserts, updates, moves and deletes all the while."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._random = random.Random(seed)
        self.stopped = threading.Event()
        self.commits = 0

    def run(self) -> None:
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        while not self.stopped.wait(0.001):
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(self._random.randint(1, 20)):
                self._write(connection)
            connection.execute("COMMIT")
            self.commits += 1
        connection.close()

    def _write(self, connection: sqlite3.Connection) -> None:
        pick = self._random
        number, body = pick.randint(0, 3000), f"v{pick.random()}"
        match pick.randint(0, 4):
            case 0 | 1:
                connection.execute(
                    "INSERT OR REPLACE INTO notes VALUES ('a', ?, ?)", (number, body)
                )
            case 2:
                connection.execute("UPDATE notes SET body = ? WHERE number = ?", (body, number))
            case 3:
                connection.execute("DELETE FROM notes WHERE number = ?", (number,))
            case _:
                connection.execute(
                    "UPDATE OR REPLACE notes SET number = ? WHERE number = ?",
                    (pick.randint(0, 3000), number),
                )


def rows(path: Path) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        return connection.execute("SELECT region, number, body FROM notes ORDER BY 1, 2").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        connection.close()


def start(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, __file__, str(folder)]
    with (folder / "child.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stderr=log)


def await_equal(folder: Path, child: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while rows(folder / "source.db") != rows(folder / "target.db"):
        assert child.poll() is None, (folder / "child.log").read_text()
        assert time.monotonic() < deadline, "source and target stay different"
        time.sleep(0.1)


@pytest.mark.integration
@pytest.mark.parametrize("seed", [1, 2])
def test_source_and_target_are_equal_after_kills_under_writes(tmp_path: Path, seed: int) -> None:
    source = sqlite3.connect(tmp_path / "source.db")
    source.execute("PRAGMA journal_mode=WAL")
    source.execute(
        "CREATE TABLE notes (region TEXT NOT NULL, number INTEGER NOT NULL, body TEXT,"
        " PRIMARY KEY (region, number))"
    )
    source.executemany("INSERT INTO notes VALUES ('a', ?, 'first')", [(n,) for n in range(2000)])
    source.commit()
    source.close()
    pick, writers = random.Random(seed), Writers(tmp_path / "source.db", seed)
    writers.start()
    try:
        for _ in range(KILLS):
            child = start(tmp_path)
            time.sleep(0.4 + pick.random())
            assert child.poll() is None, (tmp_path / "child.log").read_text()
            child.kill()
            child.wait()
    finally:
        writers.stopped.set()
        writers.join()
    assert writers.commits > 100
    child = start(tmp_path)
    try:
        await_equal(tmp_path, child)
    finally:
        child.kill()
        child.wait()
    assert len(rows(tmp_path / "target.db")) > 100


if __name__ == "__main__":
    asyncio.run(capture(Path(sys.argv[1])))
