"""Whose keys are in the TPM: ours are taken, others are refused with a remedy."""

from collections.abc import Callable

import pytest

from fabric.attest import evidence
from fabric.model.errors import ConfigInvalid, DeniedError
from fabric.tpm.device import TpmDevice
from fabric.tpm.keys import AK_HANDLE, cut_der

PCRS = (0, 7)
Make = Callable[[], TpmDevice]


def test_padding_behind_a_certificate_is_cut_off() -> None:
    der = b"\x30\x82\x00\x03abc"
    assert cut_der(der + b"\xff" * 9) == der
    assert cut_der(der) == der
    assert cut_der(b"\x30\x03abc") == b"\x30\x03abc"
    assert cut_der(b"") == b""


@pytest.mark.integration
def test_foreign_key_at_the_handle_is_refused_with_a_remedy(make: Make) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR

    device = make()
    with ESAPI(device.tcti) as esapi:
        primary, *_ = esapi.create_primary(None, "ecc256:aes128cfb")
        esapi.evict_control(ESYS_TR.OWNER, primary, AK_HANDLE)
        esapi.flush_context(primary)
    with pytest.raises(ConfigInvalid, match="tpm2_evictcontrol"):
        device.quote(PCRS, b"extra")


@pytest.mark.integration
def test_key_of_the_owner_hierarchy_is_not_taken_for_an_attestation_key(make: Make) -> None:
    """Its attributes are right; only its qualified name tells, which the verifier checks."""
    from tpm2_pytss import ESAPI, ESYS_TR, TPM2B_PUBLIC

    device = make()
    with ESAPI(device.tcti) as esapi:
        template = TPM2B_PUBLIC.parse(
            "ecc256:ecdsa-sha256:null", objectAttributes=evidence.AK_ATTRIBUTES
        )
        primary, *_ = esapi.create_primary(None, template)
        esapi.evict_control(ESYS_TR.OWNER, primary, AK_HANDLE)
        esapi.flush_context(primary)
    with pytest.raises(ConfigInvalid, match="endorsement"):
        device.ak_public()


@pytest.mark.integration
def test_cleared_tpm_makes_a_new_attestation_key(make: Make) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR

    device = make()
    before = device.ak_public()
    blob = device.seal(b"secret", PCRS)
    with ESAPI(device.tcti) as esapi:
        esapi.clear(ESYS_TR.LOCKOUT)
    assert device.ak_public() != before
    with pytest.raises(DeniedError):
        device.unseal(blob)
