import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fabric.attest import cose
from fabric.attest.keys import Alg, SigningKey
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason

KEYS = (SigningKey.generate(Alg.ED25519), SigningKey.generate(Alg.ML_DSA_65))
PUBLIC = tuple(key.public for key in KEYS)
PROTECTED = canonical.encode({16: "test"})
SIGNED = cose.sign("test", PROTECTED, b"payload", KEYS)
TAG = b"\xd8\x62"


def test_signed_bytes_parse_and_check() -> None:
    signed = cose.parse(SIGNED)
    cose.check(signed, "test", PUBLIC)
    assert (signed.payload, signed.protected) == (b"payload", {16: "test"})


def test_signature_is_over_the_sig_structure_of_rfc_9052() -> None:
    protected, unprotected, payload, signatures = cbor2.loads(SIGNED[len(TAG) :])
    head, none, signature = signatures[0]
    assert (unprotected, none) == ({}, {})
    structure = ["Signature", protected, head, b"fabric-test-v1", payload]
    key = Ed25519PublicKey.from_public_bytes(PUBLIC[0].data)
    key.verify(signature, cbor2.dumps(structure))


def test_signature_for_one_kind_does_not_serve_another() -> None:
    with pytest.raises(PeerError) as refused:
        cose.check(cose.parse(SIGNED), "envelope", PUBLIC)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "keys",
    [
        (),
        PUBLIC[:1],
        PUBLIC[::-1],
        (*PUBLIC, PUBLIC[0]),
        (PUBLIC[0], SigningKey.generate(Alg.ML_DSA_65).public),
    ],
    ids=["none", "fewer", "other order", "more", "another key"],
)
def test_signatures_must_be_exactly_the_expected_keys(keys: tuple[object, ...]) -> None:
    with pytest.raises(PeerError) as refused:
        cose.check(cose.parse(SIGNED), "test", keys)  # type: ignore[arg-type]
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "head",
    [{1: -19, 4: bytes(32)}, {1: -49, 4: PUBLIC[0].thumbprint}, {4: PUBLIC[0].thumbprint}, {}],
    ids=["another kid", "another algorithm", "no algorithm", "nothing"],
)
def test_good_signature_under_another_header_is_refused(head: dict[int, canonical.Value]) -> None:
    bucket = canonical.encode(head)
    structure = canonical.encode(["Signature", PROTECTED, bucket, b"fabric-test-v1", b"payload"])
    signature = KEYS[0].sign(structure)
    data = TAG + canonical.encode([PROTECTED, {}, b"payload", [[bucket, {}, signature]]])
    with pytest.raises(PeerError) as refused:
        cose.check(cose.parse(data), "test", PUBLIC[:1])
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_every_changed_byte_is_refused() -> None:
    data = cose.sign("test", PROTECTED, b"payload", KEYS[:1])
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(PeerError):
            cose.check(cose.parse(changed), "test", PUBLIC[:1])


def _body(**parts: canonical.Value) -> bytes:
    head = canonical.encode({1: -19, 4: bytes(32)})
    whole = {
        "protected": PROTECTED,
        "unprotected": {},
        "payload": b"payload",
        "signatures": [[head, {}, bytes(64)]],
        **parts,
    }
    return TAG + canonical.encode(list(whole.values()))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        SIGNED[2:],
        b"\xd8\x12" + SIGNED[2:],
        SIGNED + b"\0",
        SIGNED[:-1],
        _body(unprotected={4: b"kid"}),
        _body(payload="text"),
        _body(protected=b""),
        _body(protected=canonical.encode([])),
        _body(signatures=[]),
        _body(signatures=[[b"", {}, b""]] * 9),
        _body(signatures=[[b"", {1: 1}, b""]]),
        _body(signatures=[[b"", {}]]),
        _body(extra=1),
    ],
)
def test_another_shape_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        cose.parse(data)


def test_longer_encoding_of_the_same_value_is_malformed() -> None:
    assert SIGNED[2] == 0x84
    with pytest.raises(Malformed):
        cose.parse(TAG + b"\x98\x04" + SIGNED[3:])
