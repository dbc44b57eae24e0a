"""Signing keys that live in this TPM: made, used and certified here, wrapped at rest.

A key is a child of the owner's storage key. Outside it exists only as the TPM wrapped
it, so nothing is lost when slots are flushed, and TPM2_Clear destroys it. Functions
work within one `Call`.
"""

from typing import Any

from fabric.attest import evidence
from fabric.attest.resident import RESIDENT_ATTRIBUTES
from fabric.model.errors import DeniedError, Reason
from fabric.ports import Quote, ResidentKey
from fabric.tpm import keys
from fabric.tpm.connection import Call, is_final

_NUMBER_BYTES = 32


def make(call: Call) -> ResidentKey:
    """Make a key."""
    call.clear()
    storage = keys.load_storage(call)
    template = call.tss.TPM2B_PUBLIC.parse(
        "ecc256:ecdsa-sha256:null", objectAttributes=RESIDENT_ATTRIBUTES
    )
    private, public, *_ = call.esapi.create(storage, None, template)
    return ResidentKey(public=public.marshal(), private=private.marshal())


def sign(call: Call, key: ResidentKey, digest: bytes) -> bytes:
    """ECDSA over a digest; raises DeniedError SEALED_STATE_LOST."""
    tss = call.tss
    scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)  # the key has its own
    outside = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.NULL)
    made = call.esapi.sign(_load(call, key), digest, scheme, outside)
    found = evidence.parse_signature(made.marshal())
    return found.r.to_bytes(_NUMBER_BYTES) + found.s.to_bytes(_NUMBER_BYTES)


def certify(call: Call, key: ResidentKey, qualifying: bytes) -> Quote:
    """The attestation key's certificate of a key; raises DeniedError SEALED_STATE_LOST."""
    tss = call.tss
    ak, _ = keys.load_ak(call)
    scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.NULL)
    attest, signature = call.esapi.certify(_load(call, key), ak, qualifying, scheme)
    return Quote(attest=bytes(attest), signature=signature.marshal())


def _load(call: Call, key: ResidentKey) -> Any:
    tss = call.tss
    try:
        private, _ = tss.TPM2B_PRIVATE.unmarshal(key.private)
        public, _ = tss.TPM2B_PUBLIC.unmarshal(key.public)
        call.clear()
        return call.keep(call.esapi.load(keys.load_storage(call), private, public))
    except tss.TSS2_Exception as exc:
        if not is_final(exc):
            raise
        raise DeniedError(
            Reason.SEALED_STATE_LOST, "signing key is not one of this TPM, or not whole"
        ) from exc
