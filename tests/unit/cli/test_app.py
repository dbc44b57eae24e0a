"""The command line: exit codes, output forms, errors that say what to do."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from fabric.cli import app, output
from fabric.cli.look import described
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    FabricError,
    Malformed,
    Reason,
    UnavailableError,
)
from tests.fakes.agent_page import write_config

VECTOR = Path(__file__).parents[2] / "vectors" / "envelope-good.json"


def fabric(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fabric.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigInvalid("x"), 2),
        (Malformed("x"), 1),
        (UnavailableError(Reason.BROKER_UNAVAILABLE, "x"), 1),
        (DeniedError(Reason.NOT_A_CONSUMER, "x"), 11),
        (DeniedError(Reason.APPLY_FAILED, "x"), 1),
        (DeniedError(Reason.HOST_SUSPENDED, "x"), 12),
        (DeniedError(Reason.STATE_REFUSED, "x"), 12),
    ],
)
def test_each_error_family_has_its_exit_code(error: FabricError, code: int) -> None:
    assert output.exit_code(error) == code


def test_a_wrong_configuration_exits_2_and_names_key_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[agent]\nhost = "G01/registry/a1"\nfolder = "state"\nfodler = "x"\n')
    done = fabric("agent", "run", path)
    assert done.returncode == 2
    assert "agent.fodler" in done.stderr
    assert "remove it" in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_inspect_shows_the_header_of_a_file_as_json_and_nothing_else(tmp_path: Path) -> None:
    vector = json.loads(VECTOR.read_text())
    path = tmp_path / "envelope"
    path.write_bytes(bytes.fromhex(vector["value"]))
    done = fabric("inspect", path, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["form"] == "sealed"
    assert done.stderr == ""


def test_inspect_of_garbage_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(b"\xd8\x62garbage")
    done = fabric("inspect", path)
    assert done.returncode == 1
    assert done.stderr.startswith("fabric: malformed")
    assert done.stderr.count("\n") == 1


def test_a_command_without_its_agent_says_which_option_is_missing() -> None:
    done = fabric("inspect", "secret.G01.residents:0:0")
    assert done.returncode == 2
    assert "--config" in done.stderr


def test_an_open_record_is_described_by_its_schema_only() -> None:
    shown = described(b"\x00\x00\x00\x00\x07rest of the record")
    assert shown == {"form": "open", "schema_id": 7, "bytes": 23}


def _unsaid(command: Any, *words: str) -> Iterator[str]:
    for word, below in getattr(command, "commands", {}).items():
        yield from _unsaid(below, *words, word)
    for param in command.params:
        if not getattr(param, "help", None):
            yield " ".join([*words, param.name])


def test_every_option_and_argument_of_every_command_has_its_help() -> None:
    assert [*_unsaid(typer.main.get_command(app.tree([])))] == []


def test_rows_as_json_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    output.rows(output.Form.JSON, [{"a": 1}, {"a": 2}])
    assert json.loads(capsys.readouterr().out) == [{"a": 1}, {"a": 2}]


def test_rows_as_lines_are_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.rows(output.Form.JSONL, [{"a": 1}, {"a": 2}])
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"a": 1},
        {"a": 2},
    ]


def test_an_empty_list_is_said_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    output.rows(output.Form.TABLE, [], empty="nothing waits")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "nothing waits\n")


def test_a_wait_that_nobody_named_is_a_line_and_exit_1(monkeypatch, capsys) -> None:
    def late(first: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(app, "tree", late)
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.startswith("fabric: not_ready: no answer in time")


def test_ending_a_demo_that_does_not_run_says_so(tmp_path: Path) -> None:
    done = fabric("demo", "--down", "--folder", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no demo runs in {tmp_path}" in done.stderr


def test_a_file_that_nobody_spoke_of_is_a_line_and_exit_1(monkeypatch, capsys) -> None:
    def denied(first: object) -> None:
        raise PermissionError(13, "Permission denied", "work/roles.yaml")

    monkeypatch.setattr(app, "tree", denied)
    with pytest.raises(SystemExit) as caught:
        app.main()
    assert caught.value.code == 1
    told = "fabric: work/roles.yaml: Permission denied; check path and mode\n"
    assert capsys.readouterr().err == told


def test_an_error_of_the_system_without_a_file_is_a_bug_and_told_in_full(monkeypatch) -> None:
    def broken(first: object) -> None:
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(app, "tree", broken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        app.main()


@pytest.mark.parametrize(
    "command", [("frobnicate",), ("agent", "frobnicate"), ("agent", "run", "none.toml")]
)
def test_what_is_no_command_or_no_file_names_the_help(command) -> None:
    done = fabric(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Try 'fabric" in done.stderr
    assert "Error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_made_ends_an_agent_with_a_line_and_exit_2(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    config.write_text(config.read_text().replace('folder = "state"', 'folder = "ca.pem"'))
    done = fabric("agent", "run", config)
    assert (done.returncode, done.stdout) == (2, "")
    assert "agent.folder: " in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        ("gateway run", "fabric gateway run [OPTIONS] CONFIG"),
        ("doctor", "fabric doctor [OPTIONS] [CONFIG]"),
        ("lag", "fabric lag [OPTIONS] [TOPIC]..."),
        ("audit verify", "fabric audit verify [OPTIONS] FILES..."),
    ],
)
def test_help_writes_arguments_in_capitals(words: str, usage: str) -> None:
    done = fabric(*words.split(), "--help")
    assert done.stdout.splitlines()[0] == f"Usage: {usage}"


def test_what_cannot_be_inspected_or_verified_says_what_to_name(tmp_path: Path) -> None:
    foo = fabric("inspect", "foo")
    assert foo.returncode == 2
    assert "correct the path, or write a place as in secret.G01.residents:0:42" in foo.stderr
    text = tmp_path / "passwd"
    text.write_text("root:x:0:0\n")
    none = fabric("audit", "verify", text)
    assert none.returncode == 1
    assert "line 1 is not JSON; name a process's audit.jsonl" in none.stderr
