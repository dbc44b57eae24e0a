"""`fabric status`, `lag` and the doctors on a running fabric: what they say is what is so."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fabric.demo.layout import PUBLIC, SECRET
from fabric.demo.proofs import counts
from fabric.demo.world import World
from tests.support.world import await_reason, await_value, fabric, running_world

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


def test_a_sender_is_drained_once_a_published_result_carries_what_it_sent(world: World) -> None:
    path = config(world, "A")
    late = fabric("agent", "drain", path, "--within", "0", "-o", "json")
    assert (late.returncode, json.loads(late.stdout)["drained"]) == (10, False)
    done = fabric("agent", "drain", path, "--within", "150", "-o", "json", wait_s=170)
    assert done.returncode == 0, (done.stdout, done.stderr)
    found = json.loads(done.stdout)
    assert (found["drained"], found["waits"]) == (True, [])
    assert found["carried"] >= 1


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


def doctors(world: World) -> dict[str, list[str | Path]]:
    """The command line of each doctor of the world."""
    own = {letter: ["doctor", "-c", config(world, letter)] for letter in "AB"}
    return own | {
        name: [name, "doctor", world.layout.folder / name / f"{name}.toml"]
        for name in ("gateway", "authority")
    }


def look(command: list[str | Path]) -> dict[str, dict[str, Any]]:
    """What a doctor says, by check; its exit code must say the same."""
    done = fabric(*command, "-o", "json", wait_s=60)
    found = {item["check"]: item for item in json.loads(done.stdout)}
    assert done.returncode == (10 if ills(found) else 0), done.stderr
    return found


def ills(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: str(item["seen"]) for name, item in found.items() if not item["ok"]}


def test_every_doctor_finds_a_sound_fabric_well_and_leaves_it_so(world: World) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = dict(zip(doctors(world), pool.map(look, doctors(world).values()), strict=True))
    assert not {name: wrong for name, checks in found.items() if (wrong := ills(checks))}
    for checks in found.values():
        assert checks["process"]["seen"].startswith("runs")
        assert "from this machine's clock" in checks["ticks"]["seen"]
    assert found["A"]["source registry reader"]["seen"] == "the running agent"
    assert "which our certificate may write" in found["gateway"]["topics of data"]["seen"]
    assert "the running process listens" in found["gateway"]["gateway.listen"]["seen"]
    assert "2 hosts" in found["authority"]["https"]["seen"]
    assert fabric("status", "-c", config(world, "B"), "--exit-when-healthy").returncode == 0


def test_a_gateways_wrong_certificate_or_broker_is_told(world: World) -> None:
    file = world.layout.folder / "gateway" / "gateway.toml"
    broken = {
        "other.toml": (str(world.layout.pki / "gateway."), str(world.layout.pki / "verifier.")),
        "away.toml": (world.broker.address, "localhost:1"),
    }
    for name, (old, new) in broken.items():
        file.with_name(name).write_text(file.read_text().replace(old, new))
    with ThreadPoolExecutor(2) as pool:
        other, away = pool.map(
            look, [["gateway", "doctor", file.with_name(name)] for name in broken]
        )
    assert "must be CN=gateway" in ills(other)["certificate"]
    assert {"certificate", "topics of control", "topics of data"} == ills(other).keys()
    assert {"broker localhost:1", "topics", "ticks"} == ills(away).keys()
    assert "nobody listens there" in ills(away)["broker localhost:1"]
    assert all(item["remedy"] for item in [*other.values(), *away.values()] if not item["ok"])


def test_an_agent_that_ended_exits_1_and_says_how_to_start_it(world: World) -> None:
    """Nothing after it may need B: it ends it."""
    world.parts["B"].stop()
    done = fabric("status", "-c", config(world, "B"))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"fabric agent run {config(world, 'B')}" in done.stderr
    # Its certificate and its database are as it left them, and doctor needs no agent.
    found = look(["doctor", "-c", config(world, "B")])
    assert not ills(found)
    assert "fabric agent run" in found["process"]["seen"]


def test_a_suspended_host_is_told_what_it_is_and_no_broker_is_blamed(world: World) -> None:
    """The last test: it suspends A."""
    file = world.layout.folder / "authority" / "authority.toml"
    done = fabric("authority", "suspend", file, str(world.host("A").id), "--why", "a test")
    assert done.returncode == 0, done.stderr
    wrong = ills(look(["doctor", "-c", config(world, "A")]))
    assert wrong.keys() == {"attestation", "ticks"}, "its certificate is still good"
    assert all(seen.startswith(("not_attested", "host_suspended")) for seen in wrong.values())
    await_reason(world.parts["A"], "attestation", "host_suspended", wait_s=60)
    wrong = ills(look(["doctor", "-c", config(world, "A")]))
    assert {"attestation", "ticks"} <= wrong.keys()
    assert all(seen.startswith("host_suspended: ") for seen in wrong.values())
    shown = fabric("attest", "show", "-c", config(world, "A"))
    assert (shown.returncode, shown.stdout) == (12, "")
    assert shown.stderr.startswith("fabric: host_suspended: ")
    assert shown.stderr.count("\n") == 1


def _secret(path: Path) -> dict[str, Any]:
    body = json.loads(fabric("status", "-c", path, "-o", "json").stdout)
    return next(item for item in body["datasets"] if item["dataset"] == str(SECRET))


def _execute(world: World, letter: str, statement: str) -> None:
    with sqlite3.connect(world.urls[letter], timeout=10) as connection:
        connection.execute(statement)
