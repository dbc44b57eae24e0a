"""A command of the Makefile brings what it needs: nobody has to know that `setup` comes first."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "goal", ["check", "lint", "types", "test", "demo", "bench", "fuzz", "aws-lc"]
)
def test_goal_sets_up_before_anything_else(goal: str) -> None:
    told = subprocess.run(
        ["make", "-n", "--no-print-directory", goal],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert told.stdout.splitlines()[0] == "deploy/setup"
