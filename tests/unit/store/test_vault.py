"""The vault: named secrets under one key."""

import pytest

from fabric.model.errors import DeniedError, Reason
from fabric.store.vault import Vault


def test_what_is_locked_comes_back_under_its_name() -> None:
    vault = Vault(Vault.new_key())
    assert vault.unlock("a", vault.lock("a", b"secret")) == b"secret"


def test_the_same_secret_never_looks_the_same() -> None:
    vault = Vault(Vault.new_key())
    assert vault.lock("a", b"secret") != vault.lock("a", b"secret")


@pytest.mark.parametrize("spoil", ["name", "key", "byte", "short", "empty"])
def test_anything_else_is_refused(spoil: str) -> None:
    vault = Vault(Vault.new_key())
    box = vault.lock("a", b"secret")
    name = "b" if spoil == "name" else "a"
    other = Vault(Vault.new_key()) if spoil == "key" else vault
    if spoil == "byte":
        box = box[:-1] + bytes([box[-1] ^ 1])
    elif spoil in ("short", "empty"):
        box = box[:5] if spoil == "short" else b""
    with pytest.raises(DeniedError) as caught:
        other.unlock(name, box)
    assert caught.value.reason is Reason.SEALED_STATE_LOST


def test_a_key_of_a_wrong_length_is_refused_and_none_shows() -> None:
    with pytest.raises(DeniedError):
        Vault(b"short")
    assert repr(Vault(Vault.new_key())) == "Vault(key=hidden)"
