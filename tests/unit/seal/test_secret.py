"""Epoch secrets hide themselves, and everything derived from them differs where it must."""

import pytest

from fabric.model.errors import Malformed
from fabric.seal.secret import EpochSecret, block_key, block_salt, epoch_id
from fabric.seal.suites import Kdf
from tests.fakes.sealing import fixed

KDFS = list(Kdf)
SECRET = EpochSecret(fixed("secret"))
SENDER = "spiffe://fabric.example/G01/registry/a1"


def test_secret_does_not_show_itself() -> None:
    assert repr(SECRET) == "EpochSecret(hidden)"
    assert str(SECRET) == f"{SECRET}" == "EpochSecret(hidden)"


def test_fresh_secrets_differ_and_are_32_bytes() -> None:
    one, two = EpochSecret.generate(), EpochSecret.generate()
    assert one != two
    assert len(one.private_bytes()) == 32


def test_secrets_are_compared_by_value_and_never_hashed() -> None:
    assert EpochSecret(fixed("secret")) == SECRET
    assert fixed("secret") != SECRET
    with pytest.raises(TypeError):
        hash(SECRET)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_secret_of_another_length_is_malformed(size: int) -> None:
    with pytest.raises(Malformed):
        EpochSecret(bytes(size))


@pytest.mark.parametrize("kdf", KDFS)
def test_epoch_id_depends_on_every_part(kdf: Kdf) -> None:
    """MUST-6.1: the id commits to secret, sender, topic and number."""
    ids = {
        epoch_id(SECRET, SENDER, "secret.G01.notes", 1, kdf=kdf),
        epoch_id(SECRET, SENDER, "secret.G01.notes", 2, kdf=kdf),
        epoch_id(SECRET, SENDER, "secret.G01.other", 1, kdf=kdf),
        epoch_id(SECRET, SENDER + "x", "secret.G01.notes", 1, kdf=kdf),
        epoch_id(EpochSecret(fixed("other")), SENDER, "secret.G01.notes", 1, kdf=kdf),
    }
    assert len(ids) == 5
    assert {len(ident) for ident in ids} == {32}


@pytest.mark.parametrize("kdf", KDFS)
def test_block_keys_and_salts_depend_on_every_part(kdf: Kdf) -> None:
    """MUST-5.8: one key seals one block."""
    info = ["classic", fixed("epoch"), "secret.G01.notes", 0, 0]
    keys = {block_key(SECRET, info, fixed(name), kdf=kdf) for name in ("salt", "other")}
    for place, value in enumerate(["hybrid", fixed("x"), "secret.G01.other", 1, 1]):
        other = [*info[:place], value, *info[place + 1 :]]
        keys.add(block_key(SECRET, other, fixed("salt"), kdf=kdf))
    assert len(keys) == 7
    salts = {block_salt(SECRET, fixed(a), fixed(b), kdf=kdf) for a in "xy" for b in "xy"}
    assert len(salts) == 4
    assert {len(salt) for salt in salts} == {32}


def test_two_hashes_derive_nothing_alike() -> None:
    """MUST-1.2."""
    made = [
        (
            epoch_id(SECRET, SENDER, "secret.G01.notes", 1, kdf=kdf),
            block_key(SECRET, [1], fixed("salt"), kdf=kdf),
            block_salt(SECRET, fixed("x"), fixed("y"), kdf=kdf),
        )
        for kdf in KDFS
    ]
    assert len({part for parts in made for part in parts}) == 6
