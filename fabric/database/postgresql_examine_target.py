"""Look at a PostgreSQL target as its sink will need it, and leave it as it is."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from fabric.database import postgresql_state as states
from fabric.database.finding import MADE, Finding, Usage, failed, ill, parked, well, whole
from fabric.database.postgresql_columns import split_table, table_sql
from fabric.database.postgresql_connect import connect, shut, types_of
from fabric.database.postgresql_connections import LOOKING, look
from fabric.database.postgresql_examine import examined
from fabric.database.postgresql_tables import check_table
from fabric.model.errors import FabricError, Reason
from fabric.model.names import Topic
from fabric.ports import Target

_FABRIC = "schema fabric"
_OURS = ("fabric.streams", "fabric.datasets", "fabric.quarantine", "fabric.schemas")
_MAY_MAKE_SCHEMAS = (
    "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
)
_MAY_MAKE_TABLES = """
SELECT pg_catalog.has_schema_privilege(n.oid, 'CREATE')
    AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
FROM pg_catalog.pg_namespace n WHERE n.nspname = $1
"""
_MAY_WRITE = """
SELECT bool_and(pg_catalog.has_table_privilege(pg_catalog.to_regclass(t), p))
FROM unnest($1::text[]) AS t, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p
"""


async def examine_target(url: str, targets: Sequence[Target], usage: Usage) -> list[Finding]:
    """Everything that the datasets need of their database, what may lack, and what is parked."""
    try:
        connection = await connect(url, LOOKING)
    except FabricError as exc:
        return [failed("server", exc)]
    try:
        return [
            well("server", f"PostgreSQL {connection.get_server_version().major}"),
            await examined("connections", look(connection, usage, Reason.TARGET_UNFIT)),
            await examined(_FABRIC, _fabric(connection)),
            *[
                await examined(f"table {target.table}", _table(connection, target))
                for target in targets
            ],
            *[
                await examined(f"dataset {target.topic}", _dataset(connection, target.topic))
                for target in targets
            ],
            await examined("quarantine", _quarantine(connection)),
        ]
    finally:
        await shut(connection)


async def _fabric(connection: "asyncpg.Connection[Any]") -> Finding:
    """Our own schema: the agent looks after its tables at each start, so it must own them."""
    may = await connection.fetchval(_MAY_MAKE_TABLES, "fabric")
    if may is None and await connection.fetchval(_MAY_MAKE_SCHEMAS):
        return well(_FABRIC, MADE)
    if may is None:
        return _unfit(
            _FABRIC,
            "there is none and the role may not make it",
            "let an owner run: CREATE SCHEMA fabric AUTHORIZATION <role>",
        )
    if not may or await connection.fetchval(_MAY_WRITE, _OURS) is False:
        return _unfit(
            _FABRIC,
            "the role may not write it",
            "let an owner run: ALTER SCHEMA fabric OWNER TO <role>, and the same for its tables",
        )
    return well(_FABRIC, "the role may write it")


async def _table(connection: "asyncpg.Connection[Any]", target: Target) -> Finding:
    part = f"table {target.table}"
    fit = await check_table(connection, target, await types_of(connection))
    if fit is None:
        return await _absent(connection, target)
    name = table_sql(target.table)
    if not await connection.fetchval(_MAY_WRITE, [name]):
        return _unfit(
            part,
            "the role may not write it",
            f"let its owner run: GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO <role>",
        )
    return well(part, f"holds the dataset's {len(fit.writing)} columns")


async def _absent(connection: "asyncpg.Connection[Any]", target: Target) -> Finding:
    schema = split_table(target.table)[0]
    may = await connection.fetchval(_MAY_MAKE_TABLES, schema)
    if may is None:
        may = await connection.fetchval(_MAY_MAKE_SCHEMAS)
    if may:
        return well(f"table {target.table}", MADE)
    return _unfit(
        f"table {target.table}",
        "there is none and the role may not make it",
        f"let an owner run: GRANT CREATE ON SCHEMA {schema} TO <role>, or make the table",
    )


async def _dataset(connection: "asyncpg.Connection[Any]", topic: Topic) -> Finding:
    is_filled = await states.is_filled(connection, topic)
    return whole(topic, (await states.load_all(connection, topic)).values() if is_filled else ())


async def _quarantine(connection: "asyncpg.Connection[Any]") -> Finding:
    if not await connection.fetchval("SELECT pg_catalog.to_regclass('fabric.quarantine')"):
        return parked(0)
    return parked(await connection.fetchval("SELECT count(*) FROM fabric.quarantine"))


def _unfit(part: str, seen: str, remedy: str) -> Finding:
    return ill(part, Reason.TARGET_UNFIT, seen, remedy)
