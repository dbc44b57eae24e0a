"""Runbooks name only commands and options that the command line has."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabric.cli.app import tree

RUNBOOKS = Path(__file__).parents[3] / "docs" / "runbooks"
COMMANDS = sorted(
    {
        line
        for page in RUNBOOKS.glob("*.md")
        for line in re.findall(r"`fabric ([a-z][^`]*)`", page.read_text())
    }
)


def test_runbooks_name_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("line", COMMANDS)
def test_command_of_a_runbook_exists_with_its_options(line: str) -> None:
    words = shlex.split(line)
    path = [*takewhile(lambda word: word.isalpha() and word.islower(), words)]
    shown = CliRunner().invoke(tree(path[:1]), [*path, "--help"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(f"Usage: fabric {' '.join(path)} [OPTIONS]")
    assert "COMMAND" not in shown.output.splitlines()[0]
    known = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", shown.output.replace(",", " ")))
    assert {word for word in words if word.startswith("-")} <= known
