"""Targets of fabric.seal and fabric.admit: envelopes, epoch starts, grants, plaintexts, chains.

Signatures would end every mutation at the first check, so some targets sign what was made up
with the sender's own keys: what lies behind the signature must hold against a malicious
approved host too.
"""

from collections.abc import Iterator

from fabric.admit.door import admit_control, admit_sealed
from fabric.admit.reader import admit_read
from fabric.admit.view import Place
from fabric.agent.grant_book import GrantBook
from fabric.attest import cose
from fabric.attest.members import Members
from fabric.model import canonical
from fabric.model.change import ZERO
from fabric.model.errors import DeniedError, PeerError
from fabric.model.names import grants_topic
from fabric.seal import envelope as form
from fabric.seal import plaintext, record
from fabric.seal.chain import ChainState
from fabric.seal.chain import judge as judge_chain
from fabric.seal.epoch import parse_start, start_key, verify_start
from fabric.seal.grant import GrantDraft, grant, grant_key, parse_grant, verify_grant
from fabric.seal.hpke import unwrap, wrap
from fabric.seal.opening import open_
from fabric.seal.verify import verify
from tests.fakes.gateway import SEALED, World
from tests.fakes.sealing import NOTES, NOW, TOPIC, TRUST_DOMAIN, Party, block
from tests.fuzz.model_targets import vectors
from tests.fuzz.target import Target, cut, join

A, B = Party.make(), Party.make("G02/health/b1")
STARTED = A.start(A.draft(), [B])
START = verify_start(parse_start(STARTED.value), A.result, TRUST_DOMAIN)
SEALED_BLOCK = A.seal(block(), STARTED).data
(GRANT,) = grant(
    GrantDraft(
        granter=A.host, result_id=A.result.id, policy_version=7, revocation_number=3, granted=NOW
    ),
    START,
    A.secret(),
    recipients=[(B.host, B.key.public)],
    signers=A.signers,
)
WORLD = World()
BOTH = (PeerError, DeniedError)


def _envelope(data: bytes) -> None:
    envelope = form.parse(data)
    form.describe(envelope)
    assert canonical.encode(form.header_map(envelope.header)) in envelope.header_bytes
    assert form.protect(envelope.header) == envelope.header_bytes


def _signed_header(data: bytes) -> None:
    """A protected bucket that its sender signed, over a good payload."""
    payload = cose.parse(SEALED_BLOCK).payload
    _judged(cose.sign("envelope", data, payload, A.signers))


def _signed_payload(data: bytes) -> None:
    """A payload that its sender signed, under a good header."""
    _judged(cose.sign("envelope", cose.parse(SEALED_BLOCK).protected_bytes, data, A.signers))


def _judged(value: bytes) -> None:
    verified = verify(form.parse(value), A.result, TRUST_DOMAIN)
    header = verified.envelope.header
    judge_chain(None, header, verified.envelope.hash, start=START, high=ZERO)
    open_(verified, A.secret(), NOTES)


def _plaintext(data: bytes) -> None:
    """The first bit of the input says which coding the header would name."""
    coding = "zstd" if data[:1] >= b"\x80" else "none"
    padded = data[1:]
    plain = plaintext.decode(padded, coding)
    if coding == "none":
        assert padded in (plaintext.encode(plain, coding, pad)[0] for pad in (False, True))


def _start(data: bytes) -> None:
    verify_start(parse_start(data), A.result, TRUST_DOMAIN)


def _grant(data: bytes) -> None:
    verify_grant(parse_grant(data), A.result, START)


def _signed_start(data: bytes) -> None:
    _start(_resigned("epoch-start", STARTED.value, data))


def _signed_grant(data: bytes) -> None:
    _grant(_resigned("grant", GRANT, data))


def _resigned(kind: str, value: bytes, payload: bytes) -> bytes:
    parts = canonical.decode(value)
    assert isinstance(parts, list)
    _, first, wraps = parts
    head = canonical.encode({16: kind})
    return canonical.encode([cose.sign(kind, head, payload, A.signers), first, wraps])


def _manifest_payload(value: bytes) -> bytes:
    parts = canonical.decode(value)
    assert isinstance(parts, list)
    return cose.parse(bytes(parts[0])).payload  # type: ignore[arg-type]


def _chain_state(data: bytes) -> None:
    assert ChainState.decode(data).encode() == data


def chain_states() -> Iterator[bytes]:
    """The state after one envelope."""
    header = form.parse(SEALED_BLOCK).header
    step = judge_chain(None, header, bytes(32), start=START, high=ZERO)
    assert step.state is not None
    yield step.state.encode()


def _book(data: bytes) -> None:
    """Key and value of a record of the grants topic, then what a reader asks for."""
    key, value = cut(data)
    book = GrantBook(TOPIC, TRUST_DOMAIN, B.host)
    book.feed(key, value)
    book.start(START.hash, Members(WORLD.verifier.trust))


def books() -> Iterator[bytes]:
    """Both kinds of record under their own keys."""
    yield join(start_key(START.start), STARTED.value)
    yield join(grant_key(A.host, START.start.id), GRANT)


def _door(data: bytes) -> None:
    admit_sealed(data, Place(SEALED, 0), WORLD.view, identity=WORLD.a.host, now=WORLD.now)


def _reader(data: bytes) -> None:
    admit_read(data, Place(SEALED, 0), WORLD.view, appended=WORLD.now)


def _control(data: bytes) -> None:
    key, value = cut(data)
    for topic, identity in (
        ("fabric.members", "verifier"),
        ("fabric.results", "verifier"),
        (str(grants_topic(TOPIC)), str(WORLD.a.host)),
    ):
        try:
            admit_control(key, value, topic, WORLD.view, identity=identity, now=WORLD.now)
        except BOTH:
            continue


def controls() -> Iterator[bytes]:
    """What the authority and a sender write."""
    for _, key, value in (*WORLD.records(), WORLD.heartbeat()):
        yield join(key, value)
    yield join(f"{WORLD.a.host}/start/1".encode(), WORLD.start(WORLD.a).value)


TARGETS = [
    Target(name="envelope", parse=_envelope, seeds=lambda: [SEALED_BLOCK, *vectors("envelope")]),
    Target(
        name="signed-header",
        parse=_signed_header,
        seeds=lambda: [cose.parse(SEALED_BLOCK).protected_bytes],
        families=BOTH,
    ),
    Target(
        name="signed-payload",
        parse=_signed_payload,
        seeds=lambda: [cose.parse(SEALED_BLOCK).payload],
        families=BOTH,
    ),
    Target(
        name="plaintext",
        parse=_plaintext,
        seeds=lambda: [
            flag + plaintext.encode(b"plain" * 50, coding, pad)[0]
            for flag, coding in ((b"\0", "none"), (b"\xff", "zstd"))
            for pad in (False, True)
        ],
    ),
    Target(
        name="start", parse=_start, seeds=lambda: [STARTED.value, *vectors("start")], families=BOTH
    ),
    Target(name="grant", parse=_grant, seeds=lambda: [GRANT, *vectors("grant")], families=BOTH),
    Target(
        name="signed-start",
        parse=_signed_start,
        seeds=lambda: [_manifest_payload(STARTED.value)],
        families=BOTH,
    ),
    Target(
        name="signed-grant",
        parse=_signed_grant,
        seeds=lambda: [_manifest_payload(GRANT)],
        families=BOTH,
    ),
    Target(name="manifest-kind", parse=record.kind_of, seeds=lambda: [STARTED.value, GRANT]),
    Target(
        name="wrap",
        parse=lambda data: unwrap(A.key, data, b"info"),
        seeds=lambda: [bytes(80), wrap(A.key.public, bytes(32), b"info")],
    ),
    Target(name="chain-state", parse=_chain_state, seeds=chain_states),
    Target(name="grant-book", parse=_book, seeds=books, families=BOTH),
    Target(name="door", parse=_door, seeds=lambda: [WORLD.seal()], families=BOTH),
    Target(name="reader", parse=_reader, seeds=lambda: [WORLD.seal()], families=BOTH),
    Target(name="control", parse=_control, seeds=controls, families=BOTH),
]
