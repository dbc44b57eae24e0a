"""Night shift: each part of a running fabric fails once, says so, and comes back with nothing lost.

Host A keeps its tables in SQLite and host B in PostgreSQL, so that B's database can be
taken away alone. Each test leaves the world well for the next one; the last one does not.
"""

import contextlib
import itertools
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from fabric.demo import intruder, proofs
from fabric.demo.layout import PUBLIC, SECRET
from fabric.demo.policy import RESULT_LIFETIME_S
from fabric.demo.world import World
from tests.support import segments
from tests.support.world import (
    ask,
    audited,
    await_equal,
    await_reason,
    await_value,
    fabric,
    reasons,
    running_world,
    stays,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

_fresh = itertools.count(100_000, 1_000)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world() as running:
        yield running


def commit_rows(world: World) -> None:
    """A's application inserts, updates and deletes a few rows."""
    assert world.registry is not None
    world.registry.change(next(_fresh), 8)


def run_at_a(world: World, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(world.urls["A"], timeout=30)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


def source_position(world: World) -> int:
    """What A's agent has let its source go up to."""
    path = world.host("A").folder / "state" / "agent.state"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as state:
        row = state.execute("SELECT position FROM source WHERE name = 'registry'").fetchone()
    return int(row[0])


def kept_changes(world: World) -> int:
    """Rows in A's change table that were not let go."""
    with closing(sqlite3.connect(world.urls["A"], timeout=30)) as connection:
        count = "SELECT count(*) FROM fabric_changes WHERE source IS NOT NULL"
        return int(connection.execute(count).fetchone()[0])


def secret_rows(world: World) -> tuple[int, str]:
    return proofs.digests(world, "B")[str(SECRET)]


def settle(world: World) -> None:
    """Everything equal, everybody ready."""
    await_equal(world)
    for part in world.parts.values():
        part.await_ready(wait_s=40)


# A part of the platform is away


def test_rows_wait_at_the_source_while_the_gateway_is_away(world: World) -> None:
    gateway, agent = world.parts["gateway"], world.parts["A"]
    before = source_position(world)
    gateway.stop(kill=True)
    commit_rows(world)
    assert "gateway" in await_reason(agent, f"publish {SECRET}", "gateway_unavailable")
    assert kept_changes(world) >= 8
    # The open rows and the position wait too: a change after `before` is not acknowledged.
    assert source_position(world) - before <= 1
    gateway.start()
    settle(world)
    await_value(lambda: kept_changes(world) == 0, "the source to let go")


def test_rows_wait_while_the_broker_is_away_and_everybody_says_so(world: World) -> None:
    world.broker.stop(kill=True)
    commit_rows(world)
    await_reason(world.parts["gateway"], "broker", "broker_unavailable")
    await_reason(world.parts["A"], "view", "broker_unavailable")
    await_reason(world.parts["B"], f"apply {SECRET}", "broker_unavailable")
    assert kept_changes(world) >= 8
    world.broker.start()
    world.remember()
    settle(world)


def test_b_names_its_database_while_that_is_away_and_goes_on_when_it_is_back(
    world: World,
) -> None:
    assert world.postgres is not None
    world.postgres.stop()
    commit_rows(world)
    await_reason(world.parts["B"], f"apply {SECRET}", "database_unavailable")
    assert reasons(world.parts["A"]) == {}
    world.postgres.start()
    world.remember()
    settle(world)


def b_measures(world: World, name: str) -> float:
    """A figure of B's for the sealed dataset; 0 while B does not answer."""
    with contextlib.suppress(OSError):
        return world.parts["B"].metric(f"fabric_{name}", topic=str(SECRET))
    return 0.0


def test_b_that_starts_behind_a_locked_table_says_how_long_and_never_that_a_is_silent(
    world: World,
) -> None:
    agent, away_s = world.parts["B"], 8
    agent.stop()
    commit_rows(world)
    assert stays(lambda: agent.pid is None, away_s)
    with psycopg.connect(world.urls["B"]) as connection:
        connection.execute("LOCK TABLE residents IN SHARE ROW EXCLUSIVE MODE")
        agent.start()
        await_value(lambda: b_measures(world, "consumer_lag_timestamp_seconds") > 0, "B's lag")
        assert b_measures(world, "consumer_lag_seconds") >= away_s
        await_reason(agent, f"apply {SECRET}:0", "not_ready", wait_s=40)
        holder = connection.info.backend_pid
        assert f"process {holder} " in str(agent.health()[1])  # whom to look for
        assert stays(lambda: b_measures(world, "stream_silent") == 0, 35)
        assert not any("silence" in part for part in reasons(agent))
        grown = away_s + 35  # as of B's last look, ten seconds ago at most
        await_value(lambda: b_measures(world, "consumer_lag_seconds") >= grown, "lag", wait_s=10)
    settle(world)
    await_value(lambda: b_measures(world, "consumer_lag_seconds") == 0, "B to be level")


def restart_gateway(world: World, text: str) -> None:
    gateway = world.parts["gateway"]
    gateway.stop()
    gateway.config.write_text(text)
    gateway.start()


def test_results_outlive_the_authority_and_then_publishing_stops_until_it_is_back(
    world: World,
) -> None:
    authority, gateway, agent = world.parts["authority"], world.parts["gateway"], world.parts["A"]
    text = gateway.config.read_text()
    # How long the authority may be silent is the operator's choice: here longer than results.
    restart_gateway(world, text.replace("[gateway]", "[gateway]\nheartbeat_interval_s = 60"))
    settle(world)
    authority.stop(kill=True)
    commit_rows(world)
    await_equal(world, wait_s=RESULT_LIFETIME_S / 2)  # renewed at half life: so much is left
    await_reason(agent, "attestation", "authority_unavailable")
    await_reason(agent, f"publish {SECRET}", "result_expired", wait_s=RESULT_LIFETIME_S + 15)
    rows, position = secret_rows(world), source_position(world)
    commit_rows(world)
    assert stays(lambda: secret_rows(world) == rows, 1)
    assert source_position(world) - position <= 1
    # By default nobody can tell a dead authority from a broker that hides revocations.
    restart_gateway(world, text)
    await_reason(gateway, "members", "members_stale")
    authority.start()
    settle(world)


# A row that does not fit


def test_a_row_that_cannot_be_applied_is_parked_with_its_key_and_retried_by_hand(
    world: World,
) -> None:
    config = world.host("B").config
    settle(world)
    ask(
        world.urls["B"],
        "ALTER TABLE residents ADD CONSTRAINT no_moon CHECK (address NOT LIKE '%moon%')",
    )

    def address_of(ident: int) -> str:
        rows = ask(world.urls["B"], "SELECT address FROM residents WHERE id = %s", ident)
        return str(rows[0][0])

    count = "SELECT count(*) FROM fabric.quarantine"
    # A change table holds keys: each change must be read before the next one is made.
    for number, address in enumerate(("the moon", "back on earth"), 1):
        run_at_a(world, "UPDATE residents SET address = ? WHERE id = ?", address, 5)
        await_value(
            lambda number=number: ask(world.urls["B"], count) == [(number,)], "B to park a change"
        )
    run_at_a(world, "UPDATE residents SET address = ? WHERE id = ?", "next door", 6)
    await_value(lambda: address_of(6) == "next door", "another row to flow")
    assert address_of(5) not in ("the moon", "back on earth")
    listed = fabric("quarantine", "list", "--config", config, "-o", "json")
    assert listed.returncode == 0, listed.stderr
    parked = json.loads(listed.stdout)
    assert len(parked) == 2
    assert {item["topic"] for item in parked} == {str(SECRET)}
    assert "no_moon" in parked[0]["reason"]
    assert "moon" not in parked[0]["reason"].replace("no_moon", "")
    assert "earlier change of this key" in parked[1]["reason"]
    assert 0 < parked[0]["offset"] <= parked[1]["offset"]
    failed = fabric("quarantine", "retry", str(parked[0]["id"]), "--config", config)
    assert "Traceback" not in failed.stderr
    assert address_of(5) not in ("the moon", "back on earth")
    ask(world.urls["B"], "ALTER TABLE residents DROP CONSTRAINT no_moon")
    retried = fabric("quarantine", "retry", str(parked[0]["id"]), "--config", config)
    assert retried.returncode == 0, retried.stderr
    assert "2 changes applied" in retried.stderr
    assert address_of(5) == "back on earth"
    emptied = fabric("quarantine", "list", "--config", config, "-o", "json")
    assert json.loads(emptied.stdout) == []
    run_at_a(world, "UPDATE residents SET address = ? WHERE id = ?", "again", 5)
    settle(world)


# The broker's operator is an enemy


def flipped(value: bytes) -> list[bytes]:
    """An envelope with one changed bit, at places from its first byte to its last."""
    places = {0, 1, 2, 40, 200, len(value) // 2, len(value) - 100, len(value) - 1}
    return [value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :] for at in sorted(places)]


def test_what_the_brokers_operator_appends_is_dropped_and_counted_and_rows_flow_on(
    world: World,
) -> None:
    settle(world)
    broker, admin, agent = world.broker.address, world.platform("admin"), world.parts["B"]
    stored = intruder.read(broker, admin, str(SECRET))
    opened = intruder.read(broker, admin, str(PUBLIC))
    secrets = [b"", b"garbage", b"\xff" * 5_000, b"\x00\x00\x00\x00\x02plain", opened[0]]
    secrets += flipped(stored[-1])
    publics = [b"", b"garbage", b"\x00\x00\x00\x00\x01\xff\xff\xff\xff", stored[0]]
    rows = proofs.digests(world, "B")
    before = {
        level: agent.metric("fabric_rejected_records_total", level=level)
        for level in ("secret", "public")
    }
    for topic, values in ((SECRET, secrets), (PUBLIC, publics)):
        for value in values:
            assert intruder.produce(broker, admin, str(topic), value) == "stored"
    for topic in ("fabric.members", "fabric.results", f"fabric.grants.{SECRET}"):
        for key in (None, b"verifier/revocation/1", f"verifier/host/{world.host('A').id}".encode()):
            for value in (b"", b"garbage", stored[0]):
                intruder.produce(broker, admin, topic, value, key=key)  # some it does not take
    for level, values in (("secret", secrets), ("public", publics)):
        await_value(
            lambda level=level, values=values: (
                agent.metric("fabric_rejected_records_total", level=level)
                >= before[level] + len(values)
            ),
            f"B to count what is wrong in {level}",
        )
    assert proofs.digests(world, "B") == rows
    dropped = {entry["reason"] for entry in audited(world, "B", "record_dropped")}
    assert {"malformed", "not_sealed", "bad_signature"} <= dropped
    commit_rows(world)
    settle(world)
    world.parts["B"].stop()
    world.parts["B"].start()  # a new view reads all that garbage again
    commit_rows(world)
    settle(world)


def publish_three(world: World) -> None:
    """Three envelopes more in the secret topic."""
    admin = world.platform("admin")
    for _ in range(3):
        seen = len(intruder.read(world.broker.address, admin, str(SECRET)))
        commit_rows(world)
        await_value(
            lambda seen=seen: len(intruder.read(world.broker.address, admin, str(SECRET))) > seen,
            "A to publish",
        )


def restart_broker(world: World, edit: Callable[[], None]) -> None:
    """Stop the broker in good order, change its files, start it again."""
    world.broker.stop()
    edit()
    world.broker.start()
    world.remember()


def test_a_bit_changed_in_the_brokers_files_is_named_and_stops_the_stream_until_it_is_back(
    world: World,
) -> None:
    settle(world)
    agent = world.parts["B"]
    agent.stop()
    before, told = secret_rows(world), len(audited(world, "B", "record_dropped"))
    log = segments.newest(world.broker.log_folder / f"{SECRET}-0")
    held = len(segments.batches(log.read_bytes()))
    publish_three(world)
    place = segments.place_in_envelope(log, held)  # the first that B has not seen
    restart_broker(world, lambda: segments.flip(log, place))
    agent.start()
    await_reason(agent, f"stream G01/registry/registry@{SECRET}", "gap", wait_s=40)
    dropped = audited(world, "B", "record_dropped")[told:]
    assert "bad_signature" in {entry["reason"] for entry in dropped}
    assert stays(lambda: secret_rows(world) == before, 1)
    agent.stop()
    restart_broker(world, lambda: segments.flip(log, place))
    agent.start()
    settle(world)
    assert secret_rows(world) != before


def test_a_log_that_was_restored_is_named_by_sender_and_reader_and_changes_no_row(
    world: World,
) -> None:
    log, copy = world.broker.log_folder, world.broker.folder / "copy"

    def restore() -> None:
        shutil.rmtree(log)
        copy.rename(log)

    settle(world)
    restart_broker(world, lambda: shutil.copytree(log, copy))
    settle(world)
    publish_three(world)
    settle(world)
    before, told = secret_rows(world), len(audited(world, "A", "log_went_back"))
    restart_broker(world, restore)
    # What A got since the copy, its result above all, is gone, too, and must come anew first.
    await_reason(world.parts["A"], f"publish {SECRET}", "log_went_back", wait_s=60)
    said = fabric("status", "-c", world.host("A").config)
    assert said.returncode == 10
    assert "log_went_back" in said.stdout
    anew = {"topic": str(SECRET), "partition": 0, "reason": "history_lost"}
    await_value(lambda: anew in audited(world, "B", "read_anew"), "B to miss what it had read")
    went_back = {"stream": f"G01/registry/registry@{SECRET}:0"}
    await_value(
        lambda: went_back in audited(world, "A", "log_went_back")[told:],
        "A to read anew",
        wait_s=60,  # it holds longer, the more often the broker was away before
    )
    assert secret_rows(world) == before
    settle(world)
    assert secret_rows(world) == before
    world.parts["B"].stop()
    for thing in ("TABLE residents", "TABLE wards", "SCHEMA fabric"):
        ask(world.urls["B"], f"DROP {thing} CASCADE")
    world.parts["B"].start()  # whoever begins now finds a whole log
    settle(world)


def test_a_stream_whose_next_envelopes_were_deleted_stops_by_name_and_changes_no_row(
    world: World,
) -> None:
    settle(world)
    agent = world.parts["B"]
    agent.stop()
    admin = world.platform("admin")
    publish_three(world)
    before = secret_rows(world)
    client = AdminClient(admin.settings(world.broker.address))
    place = TopicPartition(str(SECRET), 0)
    asked = client.list_offsets({place: OffsetSpec.latest()})
    place.offset = asked[place].result(15).offset - 1  # everything before the last one goes
    client.delete_records([place])[place].result(15)
    agent.start()
    said = await_reason(agent, f"{SECRET}", "stopped", wait_s=30)
    assert "gap" in said or "history_lost" in said
    commit_rows(world)
    assert stays(lambda: secret_rows(world) == before, 3)
    stopped = audited(world, "B", "stream_stopped")
    assert stopped[-1]["reason"] in ("gap", "history_lost")
