"""The tally in the TPM: one NV index that can only be extended, defined on first use.

What it is for and what its public area must be stands in fabric.attest.tally. Functions
work within one `Call`.
"""

from typing import Any

from fabric.attest import tally
from fabric.model.errors import ConfigInvalid
from fabric.ports import Quote
from fabric.tpm import keys
from fabric.tpm.connection import Call

_RC_HANDLE_1 = 0x18B  # TPM_RC_HANDLE, first handle: nothing is there
_RC_NV_SPACE = 0x14B  # TPM_RC_NV_SPACE
_RC_UNINITIALIZED = 0x14A  # TPM_RC_NV_UNINITIALIZED: defined and never extended


def value(call: Call) -> bytes:
    """The tally's value; raises ConfigInvalid when another index has its place."""
    index = _index(call)
    try:
        return bytes(call.esapi.nv_read(index, tally.VALUE_BYTES, 0, index))
    except call.tss.TSS2_Exception as exc:
        if exc.rc != _RC_UNINITIALIZED:
            raise
        return tally.START


def extend(call: Call, step: bytes) -> None:
    """Extend the tally by 32 bytes; it cannot be undone."""
    index = _index(call)
    call.esapi.nv_extend(index, step, index)


def certify(call: Call, qualifying: bytes) -> Quote:
    """The attestation key's certificate of the whole tally; it must have been extended."""
    ak, _ = keys.load_ak(call)
    index = _index(call)
    scheme = call.tss.TPMT_SIG_SCHEME(scheme=call.tss.TPM2_ALG.NULL)  # the key has its own
    attest, signature = call.esapi.nv_certify(
        ak, index, qualifying, scheme, tally.VALUE_BYTES, offset=0, auth_handle=index
    )
    return Quote(attest=bytes(attest), signature=signature.marshal())


def _index(call: Call) -> Any:
    """The index, defined when there is none."""
    try:
        index = call.esapi.tr_from_tpmpublic(tally.NV_INDEX)
    except call.tss.TSS2_Exception as exc:
        if exc.rc != _RC_HANDLE_1:
            raise
        return _define(call)
    public, _ = call.esapi.nv_read_public(index)
    if public.nvPublic.marshal() not in (
        tally.public_area(),
        tally.public_area(tally.NV_DEFINED),
    ):
        raise ConfigInvalid(
            f"NV index 0x{tally.NV_INDEX:08x} is not ours: move it away (tpm2_nvundefine) "
            "and start again"
        )
    return index


def _define(call: Call) -> Any:
    tss = call.tss
    public = tss.TPM2B_NV_PUBLIC(
        nvPublic=tss.TPMS_NV_PUBLIC(
            nvIndex=tally.NV_INDEX,
            nameAlg=tss.TPM2_ALG.SHA256,
            attributes=tally.NV_DEFINED,
            authPolicy=b"",
            dataSize=tally.VALUE_BYTES,
        )
    )
    try:
        return call.esapi.nv_define_space(b"", public)
    except tss.TSS2_Exception as exc:
        if exc.rc != _RC_NV_SPACE:
            raise
        raise ConfigInvalid(
            "TPM has no room for one NV index of 32 bytes: remove indexes that nobody needs"
            " (tpm2_getcap handles-nv-index, tpm2_nvundefine) and start again"
        ) from exc
