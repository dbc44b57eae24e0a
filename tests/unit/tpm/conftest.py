"""What the tests of a real TPM share."""

from collections.abc import Callable

import pytest

from fabric.demo.swtpm import SoftTpm
from fabric.tpm.device import TpmDevice
from tests.fakes.tpm import await_tpm

Make = Callable[[], TpmDevice]


@pytest.fixture
def make(soft_tpm: Callable[[str], SoftTpm]) -> Make:
    """Make devices, each on a software TPM of its own."""

    def made() -> TpmDevice:
        device = TpmDevice(soft_tpm("device").tcti)
        await_tpm(device)
        return device

    return made
