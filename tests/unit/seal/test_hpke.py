"""Wraps open for their key and info alone; private keys never show."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from fabric.attest.keys import Alg, Kem, PublicKey, SigningKey, Use
from fabric.model.errors import Malformed, PeerError, Reason, UsageError
from fabric.seal.hpke import WRAP_BYTES, HpkeKey, check_recipient, unwrap, wrap
from tests.fakes.sealing import fixed
from tests.fakes.verifier import UNFIT
from tests.vectors import judge

KEMS = list(Kem)
SECRET = fixed("secret")


@pytest.mark.parametrize("kem", KEMS)
def test_wrap_opens_with_a_key_read_back_from_its_bytes(kem: Kem) -> None:
    key = HpkeKey.generate(kem)
    again = HpkeKey.from_private_bytes(kem, key.private_bytes())
    assert again.public == key.public
    wrapped = wrap(key.public, SECRET, b"info")
    assert len(wrapped) == WRAP_BYTES[kem]
    assert unwrap(again, wrapped, b"info") == SECRET


@pytest.mark.parametrize("kem", KEMS)
@pytest.mark.parametrize("broken", ["info", "key", "bit", "short", "empty"])
def test_wrap_does_not_open_otherwise_and_says_one_thing(kem: Kem, broken: str) -> None:
    key, other = HpkeKey.generate(kem), HpkeKey.generate(kem)
    wrapped = wrap(key.public, SECRET, b"info")
    data = {"bit": wrapped[:-1] + bytes([wrapped[-1] ^ 1]), "short": wrapped[:40], "empty": b""}
    with pytest.raises(PeerError) as caught:
        unwrap(
            other if broken == "key" else key,
            data.get(broken, wrapped),
            b"other" if broken == "info" else b"info",
        )
    assert caught.value.reason is Reason.OPEN_FAILED
    assert str(caught.value) == "open_failed: wrap does not open"


def test_wrap_with_an_all_zero_encapsulated_key_is_refused() -> None:
    with pytest.raises(PeerError):
        unwrap(HpkeKey.generate(Kem.X25519), bytes(80), b"info")


def test_wrap_of_an_independent_implementation_opens() -> None:
    key = HpkeKey.generate(Kem.X25519)
    wrapped = judge.hpke_x25519(fixed("ephemeral"), key.public.data, b"info", SECRET)
    assert unwrap(key, wrapped, b"info") == SECRET


@pytest.mark.parametrize("kem", KEMS)
def test_repr_hides_the_private_key(kem: Kem) -> None:
    key = HpkeKey.generate(kem)
    assert repr(key) == f"HpkeKey({kem.name}, private=hidden)"


@pytest.mark.parametrize(
    ("kem", "size"),
    [
        (Kem.X25519, 31),
        (Kem.MLKEM768_X25519, 32),
        (Kem.MLKEM1024_P384, 111),
        (Kem.MLKEM1024_P384, 112),  # a scalar of zero
        (Kem.MLKEM1024_P384, 113),
    ],
)
def test_private_bytes_of_a_wrong_length_are_malformed(kem: Kem, size: int) -> None:
    with pytest.raises(Malformed):
        HpkeKey.from_private_bytes(kem, bytes(size))


@pytest.mark.parametrize(
    "public",
    [
        SigningKey.generate(Alg.ED25519).public,
        PublicKey(Use.HPKE, int(Alg.ED25519), bytes(32)),
        PublicKey(Use.SIGN, int(Kem.X25519), bytes(32)),
    ],
)
def test_wrapping_to_what_is_no_hpke_key_is_our_bug(public: PublicKey) -> None:
    with pytest.raises(UsageError):
        wrap(public, SECRET, b"info")
    with pytest.raises(UsageError):
        check_recipient(public)


def unfit_keys() -> Iterator[PublicKey]:
    for kem in KEMS:
        good = HpkeKey.generate(kem).public
        for data in (UNFIT[kem], bytes(len(good.data)), good.data[:-1], good.data + b"x", b""):
            yield replace(good, data=data)
    low_order = [bytes(32), (1).to_bytes(32, "little"), (2**255 - 19).to_bytes(32, "little")]
    hybrid = HpkeKey.generate(Kem.MLKEM768_X25519).public
    yield from (replace(hybrid, data=hybrid.data[:1184] + point) for point in low_order)
    yield from (PublicKey(Use.HPKE, int(Kem.X25519), point) for point in low_order)
    top = HpkeKey.generate(Kem.MLKEM1024_P384).public
    for key, lattice in ((hybrid, 1184), (top, 1568)):  # coefficients beyond the modulus
        yield replace(key, data=b"\xff" * (lattice - 32) + key.data[lattice - 32 :])
    yield replace(top, data=top.data[:1568] + b"\x04" + bytes(96))


@pytest.mark.parametrize("public", [*unfit_keys()])
def test_a_foreign_key_that_takes_no_wrap_is_malformed_also_ahead(public: PublicKey) -> None:
    with pytest.raises(Malformed):
        wrap(public, SECRET, b"info")
    with pytest.raises(Malformed):
        check_recipient(public)


@pytest.mark.parametrize("kem", KEMS)
def test_a_key_that_takes_a_wrap_passes(kem: Kem) -> None:
    check_recipient(HpkeKey.generate(kem).public)
