import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fabric.attest.keys import Alg, Kem, PublicKey, SigningKey, Use, are_at_hand, of_use, verify
from fabric.model.errors import Malformed, PeerError, Reason

ALGS = list(Alg)


@pytest.mark.parametrize("alg", ALGS)
def test_signature_of_every_algorithm_verifies(alg: Alg) -> None:
    key = SigningKey.generate(alg)
    verify(key.public, key.sign(b"data"), b"data")


@pytest.mark.parametrize("alg", ALGS)
def test_signature_over_other_data_is_refused(alg: Alg) -> None:
    key = SigningKey.generate(alg)
    with pytest.raises(PeerError) as refused:
        verify(key.public, key.sign(b"data"), b"date")
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", ALGS)
def test_signature_of_another_key_is_refused(alg: Alg) -> None:
    with pytest.raises(PeerError):
        verify(SigningKey.generate(alg).public, SigningKey.generate(alg).sign(b"data"), b"data")


@pytest.mark.parametrize("alg", ALGS)
@pytest.mark.parametrize("signature", [b"", b"\0", bytes(64), bytes(3309)])
def test_bytes_that_are_no_signature_are_refused(alg: Alg, signature: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        verify(SigningKey.generate(alg).public, signature, b"data")
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_key_of_an_unknown_algorithm_verifies_nothing() -> None:
    with pytest.raises(PeerError) as refused:
        verify(PublicKey(Use.SIGN, -7, bytes(65)), bytes(64), b"data")
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("alg", ALGS)
def test_bytes_that_are_no_public_key_verify_nothing(alg: Alg) -> None:
    with pytest.raises(PeerError):
        verify(PublicKey(Use.SIGN, alg, b"\1\2\3"), bytes(64), b"data")


@pytest.mark.parametrize("alg", ALGS)
def test_private_bytes_make_the_same_key_again(alg: Alg) -> None:
    key = SigningKey.generate(alg, Use.TLS)
    again = SigningKey.from_private_bytes(alg, key.private_bytes(), Use.TLS)
    assert again.public == key.public


@pytest.mark.parametrize("alg", ALGS)
def test_private_bytes_that_are_garbage_are_malformed(alg: Alg) -> None:
    with pytest.raises(Malformed):
        SigningKey.from_private_bytes(alg, b"garbage")


@pytest.mark.parametrize("alg", ALGS)
def test_signing_key_hides_itself(alg: Alg) -> None:
    key = SigningKey.generate(alg)
    assert key.private_bytes().hex() not in repr(key)
    assert repr(key) == f"SigningKey({alg.name}, private=hidden)"


@pytest.mark.parametrize(("alg", "size"), [(Alg.ESP256, 64), (Alg.ESP384, 96)])
def test_elliptic_signature_is_two_numbers_of_the_curves_length(alg: Alg, size: int) -> None:
    """MUST-3.7."""
    key = SigningKey.generate(alg)
    signature = key.sign(b"data")
    assert len(signature) == size
    half = size // 2
    r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
    for other in (encode_dss_signature(r, s), b"\0" + signature, signature[:half] + b"\0" * half):
        with pytest.raises(PeerError):
            verify(key.public, other, b"data")


def test_elliptic_private_key_of_another_curve_is_malformed() -> None:
    with pytest.raises(Malformed):
        SigningKey.from_private_bytes(Alg.ESP256, SigningKey.generate(Alg.ESP384).private_bytes())


def test_thumbprint_tells_use_algorithm_and_bytes_apart() -> None:
    keys = [
        PublicKey(Use.SIGN, Alg.ED25519, bytes(32)),
        PublicKey(Use.HPKE, Alg.ED25519, bytes(32)),
        PublicKey(Use.SIGN, Kem.X25519, bytes(32)),
        PublicKey(Use.SIGN, Alg.ED25519, bytes(31) + b"\1"),
    ]
    assert len({key.thumbprint for key in keys}) == len(keys)


def test_keys_of_a_use_come_in_the_order_asked_for() -> None:
    first, second = SigningKey.generate(Alg.ED25519), SigningKey.generate(Alg.ML_DSA_65)
    tls = SigningKey.generate(Alg.ESP256, Use.TLS)
    keys = (second.public, tls.public, first.public)
    found = of_use(keys, Use.SIGN, [Alg.ED25519, Alg.ML_DSA_65])
    assert found == (first.public, second.public)


def test_a_key_elsewhere_is_not_at_hand() -> None:
    class Elsewhere:
        public = SigningKey.generate(Alg.ED25519).public

        def sign(self, data: bytes) -> bytes:
            return data

    here = SigningKey.generate(Alg.ED25519)
    assert are_at_hand((here,))
    assert not are_at_hand((here, Elsewhere()))


def test_missing_key_of_a_use_is_refused_though_another_use_has_it() -> None:
    tls = SigningKey.generate(Alg.ESP256, Use.TLS)
    with pytest.raises(PeerError) as refused:
        of_use((tls.public,), Use.SIGN, [Alg.ESP256])
    assert refused.value.reason is Reason.BAD_SIGNATURE
