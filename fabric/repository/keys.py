"""Keys that sign a policy: PEM files that their owner alone may read, or a PKCS#11 token.

A key is Ed25519 or ML-DSA-65; its public half, with its owner's name, is a small JSON
file that goes into `roles.yaml`.
"""

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Key, Signer, SSlibKey

from fabric.model.errors import ConfigInvalid, PeerError, Reason
from fabric.policy.material import material
from fabric.policy.roles import SCHEMES
from fabric.repository import token

KINDS: Mapping[str, Callable[[], Any]] = {
    "ed25519": Ed25519PrivateKey.generate,
    "ml-dsa-65": MLDSA65PrivateKey.generate,
}


def make_key(path: Path, kind: str = "ed25519") -> SSlibKey:
    """Write a new private key (mode 0600, PKCS#8) and beside it `<path>.pub`.

    Raises:
        ConfigInvalid: a file is there already, or cannot be written.
    """
    signer = CryptoSigner(KINDS[kind]())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(signer.private_bytes)
    except OSError as exc:
        raise ConfigInvalid(f"{path}: cannot be made ({exc.strerror}); choose a new name") from exc
    write_public(path.with_name(f"{path.name}.pub"), signer.public_key)
    return signer.public_key


def write_public(path: Path, key: Key) -> None:
    """Write the public half."""
    path.write_text(json.dumps(public_fields(key), indent=1) + "\n")


def public_fields(key: Key) -> dict[str, Any]:
    """A public key as it is written: TUF's form and its id."""
    return {"keyid": key.keyid, **key.to_dict()}


def read_public(path: Path) -> SSlibKey:
    """Read a public half; raises ConfigInvalid."""
    try:
        return public_key(json.loads(path.read_bytes()))
    except OSError as exc:
        raise ConfigInvalid(f"{path}: cannot be read ({exc.strerror})") from exc
    except (ValueError, PeerError) as exc:
        raise ConfigInvalid(
            f"{path}: is no public key of a policy; make it with policy key"
        ) from exc


def public_key(fields: Mapping[str, Any]) -> SSlibKey:
    """A public key as `public_fields` writes it.

    Raises:
        PeerError: MALFORMED.
    """
    try:
        given = dict(fields)
        kind, scheme, value = given["keytype"], given["scheme"], dict(given["keyval"])
        if scheme not in SCHEMES:
            raise PeerError(Reason.MALFORMED, f"key has the scheme {str(scheme)[:40]!r}")
        form = {"keytype": kind, "scheme": scheme, "keyval": value}
        key = Key.from_dict(str(given["keyid"]), form)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise PeerError(Reason.MALFORMED, "key is not in TUF's form") from exc
    if not isinstance(key, SSlibKey):
        raise PeerError(Reason.MALFORMED, "key is of a kind that signs no policy")
    material(key)
    return key


def decode_signer(pem: bytes) -> CryptoSigner:
    """A signer from a private key, PEM PKCS#8 without a password; raises ConfigInvalid."""
    try:
        return CryptoSigner(load_pem_private_key(pem, None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise ConfigInvalid("private key is not PEM PKCS#8 of Ed25519 or ML-DSA") from exc


def open_signer(where: str) -> Signer:
    """The signer of a command line: a path, or a `pkcs11:` URI.

    Raises:
        ConfigInvalid: the key cannot be used; says why.
    """
    if where.startswith(token.SCHEME):
        return token.TokenSigner(token.TokenKey.parse(where))
    path = Path(where)
    try:
        data = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as exc:
        raise ConfigInvalid(f"{path}: cannot be read ({exc.strerror})") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigInvalid(f"{path}: is open to others; run chmod 600 on it")
    return decode_signer(data)
