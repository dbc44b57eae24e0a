"""The script that builds `cryptography` on AWS-LC says what it lacks, before it does anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, a version to build and something that stands for .venv."""
    (tmp_path / "deploy").mkdir()
    shutil.copy2(ROOT / "deploy" / "aws-lc", tmp_path / "deploy")
    (tmp_path / "constraints.txt").write_text("cryptography==1.2.3\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho ran >>ran\nexit 1\n")
    python.chmod(0o755)
    return tmp_path


def run(checkout: Path, *arguments: str, tools: tuple[str, ...] = ()) -> str:
    """What the script says as it fails; of programs it finds `tools` and the simplest ones."""
    found = checkout / "tools"
    found.mkdir(exist_ok=True)
    for tool in ("bash", "dirname", "sed", *tools):
        at = shutil.which(tool)
        assert at is not None
        (found / tool).unlink(missing_ok=True)
        (found / tool).symlink_to(at)
    done = subprocess.run(
        [str(checkout / "deploy" / "aws-lc"), *arguments],
        env={"PATH": str(found)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    return done.stderr


def test_without_rust_it_says_so_and_builds_nothing(checkout: Path) -> None:
    said = run(checkout)
    assert said == "aws-lc: cargo is missing; remedy: install Rust 1.83 or newer\n"
    assert not (checkout / "ran").exists()


def test_without_a_virtual_environment_it_names_setup(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    said = "aws-lc: .venv/bin/python is missing; remedy: run make setup, or name another one in"
    assert run(checkout) == f"{said} PYTHON\n"


def test_without_a_pinned_version_it_builds_nothing(checkout: Path) -> None:
    (checkout / "constraints.txt").write_text("cffi==1\n")
    assert run(checkout) == "aws-lc: constraints.txt names no version of cryptography\n"
    assert not (checkout / "ran").exists()


def test_another_argument_is_refused(checkout: Path) -> None:
    assert "--undo" in run(checkout, "--fast")
    assert not (checkout / "ran").exists()
