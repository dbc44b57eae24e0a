"""The long-lived programs hold nothing of what they never use."""

import subprocess
import sys
from pathlib import Path

import pytest

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
