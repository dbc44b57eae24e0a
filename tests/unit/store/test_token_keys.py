"""What is particular to keys on a token; the contract suite tests what every store must do."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pkcs11
import pytest

from fabric.attest.keys import Alg, verify
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError
from fabric.store import token_keys
from fabric.store.token_keys import TokenKeys
from tests.contract.softhsm import Tokens, tokens


@pytest.fixture(name="soft")
def _soft() -> Tokens:
    return tokens()


@pytest.fixture
def keys(soft: Tokens) -> Iterator[TokenKeys]:
    made = soft.keys()
    yield made
    made.close()


@pytest.mark.parametrize("alg", sorted(TokenKeys.algs))
def test_a_private_key_cannot_be_taken_out_of_the_token(
    soft: Tokens, keys: TokenKeys, alg: Alg
) -> None:
    _, reference = keys.make(alg)
    token = pkcs11.lib(str(soft.module)).get_token(token_label="agent")
    with token.open() as session:  # the login is the process's, so this session has it too
        private = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, id=reference)
        assert private[pkcs11.Attribute.NEVER_EXTRACTABLE]
        assert private[pkcs11.Attribute.ALWAYS_SENSITIVE]
        with pytest.raises(pkcs11.AttributeSensitive):
            private[pkcs11.Attribute.VALUE]


def test_the_reference_is_a_name_and_no_key(keys: TokenKeys) -> None:
    signer, reference = keys.make(Alg.ED25519)
    assert len(reference) == 16
    assert repr(signer) == f"TokenSigner(ED25519, id={reference.hex()})"


def test_a_dropped_key_signs_no_more_and_is_found_no_more(soft: Tokens, keys: TokenKeys) -> None:
    signer, reference = keys.make(Alg.ED25519)
    keys.drop(Alg.ED25519, reference)
    with pytest.raises(DeniedError) as caught:
        signer.sign(b"data")
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    later = soft.keys()
    with pytest.raises(DeniedError):
        later.load(Alg.ED25519, reference)
    later.close()


def test_a_key_of_another_token_or_algorithm_is_not_found(soft: Tokens, keys: TokenKeys) -> None:
    other = soft.keys("other")
    _, reference = other.make(Alg.ED25519)
    for store, alg in ((keys, Alg.ED25519), (other, Alg.ESP384)):
        with pytest.raises(DeniedError):
            store.load(alg, reference)
    other.close()


def test_a_session_that_ended_is_said_once_and_opened_again(keys: TokenKeys) -> None:
    signer, _ = keys.make(Alg.ESP384)
    keys._open.close()  # as when the token was pulled out and put back
    with pytest.raises(UnavailableError) as caught:
        signer.sign(b"data")
    assert caught.value.reason is Reason.KEYS_UNAVAILABLE
    verify(signer.public, signer.sign(b"data"), b"data")


def test_a_refused_pin_is_not_tried_twice(soft: Tokens) -> None:
    path = soft.pin_file("wrong")
    keys = TokenKeys(soft.module, "locked", path)
    with pytest.raises(ConfigInvalid, match=r"keys.pin_file: token locked refuses the PIN"):
        keys.make(Alg.ED25519)
    path.write_text(soft.pin)  # right by now; but who knows that before a restart
    with pytest.raises(ConfigInvalid, match="refuses the PIN"):
        keys.make(Alg.ED25519)
    fresh = TokenKeys(soft.module, "locked", path)
    fresh.make(Alg.ED25519)
    fresh.close()


@pytest.mark.parametrize("content", ["", "\n", "12\n34", "x" * 256, "\x00"])
def test_a_pin_file_holds_one_line(soft: Tokens, content: str) -> None:
    keys = TokenKeys(soft.module, "agent", soft.pin_file(content))
    with pytest.raises(ConfigInvalid, match=r"keys\.pin_file: must hold one line"):
        keys.make(Alg.ED25519)


def test_a_pin_file_that_is_missing_is_said(soft: Tokens, tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"keys\.pin_file: cannot be read"):
        TokenKeys(soft.module, "agent", tmp_path / "none").make(Alg.ED25519)


def test_a_pin_file_that_others_may_read_is_refused(soft: Tokens) -> None:
    path = soft.pin_file()
    path.chmod(0o640)
    with pytest.raises(ConfigInvalid, match=r"keys\.pin_file: others may read it"):
        TokenKeys(soft.module, "agent", path).make(Alg.ED25519)


def test_a_module_that_is_none_is_said(soft: Tokens, tmp_path: Path) -> None:
    (tmp_path / "none.so").write_bytes(b"no library")
    for name in ("none.so", "missing.so"):
        with pytest.raises(ConfigInvalid, match=r"keys\.module: .*cannot be loaded"):
            TokenKeys(tmp_path / name, "agent", soft.pin_file()).make(Alg.ED25519)


def test_a_probe_says_what_the_token_knows_and_needs_no_pin(soft: Tokens, tmp_path: Path) -> None:
    assert TokenKeys(soft.module, "agent", tmp_path / "none").probe() == TokenKeys.algs
    with pytest.raises(UnavailableError):
        TokenKeys(soft.module, "in a drawer", tmp_path / "none").probe()
    with pytest.raises(ConfigInvalid):
        TokenKeys(tmp_path / "none.so", "agent", tmp_path / "none").probe()


def test_a_token_that_is_not_there_may_come_back(soft: Tokens) -> None:
    keys = TokenKeys(soft.module, "in a drawer", soft.pin_file())
    with pytest.raises(UnavailableError) as caught:
        keys.make(Alg.ED25519)
    assert caught.value.reason is Reason.KEYS_UNAVAILABLE


def test_a_token_that_lacks_the_algorithm_is_refused_and_nothing_falls_back(
    keys: TokenKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SoftHSM 2.6 knows no ML-DSA: a real token that cannot do what it is asked."""
    kinds = {Alg.ED25519: replace(token_keys._KINDS[Alg.ED25519], sign="ML_DSA")}
    monkeypatch.setattr(token_keys, "_KINDS", kinds)
    with pytest.raises(ConfigInvalid, match=r"keys\.module: token does not know ML_DSA"):
        keys.make(Alg.ED25519)


def test_a_token_that_would_give_its_keys_away_is_refused(
    keys: TokenKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = keys._generate

    def leaky(p11: object, session: object, kind: object, reference: bytes) -> object:
        public, _ = made(p11, session, kind, reference)  # type: ignore[arg-type]
        secret = {pkcs11.Attribute.SENSITIVE: False, pkcs11.Attribute.EXTRACTABLE: True}
        return public, Leak(secret)

    class Leak(dict[object, object]):
        def destroy(self) -> None:
            destroyed.append(self)

    destroyed: list[Leak] = []
    monkeypatch.setattr(keys, "_generate", leaky)
    with pytest.raises(ConfigInvalid, match="taken out"):
        keys.make(Alg.ED25519)
    assert len(destroyed) == 1


@pytest.mark.parametrize("form", ["bare", "octet string"])
def test_a_public_key_is_taken_bare_or_as_an_octet_string(form: str) -> None:
    kind = token_keys._KINDS[Alg.ED25519]
    raw = secrets.token_bytes(32)
    assert token_keys._point(raw if form == "bare" else b"\x04\x20" + raw, kind) == raw


@pytest.mark.parametrize("value", [b"", bytes(31), bytes(33), b"\x03\x20" + bytes(32), bytes(34)])
def test_a_public_key_in_another_form_is_refused(value: bytes) -> None:
    with pytest.raises(ConfigInvalid, match="unknown form"):
        token_keys._point(value, token_keys._KINDS[Alg.ED25519])
