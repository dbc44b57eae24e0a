"""Targets of audit: lines of a log, signed heads, receipts."""

from collections.abc import Iterator

from fabric.attest import cose
from fabric.attest.audit_chain import BEGAN, Walk, read_line, write_line
from fabric.attest.audit_head import head_record, parse_head, verify_head
from fabric.attest.keys import SigningKey
from fabric.model import canonical
from fabric.model.errors import DeniedError, PeerError
from fabric.seal.receipt import parse_receipt, verify_receipt
from tests.fakes.gateway import World
from tests.fakes.receipts import attest_hybrid, head_of, receipt_of, record_of
from tests.fakes.sealing import TRUST_DOMAIN
from tests.fuzz.target import Target, cut, join

BOTH = (PeerError, DeniedError)
WORLD = World()
RESULT, SIGNERS = attest_hybrid(WORLD)
HEAD = head_record(head_of(str(RESULT.host), WORLD, result_id=RESULT.id), SIGNERS)
RECEIPT = record_of(WORLD.b, receipt_of(WORLD.b, WORLD))[1]


def _resigned(value: bytes, kind: str, payload: bytes, signers: list[SigningKey]) -> bytes:
    """The same statement with another payload, signed by its own signer."""
    return cose.sign(kind, cose.parse(value).protected_bytes, payload, signers)


def _kind(value: bytes) -> str:
    head = canonical.decode(cose.parse(value).protected_bytes)
    assert isinstance(head, dict)
    return str(head[16])


def _head(data: bytes) -> None:
    key, value = cut(data)
    verify_head(parse_head(key, value), WORLD.verifier.trust, WORLD.members.result)


def _signed_head(data: bytes) -> None:
    """A head's payload that the host itself has signed."""
    key, payload = cut(data)
    value = _resigned(HEAD[1], _kind(HEAD[1]), payload, SIGNERS)
    verify_head(parse_head(key, value), WORLD.verifier.trust, WORLD.members.result)


def _receipt(data: bytes) -> None:
    verify_receipt(parse_receipt(data), WORLD.b.result, TRUST_DOMAIN)


def _signed_receipt(data: bytes) -> None:
    """A receipt's payload that the reader itself has signed."""
    _receipt(_resigned(RECEIPT, _kind(RECEIPT), data, [*WORLD.b.signers]))


def _log(data: bytes) -> None:
    """Lines of a log, whoever edited them."""
    walk = Walk(None)
    for line in data.split(b"\n"):
        read_line(line)
        walk.take(line)
    walk.end()


def logs() -> Iterator[bytes]:
    """A log of three lines."""
    lines, link = [], None
    for number in range(3):
        line, link = write_line(
            link,
            bytes(16),
            time="2026-09-01T08:00:00.000+00:00",
            event=BEGAN if number == 0 else "block_refused",
            fields={"n": number, "topic": "secret.G01.notes"},
        )
        lines.append(line)
    yield b"\n".join(lines)
    yield lines[0]


TARGETS = [
    Target(name="audit-log", parse=_log, seeds=logs),
    Target(name="audit-head", parse=_head, seeds=lambda: [join(*HEAD)], families=BOTH),
    Target(
        name="signed-audit-head",
        parse=_signed_head,
        seeds=lambda: [join(HEAD[0], cose.parse(HEAD[1]).payload)],
        families=BOTH,
    ),
    Target(name="receipt", parse=_receipt, seeds=lambda: [RECEIPT], families=BOTH),
    Target(
        name="signed-receipt",
        parse=_signed_receipt,
        seeds=lambda: [cose.parse(RECEIPT).payload],
        families=BOTH,
    ),
]
