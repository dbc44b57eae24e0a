"""Signing keys that live in a real TPM."""

from collections.abc import Callable

import pytest

from fabric.attest import evidence
from fabric.attest.resident import RESIDENT_ATTRIBUTES
from fabric.tpm import keys
from fabric.tpm.device import TpmDevice

Make = Callable[[], TpmDevice]
pytestmark = pytest.mark.integration


def test_key_has_exactly_the_attributes_that_the_verifier_demands(make: Make) -> None:
    """MUST-9.23."""
    area = evidence.parse_ak(make().make_key().public)
    assert area.attributes == RESIDENT_ATTRIBUTES


def test_key_cannot_be_duplicated_out_of_its_tpm(make: Make) -> None:
    from tpm2_pytss import (
        ESAPI,
        ESYS_TR,
        TPM2B_PRIVATE,
        TPM2B_PUBLIC,
        TPMT_SYM_DEF_OBJECT,
        TSS2_Exception,
    )

    device = make()
    key = device.make_key()
    with ESAPI(device.tcti) as esapi:
        template = TPM2B_PUBLIC.parse("ecc256:aes128cfb", objectAttributes=keys._STORAGE_ATTRIBUTES)
        storage, *_ = esapi.create_primary(None, template, ESYS_TR.OWNER)
        private, _ = TPM2B_PRIVATE.unmarshal(key.private)
        public, _ = TPM2B_PUBLIC.unmarshal(key.public)
        loaded = esapi.load(storage, private, public)
        with pytest.raises(TSS2_Exception):
            esapi.duplicate(loaded, ESYS_TR.NULL, b"", TPMT_SYM_DEF_OBJECT.parse("null"))
        for handle in (loaded, storage):
            esapi.flush_context(handle)


def test_many_signatures_leave_no_object_behind(make: Make) -> None:
    """A TPM without a resource manager has three slots."""
    device = make()
    key = device.make_key()
    made = {device.sign_with(key, bytes(32)) for _ in range(8)}
    assert {len(signature) for signature in made} == {64}
