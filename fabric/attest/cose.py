"""COSE_Sign (RFC 9052 section 4.1), the one signed structure of the fabric.

Everything that is signed is a tagged COSE_Sign whose headers stand once, in the
body's protected bucket; unprotected buckets are empty; the signatures are
exactly the expected keys', in order, each with `kid` = thumbprint. Every kind of
thing has its own external_aad, so a signature for one can never serve another.
Spec: docs/format.md section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fabric.attest.keys import PublicKey, Signer, verify
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import HEADER_ITEMS_MAX, SIGNATURES_MAX

_TAG = b"\xd8\x62"  # CBOR tag 98, COSE_Sign
_ALG = 1
_KID = 4
_CONTEXT = "Signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A well-formed COSE_Sign whose signatures nobody has checked yet."""

    protected: Mapping[int, canonical.Value]
    protected_bytes: bytes
    payload: bytes
    signatures: tuple[tuple[bytes, bytes], ...]
    """(protected bucket, signature) of each signer."""


def _aad(kind: str) -> bytes:
    return f"fabric-{kind}-v1".encode()


def _tbs(kind: str, protected: bytes, signer: bytes, payload: bytes) -> bytes:
    return canonical.encode([_CONTEXT, protected, signer, _aad(kind), payload])


def sign(kind: str, protected: bytes, payload: bytes, signers: Sequence[Signer]) -> bytes:
    """Sign `payload` under `protected` (encoded map) with every key, in order.

    Args:
        kind: domain of the signature, for example `envelope` or `result`.
    """
    signatures: list[canonical.Value] = []
    for signer in signers:
        head = canonical.encode({_ALG: int(signer.public.alg), _KID: signer.public.thumbprint})
        signature = signer.sign(_tbs(kind, protected, head, payload))
        signatures.append([head, {}, signature])
    return _TAG + canonical.encode([protected, {}, payload, signatures])


def parse(data: bytes) -> Signed:
    """Read a COSE_Sign without trusting it; raises Malformed."""
    if not data.startswith(_TAG):
        raise Malformed("not a tagged COSE_Sign")
    body = canonical.decode(data[len(_TAG) :])
    match body:
        case [bytes() as protected, dict() as unprotected, bytes() as payload, list() as parts]:
            pass
        case _:
            raise Malformed("COSE_Sign has a wrong shape")
    if unprotected or not 1 <= len(parts) <= SIGNATURES_MAX:
        raise Malformed("COSE_Sign has unprotected headers or a wrong number of signatures")
    head = canonical.decode(protected, items_max=HEADER_ITEMS_MAX)
    if not isinstance(head, dict):
        raise Malformed("protected bucket is not a map")
    return Signed(
        protected=head,
        protected_bytes=protected,
        payload=payload,
        signatures=tuple(_signature(part) for part in parts),
    )


def _signature(value: canonical.Value) -> tuple[bytes, bytes]:
    match value:
        case [bytes() as head, dict() as unprotected, bytes() as signature] if not unprotected:
            return head, signature
    raise Malformed("COSE_Signature has a wrong shape")


def check(signed: Signed, kind: str, keys: Sequence[PublicKey]) -> None:
    """Verify that exactly `keys` signed, in order; raises PeerError BAD_SIGNATURE."""
    if len(signed.signatures) != len(keys) or not keys:
        raise PeerError(Reason.BAD_SIGNATURE, "signatures are not exactly the expected ones")
    for (head, signature), key in zip(signed.signatures, keys, strict=True):
        if head != canonical.encode({_ALG: int(key.alg), _KID: key.thumbprint}):
            raise PeerError(Reason.BAD_SIGNATURE, "signature names another key or algorithm")
        verify(key, signature, _tbs(kind, signed.protected_bytes, head, signed.payload))
