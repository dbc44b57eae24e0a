"""The device's face; what it does is tested beside it and in the port's contract suite."""

from fabric.tpm.device import TpmDevice


def test_device_shows_where_it_is_and_nothing_else() -> None:
    assert repr(TpmDevice("device:/dev/tpmrm0")) == "TpmDevice(device:/dev/tpmrm0)"
