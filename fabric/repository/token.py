"""Signers whose keys stay on a PKCS#11 token: Ed25519, or ECDSA P-384 where a token has no other.

A key is named by an RFC 7512 URI with the token's and the key's label:
`pkcs11:token=policy;object=an?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/pin`.
The PIN stands in a file of its own and is shown to the token once: wrong ones lock it.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from fabric.model.errors import ConfigInvalid

SCHEME = "pkcs11:"
_PIN_BYTES_MAX = 255
_OCTET_STRING = 0x04
_P384_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """Where a key is.

    Attributes:
        module: the token's PKCS#11 library.
        label: of the key's two halves.
        pin_file: holds the PIN of the token's user.
    """

    module: Path
    token: str
    label: str
    pin_file: Path

    @classmethod
    def parse(cls, uri: str) -> "TokenKey":
        """Read a URI; raises ConfigInvalid."""
        path, _, query = uri.removeprefix(SCHEME).partition("?")
        fields = {
            name: unquote(value)
            for name, _, value in (item.partition("=") for item in path.split(";"))
        }
        fields |= dict(parse_qsl(query))
        wanted = {"token", "object", "module-path", "pin-source"}
        if not uri.startswith(SCHEME) or fields.keys() != wanted or not all(fields.values()):
            raise ConfigInvalid(
                "a key on a token is named pkcs11:token=T;object=KEY?module-path=LIB&pin-source="
                "file:PIN, and nothing else"
            )
        return cls(
            module=Path(fields["module-path"]),
            token=fields["token"],
            label=fields["object"],
            pin_file=Path(fields["pin-source"].removeprefix("file:")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How PKCS#11 speaks of an algorithm, and what it takes and gives."""

    key_type: str
    generate: str
    sign: str
    curve: str
    public: Callable[[bytes], Any]
    prepare: Callable[[bytes], bytes]
    finish: Callable[[bytes], bytes]


def _der(raw: bytes) -> bytes:
    """What others call an ECDSA signature, from the token's two numbers."""
    r, s = raw[:_P384_BYTES], raw[_P384_BYTES:]
    return encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))


_KINDS: Mapping[str, _Kind] = {
    "ed25519": _Kind(
        key_type="EC_EDWARDS",
        generate="EC_EDWARDS_KEY_PAIR_GEN",
        sign="EDDSA",
        curve="1.3.101.112",
        public=Ed25519PublicKey.from_public_bytes,
        prepare=bytes,
        finish=bytes,
    ),
    "ecdsa-p384": _Kind(
        key_type="EC",
        generate="EC_KEY_PAIR_GEN",
        sign="ECDSA",
        curve="1.3.132.0.34",
        public=lambda point: EllipticCurvePublicKey.from_encoded_point(SECP384R1(), point),
        prepare=lambda data: hashlib.sha384(data).digest(),
        finish=_der,
    ),
}
KINDS = frozenset(_KINDS)


class TokenSigner(Signer):
    """Signs with a key of a token; the session lives for one signature."""

    def __init__(self, where: TokenKey) -> None:
        """Find the key's public half; raises as `sign`."""
        self._where = where
        with _session(where) as (p11, session):
            self._kind, point = _found(p11, session, where)
        self._public = SSlibKey.from_crypto(_KINDS[self._kind].public(point))

    def __repr__(self) -> str:
        return f"TokenSigner({self._where.token}/{self._where.label})"

    @property
    def public_key(self) -> Key:
        """The public half."""
        return self._public

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "TokenSigner":
        """As securesystemslib wants it; the PIN comes from its file alone."""
        del secrets_handler
        found = cls(TokenKey.parse(priv_key_uri))
        if found.public_key.keyid != public_key.keyid:
            raise ConfigInvalid(f"{found!r}: is another key than the one that is asked for")
        return found

    def sign(self, payload: bytes) -> Signature:
        """Sign on the token.

        Raises:
            ConfigInvalid: library, PIN, token or key are not as the URI says.
        """
        kind = _KINDS[self._kind]
        with _session(self._where) as (p11, session):
            private = session.get_key(
                object_class=p11.ObjectClass.PRIVATE_KEY,
                key_type=getattr(p11.KeyType, kind.key_type),
                label=self._where.label,
            )
            mechanism = getattr(p11.Mechanism, kind.sign)
            raw = bytes(private.sign(kind.prepare(payload), mechanism=mechanism))
        return Signature(self._public.keyid, kind.finish(raw).hex())


def make_token_key(where: TokenKey, kind: str) -> TokenSigner:
    """Make a key on the token that cannot be taken out of it; raises as `TokenSigner.sign`."""
    from pkcs11.util.ec import encode_named_curve_parameters

    spec = _KINDS[kind]
    with _session(where) as (p11, session):
        found = session.get_objects({p11.Attribute.LABEL: where.label})
        if list(found):
            raise ConfigInvalid(f"{where.label}: is on the token already; choose a new name")
        parameters = session.create_domain_parameters(
            getattr(p11.KeyType, spec.key_type),
            {p11.Attribute.EC_PARAMS: encode_named_curve_parameters(spec.curve)},
            local=True,
        )
        public, private = parameters.generate_keypair(
            mechanism=getattr(p11.Mechanism, spec.generate),
            store=True,
            label=where.label,
            private_template={
                p11.Attribute.SENSITIVE: True,
                p11.Attribute.EXTRACTABLE: False,
                p11.Attribute.SIGN: True,
            },
        )
        if private[p11.Attribute.EXTRACTABLE] or not private[p11.Attribute.SENSITIVE]:
            private.destroy()
            public.destroy()
            raise ConfigInvalid(f"token {where.token} would let its keys be taken out")
    return TokenSigner(where)


def _found(p11: Any, session: Any, where: TokenKey) -> tuple[str, bytes]:
    """Kind and public point of the key."""
    for name, kind in _KINDS.items():
        query = {
            p11.Attribute.CLASS: p11.ObjectClass.PUBLIC_KEY,
            p11.Attribute.KEY_TYPE: getattr(p11.KeyType, kind.key_type),
            p11.Attribute.LABEL: where.label,
        }
        for key in session.get_objects(query):
            point = bytes(key[p11.Attribute.EC_POINT])
            # DER of an octet string; no point here is longer than 127 bytes.
            is_wrapped = point[0] == _OCTET_STRING and point[1:2] == bytes([len(point) - 2])
            return name, point[2:] if is_wrapped else point
    raise ConfigInvalid(
        f"token {where.token} has no key {where.label}; make it with: fabric policy key URI"
    )


@contextmanager
def _session(where: TokenKey) -> Iterator[tuple[Any, Any]]:
    """An open session for one call; errors of library and token leave as ours."""
    try:
        import pkcs11 as p11
    except ImportError as exc:
        raise ConfigInvalid(
            "python-pkcs11 is missing; remedy: pip install 'agency-fabric[pkcs11]'"
        ) from exc
    try:
        library = p11.lib(str(where.module))
        with library.get_token(token_label=where.token).open(
            rw=True, user_pin=_pin(where.pin_file)
        ) as session:
            yield p11, session
    except (p11.NoSuchToken, p11.MultipleTokensReturned) as exc:
        raise ConfigInvalid(f"there is no token {where.token} in {where.module}") from exc
    except (p11.PinIncorrect, p11.PinLocked, p11.PinInvalid, p11.PinLenRange) as exc:
        raise ConfigInvalid(f"{where.pin_file}: token {where.token} refuses this PIN") from exc
    except (p11.PKCS11Error, RuntimeError, OSError) as exc:
        raise ConfigInvalid(
            f"token {where.token} of {where.module} does not serve: {type(exc).__name__}"
        ) from exc


def _pin(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pin = file.read(_PIN_BYTES_MAX).decode().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigInvalid(f"pin-source: {path} cannot be read") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigInvalid(f"pin-source: {path} is open to others; run chmod 600 on it")
    return pin
