"""Signing keys on a PKCS#11 token: made there, never leaving it.

Ed25519 and ECDSA P-384; the token hashes nothing, ECDSA signs a digest made here.
ML-DSA is in no token one can buy yet and stays in software. Calls are serialised,
because a PKCS#11 session does one thing at a time, and block for as long as the
token takes: run them in a thread. A PIN that the token refuses is never shown to
it again in this process, because a few wrong ones lock the token for good.
"""

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha384
from pathlib import Path
from typing import Any

from fabric.attest.keys import Alg, PublicKey, Use
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    Malformed,
    Reason,
    UnavailableError,
)

_LABEL = "agency-fabric"
_ID_BYTES = 16
_PIN_BYTES_MAX = 255
_OCTET_STRING = 0x04
_OTHERS = 0o077


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How PKCS#11 speaks of an algorithm: names in its own list, and the curve's OID."""

    key_type: str
    generate: str
    sign: str
    curve: str
    public_bytes: int
    prepare: Callable[[bytes], bytes]


_KINDS: Mapping[Alg, _Kind] = {
    Alg.ED25519: _Kind(
        key_type="EC_EDWARDS",
        generate="EC_EDWARDS_KEY_PAIR_GEN",
        sign="EDDSA",
        curve="1.3.101.112",
        public_bytes=32,
        prepare=bytes,
    ),
    Alg.ESP384: _Kind(
        key_type="EC",
        generate="EC_KEY_PAIR_GEN",
        sign="ECDSA",
        curve="1.3.132.0.34",
        public_bytes=97,
        prepare=lambda data: sha384(data).digest(),
    ),
}


class TokenSigner:
    """Signs with one key of a token."""

    def __init__(self, keys: "TokenKeys", alg: Alg, reference: bytes, public: bytes) -> None:
        self._keys = keys
        self._reference = reference
        self.public = PublicKey(Use.SIGN, alg, public)

    def __repr__(self) -> str:
        return f"TokenSigner({Alg(self.public.alg).name}, id={self._reference.hex()})"

    def sign(self, data: bytes) -> bytes:
        """Sign `data` on the token; as `SigningKey.sign`.

        Raises:
            DeniedError: SEALED_STATE_LOST, the token no longer has the key.
            UnavailableError: KEYS_UNAVAILABLE.
        """
        return self._keys.sign(Alg(self.public.alg), self._reference, data)


class TokenKeys:
    """A `KeyStore` on a token; its references are the ids of the keys.

    Args:
        module: the token's PKCS#11 library.
        token: label of the token.
        pin_file: holds the user's PIN, at most 255 bytes, and no more than a line end.
    """

    name = "pkcs11"
    algs = frozenset(_KINDS)

    def __init__(self, module: Path, token: str, pin_file: Path) -> None:
        self._module = module
        self._token = token
        self._pin_file = pin_file
        self._lock = threading.Lock()
        self._open: Any = None
        self._handles: dict[bytes, Any] = {}
        self._is_pin_wrong = False

    def make(self, alg: Alg) -> tuple[TokenSigner, bytes]:
        """A fresh key of the token that cannot be taken out of it.

        Raises:
            ConfigInvalid: the token cannot make such a key, or would give it away.
            UnavailableError: KEYS_UNAVAILABLE.
        """
        reference = secrets.token_bytes(_ID_BYTES)
        with self._session() as (p11, session):
            public, private = self._generate(p11, session, _KINDS[alg], reference)
            kept = [private[p11.Attribute.SENSITIVE], not private[p11.Attribute.EXTRACTABLE]]
            if not all(kept):
                private.destroy()
                public.destroy()
                raise ConfigInvalid("keys.module: token would let its keys be taken out")
            point = _point(public[p11.Attribute.EC_POINT], _KINDS[alg])
            self._handles[reference] = private
        return TokenSigner(self, alg, reference, point), reference

    def load(self, alg: Alg, reference: bytes) -> TokenSigner:
        """The key of an id.

        Raises:
            Malformed: the reference is no id of a key here.
            DeniedError: SEALED_STATE_LOST, the token has no such key.
            UnavailableError: KEYS_UNAVAILABLE.
        """
        if len(reference) != _ID_BYTES or alg not in _KINDS:
            raise Malformed("reference is not the id of a token's key")
        with self._session() as (p11, session):
            private = self._find(p11, session, alg, reference, is_private=True)
            public = self._find(p11, session, alg, reference, is_private=False)
            point = _point(public[p11.Attribute.EC_POINT], _KINDS[alg])
            self._handles[reference] = private
        return TokenSigner(self, alg, reference, point)

    def drop(self, alg: Alg, reference: bytes) -> None:
        """Destroy both halves of a key on the token."""
        with self._session() as (p11, session):
            self._handles.pop(reference, None)
            for is_private in (True, False):
                try:
                    found = self._find(p11, session, alg, reference, is_private=is_private)
                except DeniedError:
                    continue
                found.destroy()

    def sign(self, alg: Alg, reference: bytes, data: bytes) -> bytes:
        """What a `TokenSigner` asks for."""
        kind = _KINDS[alg]
        with self._session() as (p11, session):
            private = self._handles.get(reference)
            if private is None:  # the session is a new one
                private = self._find(p11, session, alg, reference, is_private=True)
                self._handles[reference] = private
            mechanism = getattr(p11.Mechanism, kind.sign)
            return bytes(private.sign(kind.prepare(data), mechanism=mechanism))

    def probe(self) -> frozenset[Alg]:
        """Algorithms that the token knows, without showing it the PIN.

        Raises:
            ConfigInvalid: the module is no PKCS#11 library.
            UnavailableError: KEYS_UNAVAILABLE, no such token is there.
        """
        p11 = _load_library()
        with self._lock, self._mapped(p11):
            known = {*self._find_token(p11).slot.get_mechanisms()}
        return frozenset(alg for alg, kind in _KINDS.items() if _mechanisms(p11, kind) <= known)

    def close(self) -> None:
        """Log out and give the session back."""
        with self._lock:
            self._forget()

    def _generate(self, p11: Any, session: Any, kind: _Kind, reference: bytes) -> tuple[Any, Any]:
        from pkcs11.util.ec import encode_named_curve_parameters

        wanted = getattr(p11.Mechanism, kind.generate)
        if not {wanted, getattr(p11.Mechanism, kind.sign)} <= {
            *session.token.slot.get_mechanisms()
        }:
            raise ConfigInvalid(
                f"keys.module: token does not know {kind.sign}; use another token, or let policy"
                " choose suites without it"
            )
        parameters = session.create_domain_parameters(
            getattr(p11.KeyType, kind.key_type),
            {p11.Attribute.EC_PARAMS: encode_named_curve_parameters(kind.curve)},
            local=True,
        )
        private = {
            p11.Attribute.SENSITIVE: True,
            p11.Attribute.EXTRACTABLE: False,
            p11.Attribute.SIGN: True,
        }
        made: tuple[Any, Any] = parameters.generate_keypair(
            mechanism=getattr(p11.Mechanism, kind.generate),
            store=True,
            id=reference,
            label=_LABEL,
            private_template=private,
        )
        return made

    def _find(self, p11: Any, session: Any, alg: Alg, reference: bytes, *, is_private: bool) -> Any:
        half = p11.ObjectClass.PRIVATE_KEY if is_private else p11.ObjectClass.PUBLIC_KEY
        key_type = getattr(p11.KeyType, _KINDS[alg].key_type)
        try:
            return session.get_key(object_class=half, key_type=key_type, id=reference)
        except (p11.NoSuchKey, p11.MultipleObjectsReturned) as exc:
            raise DeniedError(
                Reason.SEALED_STATE_LOST, f"token {self._token} no longer has one of our keys"
            ) from exc

    @contextmanager
    def _session(self) -> Iterator[tuple[Any, Any]]:
        """The library and an open session, for one call; its errors leave as ours."""
        p11 = _load_library()
        with self._lock, self._mapped(p11):
            if self._open is None:
                self._open = self._login(p11)
            yield p11, self._open

    @contextmanager
    def _mapped(self, p11: Any) -> Iterator[None]:
        try:
            yield
        except p11.PKCS11Error as exc:
            self._forget()  # a session that failed once is not trusted with the next call
            raise UnavailableError(
                Reason.KEYS_UNAVAILABLE, f"token {self._token} failed: {type(exc).__name__}"
            ) from exc

    def _login(self, p11: Any) -> Any:
        if self._is_pin_wrong:
            raise self._refused()
        pin = self._pin()
        token = self._find_token(p11)
        try:
            return token.open(rw=True, user_pin=pin)
        except p11.UserAlreadyLoggedIn:  # another session of this process has: login is shared
            return token.open(rw=True)
        except (p11.PinIncorrect, p11.PinInvalid, p11.PinLenRange) as exc:
            self._is_pin_wrong = True
            raise self._refused() from exc
        except (p11.PinLocked, p11.PinExpired) as exc:
            self._is_pin_wrong = True
            raise ConfigInvalid(
                f"keys.pin_file: the PIN of token {self._token} is locked or has expired;"
                " have it set anew, then start again"
            ) from exc

    def _find_token(self, p11: Any) -> Any:
        try:
            library = p11.lib(str(self._module))
        except p11.PKCS11Error as exc:
            if type(exc) is not p11.PKCS11Error:
                raise  # an error of the token; the bare class is for what is no library
            raise ConfigInvalid(
                f"keys.module: {self._module} cannot be loaded; name the token's PKCS#11 library"
            ) from exc
        return library.get_token(token_label=self._token)

    def _refused(self) -> ConfigInvalid:
        return ConfigInvalid(
            f"keys.pin_file: token {self._token} refuses the PIN; correct it, then start again"
            " (it is not tried twice, because wrong PINs lock a token)"
        )

    def _pin(self) -> str:
        try:
            is_open = bool(self._pin_file.stat().st_mode & _OTHERS)
            data = self._pin_file.read_bytes()
            pin = data.decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigInvalid("keys.pin_file: cannot be read; check path and mode") from exc
        if is_open:
            raise ConfigInvalid("keys.pin_file: others may read it; chmod 600 it")
        if not 1 <= len(pin.encode()) <= _PIN_BYTES_MAX or not pin.isprintable():
            raise ConfigInvalid("keys.pin_file: must hold one line, the PIN")
        return pin

    def _forget(self) -> None:
        session, self._open = self._open, None
        self._handles.clear()
        if session is not None:
            p11 = _load_library()
            try:
                session.close()
            except p11.PKCS11Error:  # it is gone already
                return


def _mechanisms(p11: Any, kind: _Kind) -> set[Any]:
    return {getattr(p11.Mechanism, name) for name in (kind.generate, kind.sign)}


def _point(value: bytes, kind: _Kind) -> bytes:
    """The raw public key: tokens give it bare or as a DER octet string."""
    data = bytes(value)
    head = bytes([_OCTET_STRING, kind.public_bytes])
    if len(data) == kind.public_bytes + len(head) and data.startswith(head):
        data = data[len(head) :]
    if len(data) != kind.public_bytes:
        raise ConfigInvalid("keys.module: token gives a public key in an unknown form")
    return data


def _load_library() -> Any:
    try:
        import pkcs11
    except ImportError as exc:
        raise ConfigInvalid(
            "keys.provider: python-pkcs11 is missing: pip install 'agency-fabric[pkcs11]'"
        ) from exc
    return pkcs11
