"""The proofs: each promise shown by doing it. A proof that does not hold raises Unproved."""

import asyncio
import json
import time
from collections.abc import Callable

from fabric.demo import intruder
from fabric.demo.configs import tables
from fabric.demo.fleet import await_that
from fabric.demo.intruder import Papers
from fabric.demo.layout import OTHER, PUBLIC, SECRET
from fabric.demo.people import residents, wards
from fabric.demo.registry import count_rows
from fabric.demo.say import Step
from fabric.demo.world import World
from fabric.model.errors import FabricError, Reason
from fabric.model.schema import RowSchema

_SETTLE_S = 40.0
_KEYS = {str(PUBLIC): ("code",), str(SECRET): ("id",)}


class Unproved(FabricError):
    """A promise did not hold."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERNAL, message)


def demand(holds: bool, message: str) -> None:
    """Raise Unproved unless `holds`."""
    if not holds:
        raise Unproved(message)


def digests(world: World, letter: str) -> dict[str, tuple[int, str]]:
    """Row count and order-independent digest of each dataset's table on a host."""
    from fabric.database.digest import table_digest

    kind, url = world.kind(letter), world.urls[letter]
    found = {}
    for topic, table in tables(kind).items():
        text = (
            world.layout.policy / "schemas/G01" / f"{topic.rpartition('.')[2]}.avsc"
        ).read_bytes()
        schema = RowSchema.parse(text, _KEYS[topic])
        found[topic] = asyncio.run(table_digest(kind, url, table, schema))
    return found


def counts(world: World, letter: str) -> list[int]:
    """Rows of each dataset's table on a host; cheaper than digests."""
    kind, url = world.kind(letter), world.urls[letter]
    return [count_rows(kind, url, table) for table in tables(kind).values()]


def in_step(world: World) -> Callable[[], bool]:
    """A condition: A's and B's tables are equal."""
    return lambda: (
        counts(world, "A") == counts(world, "B") and digests(world, "A") == digests(world, "B")
    )


def equal(world: World, step: Step, *, wait_s: float = _SETTLE_S) -> None:
    """Counts and digests are equal in A and B, for both datasets."""
    await_that(in_step(world), "A's and B's tables to be equal", wait_s=wait_s)
    found = digests(world, "B")
    step.seen = ", ".join(
        f"{topic} {rows} rows {digest[:12]}" for topic, (rows, digest) in found.items()
    )


def ciphertext_only(world: World, step: Step) -> None:
    """What is stored in the secret topic holds no plaintext, and inspect shows headers only."""
    from fabric.seal.envelope import describe, parse

    values = intruder.read(world.broker.address, world.platform("admin"), str(SECRET))
    demand(bool(values), "the secret topic is empty")
    known = [row.full_name for row in residents(500)] + [row.id_number for row in residents(500)]
    stored = b"".join(values)
    names = [name for name in known if name.encode() in stored]
    demand(not names, "a resident's name or number was found in the broker's bytes")
    public = b"".join(intruder.read(world.broker.address, world.platform("admin"), str(PUBLIC)))
    demand(
        all(ward.name.encode() in public for ward in wards()[10:20]),
        "the search itself does not find what lies in the open",
    )
    shown = json.dumps(describe(parse(values[0])), ensure_ascii=False)
    demand(not [name for name in known if name in shown], "inspect shows plaintext")
    step.seen = f"{len(stored)} bytes in {len(values)} envelopes, {len(known)} names searched"


def refused(
    world: World, step: Step, value: bytes, reason: Reason, *, topic: str, papers: Papers
) -> None:
    """The gateway refuses a record for exactly this reason, and stores nothing."""
    before = len(intruder.read(world.broker.address, world.platform("admin"), topic))
    outcome = intruder.produce(world.layout.gateway, papers, topic, value)
    why = intruder.reason(world.layout.refusals, papers, topic, value)
    after = intruder.read(world.broker.address, world.platform("admin"), topic)
    step.seen = f"{outcome}: {why or 'no reason given'}"
    demand(outcome != "stored" and value not in after[before:], "the record was stored")
    demand(why == reason.value, f"refused, but not as {reason.value}")


def broker_refuses(world: World, step: Step, papers: Papers) -> None:
    """The broker itself refuses a write that goes round the gateway."""
    value = b"straight to the broker"
    outcome = intruder.produce(world.broker.address, papers, str(SECRET), value)
    step.seen = outcome
    demand("AUTHORIZATION" in outcome, "the broker did not deny it")


def granted_hosts(values: list[bytes]) -> set[str]:
    """Every host that an epoch start or a grant holds a wrap for."""
    from fabric.seal.epoch import parse_start
    from fabric.seal.grant import KIND, parse_grant
    from fabric.seal.record import kind_of

    named: set[str] = set()
    for value in values:
        if kind_of(value) == KIND:
            recipients = parse_grant(value).grant.recipients
        else:
            recipients = parse_start(value).start.recipients
        named.update(str(item.host) for item in recipients)
    return named


def not_for_c(world: World, step: Step) -> None:
    """C is attested and named, but not cleared: no wrap is for it, and nothing arrived."""
    topic = f"fabric.grants.{SECRET}"
    named = granted_hosts(intruder.read(world.broker.address, world.platform("admin"), topic))
    host = world.host("C")
    demand(str(world.host("B").id) in named, "B has no grant either")
    demand(str(host.id) not in named, "an epoch's secret was wrapped for C")
    kind, url = world.kind("C"), world.urls["C"]
    demand(count_rows(kind, url, tables(kind)[str(PUBLIC)]) > 0, "C did not get the public rows")
    demand(count_rows(kind, url, tables(kind)[str(SECRET)]) == 0, "C has secret rows")
    ready, body = world.parts["C"].health()
    reasons = json.dumps(body)
    demand(
        not ready and Reason.NOT_A_CONSUMER.value in reasons,
        f"C's agent does not say that it is no consumer: {reasons}",
    )
    step.seen = f"granted to {', '.join(sorted(named))}; C's agent says not_a_consumer"


def replay_inside_the_log(world: World, step: Step, metric: Callable[[], float]) -> None:
    """An envelope that the broker's operator appends again is dropped by B and counted."""
    stored = intruder.read(world.broker.address, world.platform("admin"), str(SECRET))
    before, rows = metric(), digests(world, "B")
    papers = world.platform("admin")
    outcome = intruder.produce(world.broker.address, papers, str(SECRET), stored[-1])
    demand(outcome == "stored", f"the operator could not append: {outcome}")
    await_that(lambda: metric() > before, "B to count the duplicate", wait_s=_SETTLE_S)
    demand(digests(world, "B") == rows, "the replay changed rows")
    step.seen = f"dropped, counted {metric() - before:.0f}"


def survives_kill(world: World, step: Step, letters: str) -> None:
    """Agents are ended by SIGKILL while rows stream, and started again: nothing is lost."""
    registry = world.registry
    demand(registry is not None, "the registry is closed")
    first = world.wish.rows + 20_000
    for number, letter in enumerate(letters):
        assert registry is not None
        registry.change(first + number * 400, 200)
        world.parts[letter].stop(kill=True)
        registry.change(first + number * 400 + 200, 200)
        world.parts[letter].start()
    world.remember()
    for letter in letters:
        world.parts[letter].await_ready()
    equal(world, step)


def changed_host(world: World, step: Step) -> int:
    """A's boot state changes: refused, suspended, and its next row waits in A's database."""
    machine, part = world.machines["A"], world.parts["A"]
    assert world.registry is not None
    machine.tamper()
    began = time.monotonic()
    await_that(lambda: not part.health()[0], "A's agent to be refused", wait_s=_SETTLE_S)
    suspended = time.monotonic() - began
    before = digests(world, "B")
    world.registry.change(world.wish.rows + 40_000, 20)
    held = time.monotonic() + 3
    while time.monotonic() < held:
        demand(digests(world, "B") == before, "a row of a suspended host arrived")
        time.sleep(0.2)
    demand(digests(world, "A") != before, "the row is lost from A's table")
    reasons = json.dumps(part.health()[1])
    demand(
        Reason.HOST_SUSPENDED.value in reasons or Reason.STATE_REFUSED.value in reasons,
        f"A's agent says {reasons}",
    )
    step.seen = f"suspended {suspended:.1f} s after the change, the rows wait"
    return len(before)


def put_right(world: World, step: Step) -> None:
    """The host is rebooted into the approved state and approved again: the rows arrive."""
    machine = world.machines["A"]
    machine.reboot()
    world.remember()
    world.policy.approve(machine.host, number=world.policy.approval_number(machine.host) + 1)
    world.policy.publish()
    world.parts["A"].await_ready(wait_s=60)
    equal(world, step)


__all__ = ["OTHER", "Unproved", "demand"]
