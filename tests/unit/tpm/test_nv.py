"""The tally's NV index in a real TPM."""

from collections.abc import Callable

import pytest

from fabric.attest import evidence, tally
from fabric.attest.tally import START, extended
from fabric.model.errors import ConfigInvalid
from fabric.tpm.device import TpmDevice

Make = Callable[[], TpmDevice]
pytestmark = pytest.mark.integration


def test_index_is_defined_as_specified_and_can_only_be_extended(make: Make) -> None:
    from tpm2_pytss import ESAPI, TSS2_Exception

    device = make()
    assert device.tally() == START
    device.extend_tally(b"s" * 32)
    with ESAPI(device.tcti) as esapi:
        index = esapi.tr_from_tpmpublic(tally.NV_INDEX)
        public, name = esapi.nv_read_public(index)
        assert public.nvPublic.marshal() == tally.public_area()
        assert bytes(name) == tally.NAME
        with pytest.raises(TSS2_Exception):
            esapi.nv_write(index, bytes(32), 0, index)
    assert device.tally() == extended(START, b"s" * 32)


def test_other_index_in_its_place_is_refused_with_a_remedy(make: Make) -> None:
    from tpm2_pytss import ESAPI, TPM2_ALG, TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC

    device = make()
    plain = tally.NV_DEFINED & ~0xF0  # an ordinary index: its owner can write what he likes
    with ESAPI(device.tcti) as esapi:
        area = TPMS_NV_PUBLIC(
            nvIndex=tally.NV_INDEX, nameAlg=TPM2_ALG.SHA256, attributes=plain, dataSize=32
        )
        index = esapi.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area))
        esapi.nv_write(index, START, 0, index)
    for call in (device.tally, lambda: device.extend_tally(b"s" * 32)):
        with pytest.raises(ConfigInvalid, match="tpm2_nvundefine"):
            call()


def test_certificate_names_the_index_and_its_contents(make: Make) -> None:
    device = make()
    device.extend_tally(b"s" * 32)
    certified = evidence.parse_nv(device.certify_tally(b"extra").attest)
    assert (certified.magic, certified.type) == (evidence.MAGIC, evidence.TYPE_NV)
    assert (certified.index, certified.offset) == (tally.NAME, 0)
    assert (certified.extra, certified.contents) == (b"extra", device.tally())


def test_tpm_without_room_says_so_with_a_remedy(make: Make) -> None:
    from tpm2_pytss import ESAPI, TPM2_ALG, TPM2B_NV_PUBLIC, TPMS_NV_PUBLIC, TSS2_Exception

    device = make()
    with ESAPI(device.tcti) as esapi:
        size, handle = 2048, 0x0180_0100
        while size:
            area = TPMS_NV_PUBLIC(
                nvIndex=handle, nameAlg=TPM2_ALG.SHA256, attributes=0x0204_0004, dataSize=size
            )
            try:
                esapi.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area))
                handle += 1
            except TSS2_Exception:
                size //= 2
    with pytest.raises(ConfigInvalid, match="no room"):
        device.tally()
