"""`fabric status` and `fabric lag` on a running fabric: what they say is what is so."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric.demo.layout import PUBLIC, SECRET
from fabric.demo.proofs import counts
from fabric.demo.world import World
from tests.support.world import await_value, fabric, running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROWS = 200
_REFUSE = """
CREATE TRIGGER refuse BEFORE UPDATE ON residents WHEN NEW.address = 'nowhere'
BEGIN SELECT RAISE(ABORT, 'no'); END
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world(source="sqlite", target="sqlite", rows=ROWS) as made:
        yield made


def config(world: World, letter: str) -> Path:
    return world.host(letter).config


def test_reader_and_sender_are_in_step_and_agree(world: World) -> None:
    seen = {}
    for letter in "AB":
        done = fabric("status", "-c", config(world, letter), "--exit-when-healthy", "-o", "json")
        assert done.returncode == 0, done.stderr
        seen[letter] = json.loads(done.stdout)
        assert seen[letter]["problems"] == []
    mine, theirs = ({item["dataset"]: item for item in seen[x]["datasets"]} for x in "AB")
    applied = sum(theirs[str(topic)]["rows"] for topic in (PUBLIC, SECRET))
    assert applied >= sum(counts(world, "B"))
    for topic, form in ((SECRET, (True, "hybrid")), (PUBLIC, (False, ""))):
        sent, got = mine[str(topic)], theirs[str(topic)]
        assert (sent["way"], got["way"]) == ("sends", "applies")
        assert (sent["sealed"], sent["suite"]) == (got["sealed"], got["suite"]) == form
        assert sent["rows"] > 0
        assert sent["last_change"] == got["last_change"] is not None
        assert got["lag_seconds"] is not None
        assert sent["peers"]
        assert got["peers"]


def test_lag_lists_every_dataset_and_exits_0(world: World) -> None:
    done = fabric("lag", "-c", config(world, "B"), "-o", "json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {item["dataset"] for item in found} == {str(PUBLIC), str(SECRET)}
    assert all(item["records"] >= 0 and item["seconds"] >= 0 for item in found)


def test_watching_gives_a_line_a_second_to_a_program(world: World) -> None:
    command = [sys.executable, "-m", "fabric.cli", "status", "--watch", "-o", "jsonl"]
    child = subprocess.Popen([*command, "-c", config(world, "B")], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        lines = [json.loads(child.stdout.readline()) for _ in range(2)]
    finally:
        child.terminate()
        child.communicate(timeout=20)
    assert all(line["answers"] for line in lines)
    assert lines[0]["at"] < lines[1]["at"]


def test_a_change_in_quarantine_is_said_with_its_remedy_until_it_is_retried(world: World) -> None:
    path = config(world, "B")
    _execute(world, "B", _REFUSE)
    _execute(world, "A", "UPDATE residents SET address = 'nowhere' WHERE id = 1")
    await_value(lambda: _secret(path)["state"] == "quarantine", "the change to be parked")
    done = fabric("status", "-c", path)
    assert done.returncode == 10
    assert f"fabric quarantine list --config {path}" in done.stdout
    assert fabric("lag", "-c", path, str(PUBLIC)).returncode == 0
    _execute(world, "B", "DROP TRIGGER refuse")
    (parked,) = json.loads(fabric("quarantine", "list", "-c", path, "-o", "json").stdout)
    assert fabric("quarantine", "retry", str(parked["id"]), "-c", path).returncode == 0
    done = fabric("status", "-c", path, "--exit-when-healthy", "-o", "json")
    assert done.returncode == 0


def test_an_agent_that_ended_exits_1_and_says_how_to_start_it(world: World) -> None:
    """The last test: it ends B."""
    world.parts["B"].stop()
    done = fabric("status", "-c", config(world, "B"))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"fabric agent run {config(world, 'B')}" in done.stderr


def _secret(path: Path) -> dict[str, Any]:
    body = json.loads(fabric("status", "-c", path, "-o", "json").stdout)
    return next(item for item in body["datasets"] if item["dataset"] == str(SECRET))


def _execute(world: World, letter: str, statement: str) -> None:
    with sqlite3.connect(world.urls[letter], timeout=10) as connection:
        connection.execute(statement)
