"""Sealed blobs: what is not one is lost, whatever is wrong with it."""

from collections.abc import Callable

import pytest

from fabric.model import canonical
from fabric.model.errors import DeniedError, Reason
from fabric.tpm.device import TpmDevice
from fabric.tpm.sealing import selection

Make = Callable[[], TpmDevice]


def test_selection_names_the_bank_and_rises() -> None:
    assert selection((7, 0, 14)) == "sha256:0,7,14"


@pytest.mark.integration
def test_blob_with_an_empty_key_or_a_wrong_pcr_is_lost(make: Make) -> None:
    device = make()
    pcrs, private, public = canonical.decode(device.seal(b"secret", (0,)))  # type: ignore[misc]
    for parts in ([[24], private, public], [[0], b"", public], [[0], private, b""], [pcrs]):
        with pytest.raises(DeniedError) as lost:
            device.unseal(canonical.encode(parts))  # type: ignore[arg-type]
        assert lost.value.reason is Reason.SEALED_STATE_LOST
