"""A TPM without a resource manager: slots are cleared, nothing is left, threads take turns."""

import builtins
import threading
from collections.abc import Callable
from types import ModuleType

import pytest

from fabric.model.errors import ConfigInvalid, DeniedError, UnavailableError, UsageError
from fabric.tpm.device import TpmDevice
from fabric.tpm.keys import AK_HANDLE

PCRS = (0, 7)
TRANSIENT, SESSIONS, PERSISTENT = 0x8000_0000, 0x0200_0000, 0x8100_0000
Make = Callable[[], TpmDevice]


@pytest.mark.parametrize("tcti", ["", "/dev/tpm0", "mssim:port=2321", "cmd:sh"])
def test_connection_string_of_no_known_kind_names_the_setting(tcti: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"tpm\.tcti"):
        TpmDevice(tcti)


def test_missing_library_names_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object, **kwargs: object) -> ModuleType:
        if name.startswith("tpm2_pytss"):
            raise ImportError(name)
        return real(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"agency-fabric\[tpm\]") as missing:
        TpmDevice("device:/dev/tpmrm0")
    assert "libtss2-dev" in str(missing.value)


def test_device_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        TpmDevice("swtpm:path=/nonexistent/socket").pcr_digest(PCRS)


def _handles(device: TpmDevice, first: int) -> list[int]:
    from tpm2_pytss import ESAPI, TPM2_CAP

    with ESAPI(device.tcti) as esapi:
        _, found = esapi.get_capability(TPM2_CAP.HANDLES, first, 16)
        # the list lives in `found`: keep that until it has been copied
        return [int(handle) for handle in found.data.handles]


@pytest.mark.integration
def test_no_call_leaves_anything_behind_not_even_one_that_fails(make: Make) -> None:
    device = make()
    blob = device.seal(b"secret", PCRS)
    device.unsafe_extend(7, bytes(32))
    calls: list[Callable[[], object]] = [
        device.ak_public,
        lambda: device.quote(PCRS, b"extra"),
        lambda: device.seal(b"data", PCRS),
    ]
    failing: list[Callable[[], object]] = [
        lambda: device.unseal(blob),
        lambda: device.activate(b"\x00\x22\x00\x20" + bytes(32), b"\x01\x00" + bytes(256)),
        lambda: device.quote(PCRS, bytes(65)),
    ]
    for call in calls:
        call()
    for call in failing:
        with pytest.raises((DeniedError, UnavailableError, UsageError)):
            call()
        assert _handles(device, TRANSIENT) == []
        assert _handles(device, SESSIONS) == []
    assert AK_HANDLE in _handles(device, PERSISTENT)


@pytest.mark.integration
def test_slots_that_a_dead_process_left_full_are_cleared(make: Make) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR, TPM2_ALG, TPM2_SE, TPMT_SYM_DEF

    device = make()
    with ESAPI(device.tcti) as esapi:
        for _ in range(3):
            esapi.create_primary(None, "ecc256:aes128cfb")
            none = TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
            esapi.start_auth_session(
                ESYS_TR.NONE, ESYS_TR.NONE, TPM2_SE.POLICY, none, TPM2_ALG.SHA256
            )
    assert len(_handles(device, TRANSIENT)) == 3
    assert device.unseal(device.seal(b"secret", PCRS)) == b"secret"
    device.ak_public()
    assert _handles(device, TRANSIENT) == _handles(device, SESSIONS) == []


@pytest.mark.integration
def test_calls_of_many_threads_do_not_disturb_each_other(make: Make) -> None:
    device = make()
    blob = device.seal(b"secret", PCRS)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                assert device.unseal(blob) == b"secret"
                device.quote(PCRS, b"extra")
        except BaseException as exc:
            failed.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
