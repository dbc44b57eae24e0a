"""The host's state and papers on disk."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fabric.agent.identity import CERTIFICATE, KEY, STATE, Identity
from fabric.agent.keyring import KeySet, plan_for
from fabric.attest.result import encode
from fabric.authority.pki import issue_svid, make_ca
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import HostId
from fabric.store.file_keys import FileKeys
from tests.fakes.platform import A, DrawerTpm, ManualClock
from tests.fakes.verifier import TRUST_DOMAIN, Verifier, a_result

CLOCK = ManualClock()
PLAN = plan_for(("classic", "hybrid"))
CA = make_ca("a test")


def made(folder: Path, tpm: DrawerTpm) -> Identity:
    (folder / "ca.pem").write_bytes(CA.cert_pem)
    return Identity(folder, tpm, ca=folder / "ca.pem", stores=(FileKeys(),))


def take(identity: Identity, verifier: Verifier, host: HostId = A) -> KeySet:
    from datetime import timedelta

    keys = identity.keys(CLOCK.now(), PLAN)
    now = CLOCK.now().replace(microsecond=0)
    result = a_result(host=host, keys=keys.bound, issued=now, expires=now + timedelta(minutes=5))
    svid = issue_svid(CA, host, TRUST_DOMAIN, keys.tls.public.data, result.expires)
    identity.take(svid, encode(result, TRUST_DOMAIN, verifier.signers), keys)
    return keys


def test_a_missing_file_is_no_existing_one(tmp_path: Path) -> None:
    assert not made(tmp_path, DrawerTpm()).open_existing()


def test_keys_come_back_in_the_next_life(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    first = made(tmp_path, tpm)
    first.create((0, 7))
    keys = first.keys(CLOCK.now(), PLAN)
    first.close()
    second = made(tmp_path, tpm)
    assert second.open_existing()
    assert second.keys(CLOCK.now(), PLAN).bound == keys.bound
    assert stat.S_IMODE((tmp_path / STATE).stat().st_mode) == 0o600


def test_another_state_of_the_platform_opens_nothing_and_makes_nothing(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    made(tmp_path, tpm).create((0, 7))
    before = (tmp_path / STATE).read_bytes()
    tpm.state = b"changed"
    with pytest.raises(DeniedError) as caught:
        made(tmp_path, tpm).open_existing()
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    assert "move the state file away" in str(caught.value)
    assert (tmp_path / STATE).read_bytes() == before
    tpm.state = b"approved"
    assert made(tmp_path, tpm).open_existing()


def test_a_spoilt_file_is_said_and_kept(tmp_path: Path) -> None:
    (tmp_path / STATE).write_bytes(b"no database")
    with pytest.raises(DeniedError) as caught:
        made(tmp_path, DrawerTpm()).open_existing()
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    assert (tmp_path / STATE).read_bytes() == b"no database"


def test_an_approved_new_state_gets_the_key_sealed_anew(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    tpm.state = b"updated and approved"
    identity.keep_sealed((0, 7))
    identity.close()
    assert made(tmp_path, tpm).open_existing()


def test_a_change_of_state_that_is_approved_beforehand_loses_nothing(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    keys = identity.keys(CLOCK.now(), PLAN)
    planned = b"planned".ljust(32, b"\0")
    identity.keep_sealed((0, 7), (tpm.pcr_digest(()), planned))
    identity.close()
    for state in (b"planned", b"approved"):
        tpm.state = state
        later = made(tmp_path, tpm)
        assert later.open_existing()
        assert later.keys(CLOCK.now(), PLAN).bound == keys.bound
        later.close()
    tpm.state = b"another"
    with pytest.raises(DeniedError) as caught:
        made(tmp_path, tpm).open_existing()
    assert caught.value.reason is Reason.SEALED_STATE_LOST


def test_a_state_that_is_no_longer_approved_opens_nothing(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    identity.keep_sealed((0, 7), (b"planned".ljust(32, b"\0"),))
    identity.keep_sealed((0, 7))
    identity.close()
    tpm.state = b"planned"
    with pytest.raises(DeniedError):
        made(tmp_path, tpm).open_existing()


def test_what_is_sealed_already_is_not_sealed_again(tmp_path: Path) -> None:
    tpm = DrawerTpm()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    planned = b"planned".ljust(32, b"\0")
    identity.keep_sealed((0, 7), (planned,))
    before = len(tpm._sealed)
    identity.keep_sealed((0, 7), (planned, tpm.pcr_digest(())))
    assert len(tpm._sealed) == before


def test_the_svid_is_written_with_its_key_for_the_owner_alone(tmp_path: Path) -> None:
    identity = made(tmp_path, DrawerTpm())
    identity.create((0, 7))
    keys = take(identity, Verifier())
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    private = load_pem_private_key((tmp_path / KEY).read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE).read_bytes())
    assert certificate.public_key() == private.public_key()
    assert identity.has_context
    assert keys.tls.private_bytes() not in (tmp_path / STATE).read_bytes()


def test_a_renewal_keeps_the_context_object(tmp_path: Path) -> None:
    identity, verifier = made(tmp_path, DrawerTpm()), Verifier()
    identity.create((0, 7))
    take(identity, verifier)
    context = identity.context()
    take(identity, verifier)
    assert identity.context() is context


def test_the_end_of_the_certificate_is_that_of_the_one_which_is_shown(tmp_path: Path) -> None:
    identity, verifier = made(tmp_path, DrawerTpm()), Verifier()
    assert identity.certificate_end is None
    identity.create((0, 7))
    take(identity, verifier)
    shown = x509.load_pem_x509_certificate((tmp_path / CERTIFICATE).read_bytes())
    assert identity.certificate_end == shown.not_valid_after_utc
    identity.forget_context()
    assert identity.certificate_end is None


def test_a_living_result_lets_the_next_life_go_on(tmp_path: Path) -> None:
    tpm, verifier = DrawerTpm(), Verifier()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    take(identity, verifier)
    identity.close()
    later = made(tmp_path, tpm)
    later.open_existing()
    result = later.last_result(verifier.trust)
    assert result is not None
    assert not later.go_on(result, result.expires)
    assert not later.has_context
    assert later.go_on(result, CLOCK.now())
    assert later.has_context
    assert later.last_result(Verifier().trust) is None


def test_without_a_certificate_there_is_no_context(tmp_path: Path) -> None:
    with pytest.raises(DeniedError) as caught:
        made(tmp_path, DrawerTpm()).context()
    assert caught.value.reason is Reason.NOT_ATTESTED


def test_keys_whose_time_is_over_leave_ring_and_file(tmp_path: Path) -> None:
    from datetime import timedelta

    tpm = DrawerTpm()
    identity = made(tmp_path, tpm)
    identity.create((0, 7))
    first = CLOCK.now()
    for hours in (0, 20, 40):
        identity.keys(first + timedelta(hours=hours), PLAN)
    identity.erase_keys(first + timedelta(hours=41), timedelta(days=7))
    records = identity.state.keys()
    kinds = [record.kind for record in records]
    assert (kinds.count("sign"), kinds.count("tls"), kinds.count("hpke")) == (4, 2, 6)
    identity.erase_keys(first + timedelta(days=10), timedelta(days=7))
    assert len(identity.state.keys()) == 5
    assert len(identity.keyring.hpke) == 2


def test_a_context_that_is_forgotten_is_made_anew_from_its_files(tmp_path: Path) -> None:
    identity = made(tmp_path, DrawerTpm())
    identity.create((0, 7))
    take(identity, Verifier())
    before = identity.context()
    identity.forget_context()
    with pytest.raises(DeniedError) as caught:
        identity.context()
    assert caught.value.reason is Reason.NOT_ATTESTED
    (tmp_path / "ca.pem").write_bytes(make_ca("another").cert_pem)
    take(identity, Verifier())
    assert identity.context() is not before
    (trusted,) = identity.context().get_ca_certs()
    assert "another" in str(trusted["subject"])
