"""A second reader of the format, written from docs/format.md with cbor2 and cryptography alone.

It shares no code with fabric.seal: what both agree on is the format. It is
straight and slow, and trusts its caller with keys.
"""

import hashlib
import hmac
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEADER = -65537
ECDSA: dict[int, tuple[ec.EllipticCurve, HashAlgorithm, int]] = {
    -9: (ec.SECP256R1(), SHA256(), 32),
    -51: (ec.SECP384R1(), SHA384(), 48),
}
HASHES = {"hybrid-top": "sha384"}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def hkdf(secret: bytes, info: bytes, suite: str) -> bytes:
    algorithm = SHA384() if suite in HASHES else SHA256()
    return HKDF(algorithm, 32, None, info).derive(secret)


def protected_and_payload(value: bytes) -> tuple[bytes, bytes]:
    sign = cbor2.loads(value)
    assert sign.tag == 98
    return sign.value[0], sign.value[2]


def header_of(value: bytes) -> dict[int, Any]:
    return dict(cbor2.loads(protected_and_payload(value)[0])[HEADER])


def envelope_hash(value: bytes) -> bytes:
    protected, payload = protected_and_payload(value)
    return sha(b"fabric-envelope-hash-v1" + sha(protected) + sha(payload))


def epoch_id(secret: bytes, header: dict[int, Any]) -> bytes:
    info = cbor2.dumps(["fabric-epoch-v1", header[5], header[2], header[10]])
    return hkdf(secret, info, header[1])


def salt(secret: bytes, header: dict[int, Any], padded: bytes) -> bytes:
    bare = {key: header[key] for key in range(21)}
    name = HASHES.get(header[1], "sha256")
    data = hashlib.new(name, cbor2.dumps(bare)).digest() + hashlib.new(name, padded).digest()
    return hmac.digest(hkdf(secret, b"salt", header[1]), data, name)[:32]


def block_key(secret: bytes, h: dict[int, Any]) -> bytes:
    info = cbor2.dumps(["fabric-block-v1", h[1], h[9], h[2], h[3], h[12], h[21]])
    return hkdf(secret, info, h[1])


def padded_plaintext(value: bytes, secret: bytes) -> bytes:
    """Decrypt; raises InvalidTag or ValueError where MUST-5.5 to MUST-5.9 are broken."""
    protected, payload = protected_and_payload(value)
    header = header_of(value)
    encrypt0 = cbor2.loads(payload)
    head, unprotected, ciphertext = encrypt0.value
    if encrypt0.tag != 16 or cbor2.loads(head) != {1: 3} or unprotected:
        raise ValueError("not our COSE_Encrypt0")
    if epoch_id(secret, header) != header[9]:
        raise ValueError("epoch id")
    aad = cbor2.dumps(["Encrypt0", head, protected])
    padded = AESGCM(block_key(secret, header)).decrypt(bytes(12), ciphertext, aad)
    if salt(secret, header, padded) != header[21]:
        raise ValueError("salt")
    return padded


def verify_signatures(value: bytes, kind: str, keys: list[tuple[int, bytes]]) -> None:
    """Check every signature of a COSE_Sign against (alg, raw key) pairs, in order."""
    protected, _, payload, signatures = cbor2.loads(value).value
    assert len(signatures) == len(keys)
    for (head, unprotected, signature), (alg, key) in zip(signatures, keys, strict=True):
        kid = sha(cbor2.dumps(["sign", alg, key]))
        assert cbor2.loads(head) == {1: alg, 4: kid}
        assert unprotected == {}
        aad = f"fabric-{kind}-v1".encode()
        data = cbor2.dumps(["Signature", protected, head, aad, payload])
        verify_one(alg, key, signature, data)


def verify_one(alg: int, key: bytes, signature: bytes, data: bytes) -> None:
    """Check one signature of any suite; raises InvalidSignature or AssertionError."""
    if alg in ECDSA:
        curve, algorithm, size = ECDSA[alg]
        assert len(signature) == 2 * size
        r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, key)
        public.verify(encode_dss_signature(r, s), data, ec.ECDSA(algorithm))
        return
    loads = {
        -19: ed25519.Ed25519PublicKey.from_public_bytes,
        -49: mldsa.MLDSA65PublicKey.from_public_bytes,
        -50: mldsa.MLDSA87PublicKey.from_public_bytes,
    }
    loads[alg](key).verify(signature, data)


def hpke_x25519(ephemeral: bytes, recipient: bytes, info: bytes, plaintext: bytes) -> bytes:
    """RFC 9180 SealBase with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.

    The ephemeral private key is the caller's, so that vectors are the same in every run.
    """
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    private = x25519.X25519PrivateKey.from_private_bytes(ephemeral)
    enc = private.public_key().public_bytes_raw()
    shared = private.exchange(x25519.X25519PublicKey.from_public_bytes(recipient))
    secret = _extract_expand(kem, b"eae_prk", shared, b"shared_secret", enc + recipient)
    psk_hash = _extract(suite, b"", b"psk_id_hash", b"")
    context = b"\x00" + psk_hash + _extract(suite, b"", b"info_hash", info)
    prk = _extract(suite, secret, b"secret", b"")
    key = _expand(suite, prk, b"key", context, 32)
    nonce = _expand(suite, prk, b"base_nonce", context, 12)
    return enc + AESGCM(key).encrypt(nonce, plaintext, b"")


def _extract(suite: bytes, salt_: bytes, label: bytes, material: bytes) -> bytes:
    labeled = b"HPKE-v1" + suite + label + material
    return hmac.digest(salt_ or bytes(32), labeled, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labeled = length.to_bytes(2) + b"HPKE-v1" + suite + label + info
    out = hmac.digest(prk, labeled + b"\x01", "sha256")
    return out[:length]


def _extract_expand(suite: bytes, label: bytes, dh: bytes, out_label: bytes, ctx: bytes) -> bytes:
    return _expand(suite, _extract(suite, b"", label, dh), out_label, ctx, 32)
