"""The long-lived programs: what they are told, and that they hold nothing they never use."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabric.cli import processes

_RUN = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, sep="\\n"))
from fabric.cli import main
main()
"""
_COMMANDS = {
    "rich",
    "fabric.cli.attest",
    "fabric.cli.audit",
    "fabric.cli.status",
}
_DATABASES = {"asyncpg", "psycopg"}
_WRITING_POLICY = {"avro", "fabric.repository.staging", "fabric.repository.publishing"}
UNUSED = {
    "agent": {
        "confluent_kafka",
        "fabric.authority",
        "fabric.demo",
        "fabric.gateway",
        *_COMMANDS,
        *_DATABASES,
        *_WRITING_POLICY,
    },
    "authority": {
        "fabric.agent",
        "fabric.database",
        "fabric.demo",
        "fabric.gateway",
        "fabric.tpm",
        "tpm2_pytss",
        *_COMMANDS,
        *_DATABASES,
        *_WRITING_POLICY,
    },
    "gateway": {
        "confluent_kafka",
        "fabric.agent",
        "fabric.authority",
        "fabric.database",
        "fabric.demo",
        "fabric.tpm",
        "sqlite3",
        "tpm2_pytss",
        *_COMMANDS,
        *_DATABASES,
        *_WRITING_POLICY,
    },
}
"""By program: what other parts and commands need, and this one must not load.

Libraries for PostgreSQL and the TPM come when an agent opens one; the database that it is for is
known only then.
"""


@pytest.mark.parametrize("program", sorted(UNUSED))
def test_a_program_loads_nothing_that_only_others_use(program: str, tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    config.write_text("[nonsense]\n")  # read after everything is loaded
    done = subprocess.run(
        [sys.executable, "-c", _RUN, program, "run", str(config)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    loaded = set(done.stdout.split())
    assert "nonsense" in done.stderr
    assert f"fabric.{program}.run" in loaded
    assert not loaded & UNUSED[program]


@pytest.mark.parametrize("words", [(), ("--clock-is-right",)])
def test_only_a_person_makes_an_authority_forget_the_ledgers_time(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    async def run(_: object, *, stop: asyncio.Event, forgets_time: bool) -> None:
        asked.append(forgets_time)

    monkeypatch.setattr("fabric.authority.run.run", run)
    monkeypatch.setattr("fabric.config.AuthorityConfig.load", lambda path: path)
    monkeypatch.setattr(processes, "until_signalled", lambda start: asyncio.run(start(None)))
    (tmp_path / "authority.toml").touch()
    arguments = ["run", str(tmp_path / "authority.toml"), *words]
    assert CliRunner().invoke(processes.authority, arguments).exit_code == 0
    assert asked == [bool(words)]
