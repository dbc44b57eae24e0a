"""fabric.database.postgresql_connections: who has room, and who is not alarmed for nothing."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from fabric.database.finding import Finding, Usage
from fabric.database.postgresql_connect import connect, shut
from fabric.database.postgresql_connections import LOOKING, Connections, look, of_connections
from fabric.model.errors import Reason
from tests.contract import postgresql_world
from tests.contract.postgresql_world import NUMBERS, Application

database = postgresql_world.database
CAPTURE = Usage(captures=1, targets=0, tables=0, is_running=False)
TARGET = Usage(captures=0, targets=1, tables=3, is_running=False)
BOTH = Usage(captures=1, targets=1, tables=3, is_running=False)
FREE = Connections(
    server_most=100,
    reserved=3,
    server_used=10,
    role_most=None,
    role_used=4,
    database_most=None,
    database_used=6,
    held=0,
)


@pytest.mark.parametrize(
    ("found", "usage"),
    [
        (FREE, BOTH),
        (replace(FREE, server_used=96), CAPTURE),
        (replace(FREE, server_used=90), TARGET),
        (replace(FREE, role_most=5), CAPTURE),
        (replace(FREE, database_most=13), TARGET),
        # It runs and holds what it needs: all is in use, and by itself.
        (replace(FREE, server_used=97, held=1), replace(CAPTURE, is_running=True)),
        (
            replace(FREE, role_most=4, role_used=4, held=1),
            replace(CAPTURE, is_running=True),
        ),
        (replace(FREE, server_used=97, held=9), replace(BOTH, is_running=True)),
    ],
)
def test_room_for_all_that_the_agent_has_not_opened_is_well(
    found: Connections, usage: Usage
) -> None:
    assert of_connections(found, usage, Reason.SOURCE_UNFIT).reason is None


@pytest.mark.parametrize(
    ("found", "usage", "seen", "remedy"),
    [
        (replace(FREE, server_used=97), CAPTURE, "97 of the 97", "max_connections to 101"),
        (replace(FREE, server_used=91), TARGET, "at most 7", "max_connections to 101"),
        (replace(FREE, server_used=90), BOTH, "at most 8", "max_connections to 101"),
        (
            replace(FREE, role_most=4),
            CAPTURE,
            "4 of the 4 that the CONNECTION LIMIT of the role",
            "ALTER ROLE <role> CONNECTION LIMIT 5",
        ),
        (
            replace(FREE, database_most=12),
            TARGET,
            "6 of the 12 that the CONNECTION LIMIT of the database",
            "ALTER DATABASE <database> CONNECTION LIMIT 13",
        ),
        # Another agent holds them, as this one does not run.
        (replace(FREE, server_used=97, held=9), CAPTURE, "97 of the 97", "max_connections"),
        # It runs, and its target could not be opened.
        (
            replace(FREE, role_most=4, held=1),
            replace(BOTH, is_running=True),
            "at most 7",
            "CONNECTION LIMIT 11",
        ),
    ],
)
def test_too_little_room_is_told_with_cause_and_remedy(
    found: Connections, usage: Usage, seen: str, remedy: str
) -> None:
    finding = of_connections(found, usage, Reason.TARGET_UNFIT)
    assert finding.reason is Reason.TARGET_UNFIT
    assert seen in finding.seen
    assert remedy in finding.remedy


# A server


@pytest.fixture
async def role(database: str) -> AsyncIterator[str]:
    """The URL of an ordinary role that may replicate."""
    name, application = f"role_{next(NUMBERS)}", Application(database)
    await application.run(f"CREATE ROLE {name} LOGIN REPLICATION")
    yield database.replace("postgres@", f"{name}@")
    await application.run(f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def looked(url: str, usage: Usage) -> Finding:
    connection = await connect(url, LOOKING)
    try:
        return await look(connection, usage, Reason.SOURCE_UNFIT)
    finally:
        await shut(connection)


def opened(stack: contextlib.ExitStack, url: str, **more: Any) -> None:
    """A connection as an agent has it."""
    stack.enter_context(contextlib.closing(psycopg.connect(url, application_name="fabric", **more)))


@pytest.mark.integration
@pytest.mark.parametrize("what", ["ROLE", "DATABASE"])
async def test_a_limit_that_the_server_keeps_is_told_before_it_is_met(
    database: str, role: str, what: str
) -> None:
    name = role.split("//")[1].partition("@")[0]
    of = name if what == "ROLE" else database.rpartition("/")[2]
    await Application(database).run(f'ALTER {what} "{of}" CONNECTION LIMIT 1')
    assert (await looked(role, CAPTURE)).reason is None
    with contextlib.ExitStack() as stack:
        opened(stack, role)
        with pytest.raises(psycopg.OperationalError, match="too many connections"):
            opened(stack, role)
        await Application(database).run(f'ALTER {what} "{of}" CONNECTION LIMIT 2')
        assert (await looked(role, CAPTURE)).reason is None
        opened(stack, role, replication="database")
        assert (await looked(role, CAPTURE)).reason is None
        two = replace(CAPTURE, captures=2)
        assert (await looked(role, two)).reason is Reason.SOURCE_UNFIT
        found = await looked(role, replace(two, is_running=True))
        assert found.reason is None
        assert "at most 1" in found.seen


@pytest.mark.integration
async def test_the_servers_own_bound_counts_what_is_reserved_and_no_walsender(role: str) -> None:
    tables = replace(TARGET, tables=20)
    found = await looked(role, tables)
    assert found.reason is None
    assert " of 97 in use" in found.seen
    too_many = await looked(role, replace(tables, tables=50))
    assert too_many.reason is Reason.SOURCE_UNFIT
    assert "raise max_connections" in too_many.remedy
    with contextlib.ExitStack() as stack:
        used = [int(found.seen.split()[0])]
        for more in ({"replication": "database"}, {}):
            opened(stack, role, **more)
            used.append(int((await looked(role, tables)).seen.split()[0]))
        assert used == [used[0], used[0], used[0] + 1]


@pytest.mark.integration
async def test_no_limit_counts_for_a_superuser(database: str) -> None:
    name = database.rpartition("/")[2]
    await Application(database).run(f'ALTER DATABASE "{name}" CONNECTION LIMIT 0')
    found = await looked(database, BOTH)
    assert found.reason is None
    assert " of 100 in use" in found.seen
