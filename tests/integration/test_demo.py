"""`fabric demo`, as a user runs it: every proof holds, and what it leaves is reachable."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.demo.world import started

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="fabric-demo-"))
    made.chmod(0o755)
    yield made / "demo"
    shutil.rmtree(made, ignore_errors=True)


def fabric(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabric.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=380, check=False)


def test_demo_holds_every_proof_with_postgresql_and_can_be_kept_and_looked_at(
    folder: Path,
) -> None:
    done = fabric("demo", "--rows", "5000", "--folder", folder, "--keep", "-o", "json")
    try:
        report = json.loads(done.stdout)
        assert done.returncode == 0, done.stderr[-3000:]
        assert report["held"]
        assert all(step["held"] for step in report["steps"])
        assert report["proofs"] >= 13
        endpoints = json.loads((folder / "endpoints.json").read_text())
        config = endpoints["hosts"]["B"]["config"]
        shown = fabric("inspect", "secret.G01.residents:0:0", "--config", config, "-o", "json")
        header = json.loads(shown.stdout)
        assert header["topic"] == "secret.G01.residents"
        assert header["suite"] == "hybrid"
        attested = fabric("attest", "show", "--config", config, "-o", "json")
        assert json.loads(attested.stdout)["host"] == endpoints["hosts"]["B"]["host"]
        for letter in "AB":
            theirs = endpoints["hosts"][letter]["config"]
            checked = fabric("doctor", "--config", theirs, "-o", "json")
            assert checked.returncode == 0, checked.stdout
        parked = fabric("quarantine", "list", "--config", config, "-o", "json")
        assert json.loads(parked.stdout) == []
    finally:
        ended = fabric("demo", "--down", "--folder", folder)
    assert ended.returncode == 0
    assert not (folder / "endpoints.json").exists()


def test_demo_holds_every_proof_with_sqlite(folder: Path) -> None:
    options = ("--source", "sqlite", "--target", "sqlite", "-o", "json")
    done = fabric("demo", "--rows", "2000", "--folder", folder, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["held"]


def test_a_demo_that_runs_already_is_named_with_the_command_that_ends_it(folder: Path) -> None:
    folder.mkdir()
    running = {"broker": [os.getpid(), started(os.getpid())]}
    (folder / "demo.json").write_text(json.dumps(running))
    done = fabric("demo", "--folder", folder)
    assert done.returncode == 2
    assert f"end it with: fabric demo --down --folder {folder.resolve()}" in done.stderr
