"""What only a TPM without a resource manager shows; the port's suite is in contract/."""

import builtins
import threading
from collections.abc import Callable
from types import ModuleType

import pytest

from fabric.attest import evidence
from fabric.demo.swtpm import SoftTpm
from fabric.model.errors import ConfigInvalid, DeniedError, UnavailableError, UsageError
from fabric.tpm.device import AK_HANDLE, TpmDevice
from tests.fakes.tpm import await_tpm

PCRS = (0, 7)
Make = Callable[[], TpmDevice]


@pytest.fixture
def make(soft_tpm: Callable[[str], SoftTpm]) -> Make:
    """Make devices, each on a software TPM of its own."""

    def made() -> TpmDevice:
        device = TpmDevice(soft_tpm("device").tcti)
        await_tpm(device)
        return device

    return made


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


def test_padding_behind_a_certificate_is_cut_off() -> None:
    from fabric.tpm.device import _cut_der

    der = b"\x30\x82\x00\x03abc"
    assert _cut_der(der + b"\xff" * 9) == der
    assert _cut_der(der) == der
    assert _cut_der(b"\x30\x03abc") == b"\x30\x03abc"
    assert _cut_der(b"") == b""


def _handles(device: TpmDevice, first: int) -> list[int]:
    from tpm2_pytss import ESAPI, TPM2_CAP

    with ESAPI(device._tcti) as esapi:
        _, found = esapi.get_capability(TPM2_CAP.HANDLES, first, 16)
        # the list lives in `found`: keep that until it has been copied
        return [int(handle) for handle in found.data.handles]


TRANSIENT, SESSIONS, PERSISTENT = 0x8000_0000, 0x0200_0000, 0x8100_0000


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
    with ESAPI(device._tcti) as esapi:
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


@pytest.mark.integration
def test_foreign_key_at_the_handle_is_refused_with_a_remedy(make: Make) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR

    device = make()
    with ESAPI(device._tcti) as esapi:
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
    with ESAPI(device._tcti) as esapi:
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
    with ESAPI(device._tcti) as esapi:
        esapi.clear(ESYS_TR.LOCKOUT)
    assert device.ak_public() != before
    with pytest.raises(DeniedError):
        device.unseal(blob)


def test_device_shows_where_it_is_and_nothing_else() -> None:
    assert repr(TpmDevice("device:/dev/tpmrm0")) == "TpmDevice(device:/dev/tpmrm0)"
