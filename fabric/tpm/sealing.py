"""Data sealed to this TPM under a policy of PCR values, and opened again.

The blob holds all that opening needs but the TPM and its state. Functions work
within one `Call`.
"""

from collections.abc import Sequence
from typing import Any

from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.tpm import keys
from fabric.tpm.connection import Call, is_final


def selection(pcrs: Sequence[int]) -> str:
    """The SHA-256 bank's `pcrs`, as the library reads it."""
    return f"sha256:{','.join(str(pcr) for pcr in sorted(pcrs))}"


def seal(call: Call, data: bytes, pcrs: Sequence[int], digest: bytes) -> bytes:
    """Seal `data` while `pcrs` give `digest`; an empty one stands for their current values."""
    tss, esapi = call.tss, call.esapi
    call.clear()
    primary = keys.load_storage(call)
    trial = call.session(tss.TPM2_SE.TRIAL)
    esapi.policy_pcr(trial, digest, selection(pcrs))
    template = tss.TPM2B_PUBLIC.parse(
        "keyedhash",
        objectAttributes=tss.TPMA_OBJECT.FIXEDTPM
        | tss.TPMA_OBJECT.FIXEDPARENT
        | tss.TPMA_OBJECT.NODA,
        authPolicy=bytes(esapi.policy_get_digest(trial)),
    )
    sensitive = tss.TPM2B_SENSITIVE_CREATE(
        sensitive=tss.TPMS_SENSITIVE_CREATE(data=tss.TPM2B_SENSITIVE_DATA(buffer=data))
    )
    # The salted session hides the data from whoever listens on the TPM's bus.
    hidden = call.session(tss.TPM2_SE.HMAC, primary)
    private, public, *_ = esapi.create(primary, sensitive, template, session2=hidden)
    return canonical.encode([sorted(pcrs), private.marshal(), public.marshal()])


def unseal(call: Call, blob: bytes) -> bytes:
    """Undo `seal`; raises DeniedError SEALED_STATE_LOST."""
    tss, esapi = call.tss, call.esapi
    pcrs, private, public = _read_blob(tss, blob)
    call.clear()
    primary = keys.load_storage(call)
    session = call.session(tss.TPM2_SE.POLICY, primary)
    try:
        item = call.keep(esapi.load(primary, private, public))
        esapi.policy_pcr(session, b"", selection(pcrs))
        return bytes(esapi.unseal(item, session1=session))
    except tss.TSS2_Exception as exc:
        if not is_final(exc):
            raise
        raise _lost() from exc


def _read_blob(tss: Any, blob: bytes) -> tuple[list[int], Any, Any]:
    try:
        match canonical.decode(blob):
            case [list() as pcrs, bytes() as private, bytes() as public]:
                numbers = [pcr for pcr in pcrs if isinstance(pcr, int) and 0 <= pcr <= 23]
                if len(numbers) == len(pcrs):
                    return (
                        numbers,
                        tss.TPM2B_PRIVATE.unmarshal(private)[0],
                        tss.TPM2B_PUBLIC.unmarshal(public)[0],
                    )
    except (Malformed, tss.TSS2_Exception) as exc:
        raise _lost() from exc
    raise _lost()


def _lost() -> DeniedError:
    return DeniedError(
        Reason.SEALED_STATE_LOST, "sealed data does not open in this state of this TPM"
    )
