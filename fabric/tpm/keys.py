"""The TPM's keys: the maker's endorsement key, our attestation key, the storage key.

Only the attestation key is persistent; the others are derived from the TPM's seeds
again each time, with the same result. Functions work within one `Call`.
"""

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from fabric.attest import evidence
from fabric.attest.ek import certified_name, check_key, qualified_name
from fabric.model.errors import ConfigInvalid, DeniedError, Malformed, Reason, UsageError
from fabric.tpm.connection import Call

AK_HANDLE = 0x8101_8000
"""Persistent handle of the attestation key, in the owner's range."""
_EK = "EK-RSA2048"  # NV 0x01C00002, template L-1 of the TCG EK Credential Profile
_STORAGE_ATTRIBUTES = 0x0003_0472
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, decrypt."""
_RC_HANDLE_1 = 0x18B  # TPM_RC_HANDLE, first handle: nothing is there


def ek_certificate(call: Call) -> bytes:
    """DER of the RSA 2048 endorsement key's certificate, padding cut off."""
    return _certificate_and_template(call)[0]


def load_ek(call: Call) -> Any:
    """The endorsement key, loaded; its certificate must be for it. Needs a free slot."""
    certificate, template = _certificate_and_template(call)
    ek, public, *_ = call.esapi.create_primary(None, template, call.tss.ESYS_TR.ENDORSEMENT)
    call.keep(ek)
    key = load_pem_public_key(public.to_pem())
    assert isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey)
    check_key(certificate, key)
    return ek


def ek_session(call: Call) -> Any:
    """A policy session that satisfies the EK template's policy, for one use."""
    session = call.session(call.tss.TPM2_SE.POLICY)
    call.esapi.policy_secret(call.tss.ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
    return session


def load_ak(call: Call) -> tuple[Any, bytes]:
    """The persistent attestation key and its TPM2B_PUBLIC; made when there is none.

    Raises:
        ConfigInvalid: the handle holds a key of another kind.
    """
    try:
        ak = call.esapi.tr_from_tpmpublic(AK_HANDLE)
    except call.tss.TSS2_Exception as exc:
        if exc.rc != _RC_HANDLE_1:
            raise
        with call.part() as part:
            ak = _make_ak(part)
    public: bytes = call.esapi.read_public(ak)[0].marshal()
    try:
        attributes = evidence.parse_ak(public).attributes
    except Malformed:
        attributes = 0
    if attributes != evidence.AK_ATTRIBUTES:
        raise _foreign("another key")
    return ak, public


def check_parent(call: Call, ak: Any) -> None:
    """Raises ConfigInvalid when the attestation key is no child of the endorsement key."""
    _, name, qualified = call.esapi.read_public(ak)
    if bytes(qualified) != qualified_name(certified_name(ek_certificate(call)), bytes(name)):
        raise _foreign("a key that is not the endorsement key's child")


def activate(call: Call, credential: bytes, secret: bytes) -> bytes:
    """TPM2_ActivateCredential; raises DeniedError ACTIVATION_FAILED."""
    tss = call.tss
    try:
        blob, _ = tss.TPM2B_ID_OBJECT.unmarshal(credential)
        encrypted, _ = tss.TPM2B_ENCRYPTED_SECRET.unmarshal(secret)
    except tss.TSS2_Exception as exc:
        raise DeniedError(Reason.ACTIVATION_FAILED, "credential does not parse") from exc
    ak, _ = load_ak(call)
    call.clear()
    ek, session = load_ek(call), ek_session(call)
    try:
        return bytes(call.esapi.activate_credential(ak, ek, blob, encrypted, session2=session))
    except tss.TSS2_Exception as exc:
        if exc.parameter == 0 and not _is_well_after(exc, call):
            raise
        raise DeniedError(
            Reason.ACTIVATION_FAILED, "credential is not for this TPM's keys"
        ) from exc


def load_storage(call: Call) -> Any:
    """The owner's storage key: the same template gives the same key each time."""
    # noDA, or a host that lost power three times could not open its state.
    template = call.tss.TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=_STORAGE_ATTRIBUTES)
    primary, *_ = call.esapi.create_primary(None, template, call.tss.ESYS_TR.OWNER)
    return call.keep(primary)


def cut_der(data: bytes) -> bytes:
    """The first DER element: some makers pad the certificate's NV index."""
    if len(data) < 4 or data[0] != 0x30 or data[1] != 0x82:
        return data
    return data[: 4 + int.from_bytes(data[2:4])]


def _make_ak(call: Call) -> Any:
    tss, esapi = call.tss, call.esapi
    call.clear()
    ek = load_ek(call)
    template = tss.TPM2B_PUBLIC.parse(
        "ecc256:ecdsa-sha256:null", objectAttributes=evidence.AK_ATTRIBUTES
    )
    private, public, *_ = esapi.create(ek, None, template, session1=ek_session(call))
    ak = call.keep(esapi.load(ek, private, public, session1=ek_session(call)))
    return esapi.evict_control(tss.ESYS_TR.OWNER, ak, AK_HANDLE)


def _certificate_and_template(call: Call) -> tuple[bytes, Any]:
    utils = call.tss.utils
    certificate, template = utils.create_ek_template(_EK, utils.NVReadEK(call.esapi))
    if certificate is None:
        raise UsageError(
            Reason.EVIDENCE_REFUSED,
            "TPM holds no certificate of an RSA 2048 endorsement key (NV 0x01c00002)",
        )
    return cut_der(certificate), template


def _is_well_after(exc: Any, call: Call) -> bool:
    """Whether a TPM that said FAILURE still serves, so that it meant the credential.

    libtpms says FAILURE, not VALUE, of a secret that is encrypted to another RSA key.
    """
    return exc.rc == call.tss.TPM2_RC.FAILURE and len(call.esapi.get_random(1)) == 1


def _foreign(what: str) -> ConfigInvalid:
    return ConfigInvalid(
        f"persistent handle 0x{AK_HANDLE:08x} holds {what}: move it away (tpm2_evictcontrol) "
        "and start again"
    )
