"""One key is one value, and has one spelling."""

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from fabric.model.errors import Malformed
from fabric.policy.material import material

KEYS: dict[str, Any] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate(),
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
}
P256_HEAD = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200")


def public(name: str) -> SSlibKey:
    found = CryptoSigner(KEYS[name]).public_key
    assert isinstance(found, SSlibKey)
    return found


def spelled(key: Key, **keyval: object) -> Key:
    return SSlibKey("0" * 64, key.keytype, key.scheme, {**key.keyval, **keyval})


def compressed(key: Key) -> str:
    point = load_pem_public_key(key.keyval["public"].encode()).public_bytes(
        Encoding.X962, PublicFormat.CompressedPoint
    )
    body = base64.b64encode(P256_HEAD + point).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("name", [*KEYS])
def test_a_key_is_the_same_under_every_id_and_every_key_another(name: str) -> None:
    """MUST-14.4."""
    assert material(spelled(public(name))) == material(public(name))
    assert len({material(public(other)) for other in KEYS}) == len(KEYS)


@pytest.mark.parametrize(
    "twin",
    [
        spelled(public("ed25519"), public=public("ed25519").keyval["public"].upper() + " "),
        spelled(public("ed25519"), public=public("ed25519").keyval["public"] + "\n"),
        spelled(public("ed25519"), note="b"),
        spelled(public("ml-dsa-65"), public="\n" + public("ml-dsa-65").keyval["public"] + "\n"),
        spelled(public("p256"), public=compressed(public("p256"))),
        spelled(public("p256"), public=public("p256").keyval["public"] + "\n"),
        spelled(public("p384"), public="a word before\n" + public("p384").keyval["public"]),
        spelled(public("p384"), note="b"),
    ],
)
def test_another_spelling_of_a_key_is_malformed(twin: Key) -> None:
    """MUST-14.5."""
    with pytest.raises(Malformed, match="canonical"):
        material(twin)


@pytest.mark.parametrize("text", ["", "zz", "00", "-----BEGIN PUBLIC KEY-----\n"])
@pytest.mark.parametrize("name", [*KEYS])
def test_what_is_no_key_is_malformed(name: str, text: str) -> None:
    with pytest.raises(Malformed, match="parse"):
        material(spelled(public(name), public=text))
