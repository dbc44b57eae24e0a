"""What must be refused: at the gateway for its own reason each, and at the broker."""

from collections.abc import Callable

from fabric.demo import intruder, proofs
from fabric.demo.intruder import Papers
from fabric.demo.layout import OTHER, SECRET
from fabric.demo.papers import intruders_papers, stranger, strangers_envelope
from fabric.demo.say import Step
from fabric.demo.world import World
from fabric.model.errors import Reason


def at_the_gateway(world: World) -> None:
    """Five records that the gateway refuses, each for its own reason."""
    stored = intruder.read(world.broker.address, world.platform("admin"), str(SECRET))
    genuine = stored[-1]
    a = world.papers("A")
    d = stranger(world.layout)
    plain = b"\x00\x00\x00\x00\x02" + b"a plain Avro record"
    changed = genuine[:-40] + bytes([genuine[-40] ^ 1]) + genuine[-39:]
    forged = strangers_envelope(genuine, d.host)
    secret = str(SECRET)
    _refused(world, "a plain Avro record", plain, Reason.NOT_SEALED, topic=secret, papers=a)
    _refused(
        world,
        "an envelope by a host that never attested",
        forged,
        Reason.NOT_ATTESTED,
        topic=secret,
        papers=d.papers,
    )
    other = str(OTHER)
    _refused(
        world,
        "an envelope whose header names another topic",
        genuine,
        Reason.TOPIC_MISMATCH,
        topic=other,
        papers=a,
    )
    _refused(
        world,
        "an envelope with one changed byte",
        changed,
        Reason.BAD_SIGNATURE,
        topic=secret,
        papers=a,
    )
    _refused(world, "a replayed envelope", stored[0], Reason.REPLAYED, topic=secret, papers=a)


def _refused(
    world: World, what: str, value: bytes, reason: Reason, *, topic: str, papers: Papers
) -> None:
    with world.teller.proof(f"the gateway refuses {what}") as step:
        proofs.refused(world, step, value, reason, topic=topic, papers=papers)


def round_the_gateway(world: World) -> None:
    """Writes straight to the broker: by A, and by a `gateway` of another organisation."""
    attempts: list[tuple[str, Callable[[], Papers]]] = [
        ("A", lambda: world.papers("A")),
        ("CN=gateway under another O", lambda: intruders_papers(world.layout)),
    ]
    for who, papers in attempts:
        with world.teller.proof(f"the broker refuses a write round the gateway, by {who}") as step:
            proofs.broker_refuses(world, step, papers())


def dropped_by_b(world: World) -> float:
    """How many records B's reader has dropped: as duplicates, as superseded, or refused."""
    part = world.parts["B"]
    return part.metric("fabric_rejected_records_total") + part.metric(
        "fabric_applied_records_total", outcome="duplicate"
    )


__all__ = ["Step", "at_the_gateway", "dropped_by_b", "round_the_gateway"]
