"""Audit on a running fabric: heads reach the platform, receipts come, a change is proved."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fabric.demo.layout import SECRET
from fabric.demo.world import World
from tests.support.world import await_value, fabric, running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world(source="sqlite", target="sqlite", rows=200) as made:
        yield made


def log_of(world: World, name: str) -> Path:
    """The audit log of a host by letter, or of a platform part."""
    folder = world.host(name).folder if len(name) == 1 else world.layout.folder / name
    return folder / "state" / "audit.jsonl"


def verify(world: World, path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    config = world.host("A").config
    heads = ("--heads", "broker", "-c", config)
    return fabric("audit", "verify", path, *heads, *more, "-o", "json")


def prove(world: World, where: str, *more: str) -> tuple[int, dict[str, Any]]:
    done = fabric("audit", "prove", where, "-c", world.host("B").config, *more, "-o", "json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("name", ["A", "gateway", "authority"])
def test_every_component_writes_a_chain_whose_head_is_signed(world: World, name: str) -> None:
    def holds() -> bool:
        done = verify(world, log_of(world, name))
        return done.returncode == 0 and json.loads(done.stdout)["signed_up_to"] > 0

    await_value(holds, f"a signed head of {name}")


def test_a_log_that_is_cut_short_is_told_by_the_platforms_heads(
    world: World, tmp_path: Path
) -> None:
    lines = log_of(world, "gateway").read_bytes().splitlines(keepends=True)
    cut = tmp_path / "audit.jsonl"
    cut.write_bytes(lines[0])
    assert fabric("audit", "verify", cut).returncode == 0
    done = verify(world, cut)
    told = json.loads(done.stdout)
    assert (done.returncode, told["holds"], told["line"]) == (1, False, 2)


def test_a_block_is_proved_with_its_readers_receipt(world: World) -> None:
    found: dict[str, Any] = {}

    def acknowledged() -> bool:
        code, told = prove(world, f"{SECRET}:0:0")
        assert code == 0, told
        found.update(told)
        return bool(told["acknowledged_by"])

    await_value(acknowledged, "a receipt for the first block")
    a, b = (str(world.host(letter).id) for letter in "AB")
    assert found["sealed_by"]["host"] == a
    assert found["attested"]["evidence"] == "tpm2"
    assert len(found["attested"]["quote_sha256"]) == 64
    assert found["acknowledged_by"][0]["host"] == b
    assert b in found["granted_to"]


def test_a_row_is_found_by_key_with_the_hosts_own_tpm(world: World) -> None:
    with sqlite3.connect(world.host("B").folder / "agency_b.db") as database:
        [(key,)] = database.execute("SELECT id FROM residents LIMIT 1").fetchall()
    code, told = prove(world, str(SECRET), "--key", str(key))
    assert code == 0, told
    assert told["change"]["operation"] == "upsert"
    opened = world.host("B").folder / "state" / "opened.jsonl"
    assert "blocks_opened" in opened.read_text()


def test_a_killed_agents_log_goes_on_and_still_holds(world: World) -> None:
    path, agent = log_of(world, "A"), world.parts["A"]
    before = len(path.read_bytes().splitlines())
    agent.stop(kill=True)
    agent.start()

    def goes_on() -> bool:
        return len(path.read_bytes().splitlines()) > before

    await_value(goes_on, "the agent to write its audit log again", wait_s=60)
    done = verify(world, path)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["lines"] > before
