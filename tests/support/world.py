"""A whole fabric for tests: real servers and processes in a folder of their own, small tables."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml

from fabric.demo import proofs
from fabric.demo.enrol import admit_hosts
from fabric.demo.fleet import Part, await_that
from fabric.demo.say import Teller
from fabric.demo.world import Wish, World, build, fill, start_platform
from fabric.model.errors import UnavailableError


@contextmanager
def running_world(
    *,
    source: str = "sqlite",
    target: str = "postgresql",
    rows: int = 200,
    change: Callable[[World], None] | None = None,
) -> Iterator[World]:
    """Hosts A and B in step, without C; ended and removed afterwards.

    The default gives A no server, so that the PostgreSQL server is B's alone.

    Args:
        change: changes policy and configuration before the fabric's processes start. With
            it C stays: it is not enrolled, and a test admits it.
    """
    folder = Path(tempfile.mkdtemp(prefix="fabric-world-"))
    folder.chmod(0o755)
    world = build(Wish(folder=folder / "w", rows=rows, source=source, target=target), Teller())
    try:
        if change is None:
            del world.layout.hosts["C"], world.parts["C"]
        else:
            change(world)
        fill(world)
        start_platform(world)
        admit_hosts(world, "AB")
        await_equal(world)
        yield world
    finally:
        world.stop()
        shutil.rmtree(folder, ignore_errors=True)


def change_dataset(world: World, name: str, **fields: Any) -> None:
    """Write a dataset of agency G01 anew; it takes effect when the policy is published.

    Args:
        name: a new one begins as a copy of `notes`.
        fields: what to change.
    """
    folder = world.layout.policy / "datasets" / "G01"
    path = folder / f"{name}.yaml"
    document = yaml.safe_load((path if path.exists() else folder / "notes.yaml").read_text())
    path.write_text(yaml.safe_dump({**document, **fields}, sort_keys=False))


def await_equal(world: World, *, wait_s: float = 60) -> None:
    """Wait until A's and B's tables hold the same."""
    try:
        await_that(proofs.in_step(world), "A's and B's tables to be equal", wait_s=wait_s)
    except UnavailableError as exc:
        said = {name: dict(reasons(part)) for name, part in world.parts.items()}
        raise AssertionError(f"{exc.args[0]}; {proofs.counts(world, 'B')} in B; {said}") from exc


def reasons(part: Part) -> Mapping[str, str]:
    """What /readyz says of each part that is not well."""
    _, body = part.health()
    parts = body.get("parts", {})
    assert isinstance(parts, dict)
    return {name: str(why) for name, why in parts.items() if why is not None}


def await_reason(part: Part, where: str, what: str, *, wait_s: float = 20) -> str:
    """Wait until /readyz names `what` for a part whose name has `where` in it; its words."""
    found: list[str] = []

    def said() -> bool:
        found[:] = [w for name, w in reasons(part).items() if where in name and what in w]
        return bool(found)

    await_that(said, f"{part.name} to say {what} of {where}", wait_s=wait_s, part=part)
    return found[0]


def await_value(ask: Callable[[], bool], what: str, *, wait_s: float = 20) -> None:
    """Wait until a condition of a test's own holds."""
    await_that(ask, what, wait_s=wait_s)


def stays(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition holds all the time for `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not holds():
            return False
        time.sleep(0.1)
    return True


def ask(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run one statement in a PostgreSQL database; its rows, if it gives any."""
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def audited(world: World, letter: str, event: str) -> list[dict[str, Any]]:
    """Entries of one kind in a host's audit log."""
    path = world.host(letter).folder / "state" / "audit.jsonl"
    whole, _, _ = path.read_text().rpartition("\n")  # a line may be half written yet
    entries = [json.loads(line) for line in whole.splitlines()]
    return [entry["fields"] for entry in entries if entry["event"] == event]


def fabric(*arguments: str | Path, wait_s: float = 40) -> subprocess.CompletedProcess[str]:
    """Run one command line of the fabric to its end."""
    command = [sys.executable, "-m", "fabric.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=wait_s, check=False)
