"""Who may open what: a consumer that is named late, a host that was off, a sender that is gone.

A sends `residents` (history `from_join`) and `notes` (`retained`); B sends `memos` (`retained`),
of which A is the custodian. B goes off in the first test and comes back in the last one, C
comes in between: each test goes on where the one before it ended.
"""

import itertools
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fabric.demo import configs, intruder
from fabric.demo.enrol import admit_hosts
from fabric.demo.layout import OTHER, PUBLIC, SECRET
from fabric.demo.policy import RESULT_LIFETIME_S
from fabric.demo.world import World
from fabric.model.names import Topic, grants_topic
from fabric.seal.epoch import KIND as START
from fabric.seal.epoch import EpochStart, parse_start
from fabric.seal.grant import Grant, parse_grant
from fabric.seal.record import kind_of
from tests.support.world import (
    await_equal,
    await_reason,
    await_value,
    change_dataset,
    reasons,
    running_world,
    stays,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

MEMOS = Topic.parse("secret.G01.memos")
STATISTICS = "G03/statistics"
ROWS = 50
_AWAY_S = 5
_BEFORE, _AFTER = 10_000, 20_000
_texts = itertools.count(1)


def captures(source: str, url: Path | str, tables: Mapping[str, Topic]) -> str:
    head = f'[[capture]]\nsource = "{source}"\nkind = "sqlite"\nurl = "{url}"\n[capture.tables]\n'
    return head + "".join(f'{table} = "{topic}"\n' for table, topic in tables.items())


def applies(url: Path | str, *topics: Topic) -> str:
    head = f'[[apply]]\nkind = "sqlite"\nurl = "{url}"\n[apply.tables]\n'
    return head + "".join(f'"{topic}" = "{topic.dataset}"\n' for topic in topics)


def memos_of(world: World, letter: str) -> Path | str:
    """The database that holds a host's memos."""
    return world.urls["C"] if letter == "C" else world.host(letter).folder / "memos.db"


def declare(world: World) -> None:
    """Policy and configuration of this module's world."""
    a, b, c = (world.host(letter) for letter in "ABC")
    change_dataset(world, "residents", history="from_join", consumers=["G02/health"])
    change_dataset(world, "notes", producers=["G01/registry/registry"], consumers=["G02/health"])
    change_dataset(
        world,
        "memos",
        producers=["G02/health/memos"],
        consumers=["G01/registry", STATISTICS],
        custodians=["G01/registry"],
        schema_id=4,
    )
    world.policy.approve(c, clearance=a.clearance)
    world.policy.publish()
    tables = {"wards": PUBLIC, "residents": SECRET, "notes": OTHER}
    parts = {
        "A": captures("registry", world.urls["A"], tables) + applies(memos_of(world, "A"), MEMOS),
        "B": captures("memos", memos_of(world, "B"), {"memos": MEMOS})
        + applies(world.urls["B"], PUBLIC, SECRET, OTHER),
        "C": applies(world.urls["C"], PUBLIC, SECRET, OTHER, MEMOS),
    }
    for host in (a, b, c):
        tcti, broker = world.machines[host.letter].tpm.tcti, world.broker.address
        text = configs.agent_toml(world.layout, host, broker, tcti, parts[host.letter])
        text = text.replace("[agent]", f"[agent]\ncustody_after_s = {_AWAY_S}")
        host.config.write_text(text)
    for url, table in ((world.urls["A"], "notes"), (memos_of(world, "B"), "memos")):
        execute(url, f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world(source="sqlite", target="sqlite", rows=ROWS, change=declare) as made:
        yield made


def execute(url: Path | str, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(url, timeout=30)) as connection, connection:
        connection.execute(statement, values)


def select(url: Path | str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows; none while there is no such table."""
    try:
        with closing(sqlite3.connect(url, timeout=30)) as connection:
            return connection.execute(statement, values).fetchall()
    except sqlite3.OperationalError:
        return []


def write(url: Path | str, table: str, count: int) -> None:
    for _ in range(count):
        execute(url, f"INSERT INTO {table} (text) VALUES (?)", f"text {next(_texts)}")


def rows(url: Path | str, table: str, first: int = 0) -> list[tuple[Any, ...]]:
    return select(url, f"SELECT * FROM {table} WHERE id >= ? ORDER BY id", first)


def change_residents(world: World, first: int) -> None:
    """A's application changes rows from `first` on, and A's agent has them acknowledged."""
    assert world.registry is not None
    world.registry.change(first, 8)
    left = "SELECT * FROM fabric_changes WHERE source IS NOT NULL"
    await_value(lambda: not select(world.urls["A"], left), "A's rows to be acknowledged")


def starts(world: World, topic: Topic) -> list[EpochStart]:
    """Epoch starts of a topic, oldest first."""
    stored = intruder.read(world.broker.address, world.platform("admin"), grants_topic(topic))
    return [parse_start(value).start for value in stored if kind_of(value) == START]


def grants(world: World, topic: Topic) -> list[Grant]:
    """Later grants of a topic."""
    stored = intruder.read(world.broker.address, world.platform("admin"), grants_topic(topic))
    return [parse_grant(value).grant for value in stored if kind_of(value) != START]


def opened_for(world: World, letter: str) -> list[bool]:
    """Of each epoch of the residents, oldest first: whether any wrap of it is for a host."""
    host = world.host(letter).id
    granted = {grant.terms.epoch_id for grant in grants(world, SECRET)
               if host in {r.host for r in grant.recipients}}  # fmt: skip
    return [
        start.id in granted or host in {r.host for r in start.recipients}
        for start in starts(world, SECRET)
    ]


def attested_at(world: World, letter: str) -> float:
    """When a host was attested last, Unix seconds."""
    return world.host(letter).certificate.stat().st_mtime


def test_a_host_that_is_attested_and_not_named_gets_nothing(world: World) -> None:
    write(world.urls["A"], "notes", 5)
    write(memos_of(world, "B"), "memos", 5)
    await_value(lambda: len(rows(world.urls["B"], "notes")) == 5, "notes in B")
    await_value(lambda: len(rows(memos_of(world, "A"), "memos")) == 5, "memos in A")
    seen = attested_at(world, "B")
    await_value(lambda: attested_at(world, "B") > seen, "a result that carries B's memos")
    world.parts["B"].stop()
    change_residents(world, _BEFORE)
    admit_hosts(world, "C")
    for topic in (SECRET, OTHER):
        await_reason(world.parts["C"], f"apply {topic}", "not_a_consumer")
        assert not rows(world.urls["C"], topic.dataset)


def test_a_consumer_that_is_named_late_gets_what_its_history_says(world: World) -> None:
    """Everything under `retained`; under `from_join` nothing from before, and all that follows."""
    over = attested_at(world, "B") + RESULT_LIFETIME_S + 1
    await_value(lambda: time.time() > over, "B's result to end", wait_s=RESULT_LIFETIME_S + 2)
    before = len(starts(world, SECRET))
    for name in ("residents", "notes"):
        change_dataset(world, name, consumers=["G02/health", STATISTICS])
    world.policy.publish()

    def begun() -> bool:
        write(world.urls["A"], "notes", 1)  # a source that moves makes all its streams speak
        return len(starts(world, SECRET)) > before

    await_value(begun, "an epoch for C", wait_s=40)
    change_residents(world, _AFTER)
    wanted = rows(world.urls["A"], "residents", _AFTER)
    await_value(
        lambda: rows(world.urls["C"], "residents", _AFTER) == wanted,
        "C to have what came since",
        wait_s=40,
    )
    assert len(wanted) == 6
    await_value(
        lambda: rows(world.urls["C"], "notes") == rows(world.urls["A"], "notes"), "notes in C"
    )
    assert len(rows(world.urls["C"], "notes")) > 5
    assert stays(lambda: rows(world.urls["C"], "residents") == wanted, 1)
    opened = opened_for(world, "C")
    assert not any(opened[:before])
    assert opened[before]


def test_a_late_reader_gets_from_a_custodian_what_a_sender_that_is_gone_had_sent(
    world: World,
) -> None:
    wanted = rows(memos_of(world, "B"), "memos")
    await_value(lambda: rows(world.urls["C"], "memos") == wanted, "memos in C", wait_s=40)
    assert len(wanted) == 5
    a, c = (world.host(letter).id for letter in "AC")
    # B may have granted, too, while it was there: to A, when A attested after an epoch's start.
    made = [(grant.granter, r.host) for grant in grants(world, MEMOS) for r in grant.recipients]
    assert {granter for granter, host in made if host == c} == {a}
    assert {host for granter, host in made if granter == a} == {c}
    assert not world.parts["B"].health()[0]


def test_a_host_that_was_off_opens_what_was_sent_meanwhile_across_an_epoch_change(
    world: World,
) -> None:
    missed = [start for start in starts(world, SECRET)
              if world.host("B").id not in {r.host for r in start.recipients}]  # fmt: skip
    assert missed, "no epoch began without B"
    assert not rows(world.urls["B"], "residents", _BEFORE)
    world.parts["B"].start()
    await_equal(world)
    assert rows(world.urls["B"], "residents", _AFTER)
    assert all(opened_for(world, "B"))
    write(memos_of(world, "B"), "memos", 1)
    for letter in "AC":
        await_value(lambda letter=letter: len(rows(memos_of(world, letter), "memos")) == 6,
                    f"B's next memo in {letter}")  # fmt: skip
    for part in world.parts.values():
        part.await_ready()
    assert all(not reasons(part) for part in world.parts.values())
