"""A doctor's look at the databases of an agent, with what the policy says of their tables."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from fabric.agent.alone import demand_room
from fabric.agent.identity import STATE
from fabric.cli.access import target_of
from fabric.cli.checks import Once
from fabric.config import AgentConfig, Apply
from fabric.config import Capture as CaptureConfig
from fabric.database.finding import Capture, Finding, Usage, failed
from fabric.database.registry import examine_source, examine_target, given_name
from fabric.database.sqlite_examine import examine_outbox
from fabric.database.sqlite_outbox import FILE as OUTBOX
from fabric.model.errors import FabricError
from fabric.model.names import Origin, Topic
from fabric.policy.decide import dataset_of
from fabric.policy.types import Policy
from fabric.ports import SourceTable
from fabric.store.sealed import read_resume

T = TypeVar("T")


async def source(
    config: AgentConfig, part: CaptureConfig, policy: Once[Policy], *, agent: int | None
) -> Sequence[Finding]:
    """One capture's database; what needs no policy is looked at without one.

    Args:
        agent: process of the running agent, None for none.
    """

    def made(policy: Policy, topic: Topic, table: str) -> SourceTable:
        return SourceTable(table=table, topic=topic, schema=dataset_of(policy, str(topic)).schema)

    topics = {topic: table for table, topic in part.tables.items()}
    tables, unknown = await _datasets(policy, topics, made)
    name = given_name(part.source)
    capture = Capture(
        tables=tables,
        slot=part.slot or name,
        publication=part.publication or name,
        resume=read_resume(config.agent.folder / STATE, part.source),
        agent=agent,
    )
    usage = usage_of(config, part.url, agent=agent)
    return [*await examine_source(part.kind, part.url, capture, usage), *unknown]


async def target(
    config: AgentConfig, part: Apply, policy: Once[Policy], *, agent: int | None
) -> Sequence[Finding]:
    """One target's database; `agent` as of `source`."""
    targets, unknown = await _datasets(policy, part.tables, target_of)
    usage = usage_of(config, part.url, agent=agent)
    return [*await examine_target(part.kind, part.url, targets, usage), *unknown]


def usage_of(config: AgentConfig, url: str, *, agent: int | None) -> Usage:
    """All that an agent has to do with the database of a URL."""
    targets = [part for part in config.apply if part.url == url]
    return Usage(
        captures=sum(part.url == url for part in config.capture),
        targets=len(targets),
        tables=sum(len(part.tables) for part in targets),
        is_running=agent is not None,
    )


async def outbox(config: AgentConfig, policy: Once[Policy]) -> Sequence[Finding]:
    """The file of the Python API's `publish`, and what the policy knows of its topics."""
    topics = [str(topic) for topic in config.outbox.topics]
    tables: list[SourceTable] = []
    unknown: list[Finding] = []
    for topic in config.outbox.topics:
        try:
            schema = dataset_of(await policy.get(), str(topic)).schema
        except FabricError as exc:
            unknown.append(failed(f"topic {topic}", exc))
        else:
            tables.append(SourceTable(table="", topic=topic, schema=schema))
    file = partial(examine_outbox, config.agent.folder / OUTBOX, topics)
    if tables:
        me = config.agent.host
        origin = Origin(me.agency, me.system, config.outbox.source)
        file = partial(file, tables=tables, room=partial(demand_room, await policy.get(), origin))
    return [await asyncio.to_thread(file), *unknown]


async def _datasets(
    policy: Once[Policy], topics: Mapping[Topic, str], make: Callable[[Policy, Topic, str], T]
) -> tuple[list[T], list[Finding]]:
    """What the policy makes of each topic and table, and the tables of which it knows nothing."""
    found: list[T] = []
    unknown: list[Finding] = []
    for topic, table in topics.items():
        try:
            found.append(make(await policy.get(), topic, table))
        except FabricError as exc:
            unknown.append(failed(f"table {table}", exc))
    return found, unknown
