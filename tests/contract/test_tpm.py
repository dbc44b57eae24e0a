"""One suite for ports.Tpm: the fake and a real software TPM must pass it alike."""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

import pytest

from fabric.attest.appraise import Appraisal, Counters, Enrolment, Question, appraise, enrol
from fabric.attest.credential import make_credential
from fabric.attest.ek import EndorsementKey, check_ek
from fabric.attest.evidence import parse_attest
from fabric.attest.keys import Alg, verify
from fabric.attest.resident import check_resident
from fabric.attest.tally import START, TallyReport, check_tally, extended
from fabric.demo.swtpm import SoftTpm, TpmCa
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError, UsageError
from fabric.model.label import Label
from fabric.policy.types import Approval
from fabric.ports import Tpm
from fabric.store.tpm_keys import TpmKeys
from fabric.tpm.device import TpmDevice
from tests.fakes.tpm import FakeTpm, FakeTpmCa, await_tpm
from tests.fakes.verifier import HOST

PCRS = (0, 1, 2, 3, 4, 5, 7, 8, 9, 14)
EXTRA = bytes(range(32))
NOW = datetime.now(UTC)


class ExtendableTpm(Tpm, Protocol):
    """The port and the hand that plays firmware."""

    def unsafe_extend(self, pcr: int, digest: bytes) -> None: ...


@dataclass(frozen=True, kw_only=True)
class World:
    """A TPM under test, its manufacturer, and its power switch."""

    tpm: ExtendableTpm
    ca_pem: bytes
    power_off: Callable[[], None]
    power_on: Callable[[], None]

    def enrolled(self) -> tuple[EndorsementKey, Enrolment]:
        """What an authority learns at enrolment."""
        ek = check_ek(self.tpm.ek_certificate(), self.ca_pem, datetime.now(UTC))
        return ek, enrol(HOST, ek, self.tpm.ak_public())

    def appraised(self, counters: Counters | None = None) -> Appraisal:
        """A quote of the state that is approved as it stands now."""
        _, enrolment = self.enrolled()
        approval = Approval(
            host=HOST,
            number=1,
            ek_sha256=enrolment.ek_sha256,
            ak_name=enrolment.ak_name,
            security_level=4,
            clearance=Label("secret"),
            pcrs=PCRS,
            digests=(self.tpm.pcr_digest(PCRS),),
            not_before=NOW,
            not_after=NOW,
        )
        question = Question(
            enrolment=enrolment, approval=approval, qualifying=EXTRA, counters=counters
        )
        quote = self.tpm.quote(PCRS, EXTRA)
        return appraise(quote.attest, quote.signature, question=question)


Make = Callable[[], World]


def _fake(ca: FakeTpmCa) -> World:
    tpm = FakeTpm(ca)

    def power_off() -> None:
        tpm.available = False

    def power_on() -> None:
        tpm.available = True
        tpm.reboot(clean=False)

    return World(tpm=tpm, ca_pem=ca.pem, power_off=power_off, power_on=power_on)


def _real(soft: SoftTpm, ca: TpmCa) -> World:
    tpm = TpmDevice(soft.tcti)

    def power_on() -> None:
        soft.start()
        await_tpm(tpm)

    await_tpm(tpm)
    return World(tpm=tpm, ca_pem=ca.pem, power_off=lambda: soft.stop(kill=True), power_on=power_on)


@pytest.fixture(params=["fake", pytest.param("swtpm", marks=pytest.mark.integration)])
def make(request: pytest.FixtureRequest) -> Make:
    """Make TPMs of one kind, all of one manufacturer."""
    if request.param == "fake":
        ca = FakeTpmCa()
        return lambda: _fake(ca)
    soft_tpm = request.getfixturevalue("soft_tpm")
    tpm_ca = request.getfixturevalue("tpm_ca")
    return lambda: _real(soft_tpm("contract"), tpm_ca)


@pytest.fixture
def world(make: Make) -> World:
    """One TPM."""
    return make()


def test_endorsement_certificate_is_the_manufacturers(world: World) -> None:
    ek, _ = world.enrolled()
    assert ek.sha256 == hashlib.sha256(world.tpm.ek_certificate()).digest()


def test_attestation_key_is_a_restricted_one_and_stays(world: World) -> None:
    assert world.tpm.ak_public() == world.tpm.ak_public()
    world.enrolled()


def test_credential_for_its_own_keys_activates(world: World) -> None:
    ek, enrolment = world.enrolled()
    secret = secrets.token_bytes(32)
    credential = make_credential(ek.public, enrolment.ak_name, secret)
    assert world.tpm.activate(*credential) == secret


def test_credential_for_another_attestation_key_is_refused(world: World) -> None:
    ek, _ = world.enrolled()
    credential = make_credential(ek.public, b"\x00\x0b" + bytes(32), bytes(32))
    with pytest.raises(DeniedError) as denied:
        world.tpm.activate(*credential)
    assert denied.value.reason is Reason.ACTIVATION_FAILED


def test_credential_for_another_tpm_is_refused(make: Make) -> None:
    first, second = make(), make()
    ek, _ = first.enrolled()
    _, enrolment = second.enrolled()
    for world in (first, second):
        with pytest.raises(DeniedError) as denied:
            world.tpm.activate(*make_credential(ek.public, enrolment.ak_name, bytes(32)))
        assert denied.value.reason is Reason.ACTIVATION_FAILED


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 4, bytes(600)], ids=len)
def test_credential_that_is_garbage_is_refused(world: World, garbage: bytes) -> None:
    ek, enrolment = world.enrolled()
    credential, secret = make_credential(ek.public, enrolment.ak_name, bytes(32))
    for pair in ((garbage, secret), (credential, garbage)):
        with pytest.raises(DeniedError) as denied:
            world.tpm.activate(*pair)
        assert denied.value.reason is Reason.ACTIVATION_FAILED


def test_quote_of_the_state_as_it_is_passes_appraisal(world: World) -> None:
    world.tpm.unsafe_extend(4, hashlib.sha256(b"boot loader").digest())
    appraisal = world.appraised()
    assert appraisal.pcr_digest == world.tpm.pcr_digest(PCRS)


def test_quote_is_over_exactly_the_selection_in_any_order(world: World) -> None:
    attest = parse_attest(world.tpm.quote((7, 0, 23), EXTRA).attest)
    assert attest.selection == ((0x000B, frozenset({0, 7, 23})),)
    assert attest.pcr_digest == world.tpm.pcr_digest((23, 0, 7))


def test_quote_carries_up_to_64_bytes_of_qualifying_data(world: World) -> None:
    assert parse_attest(world.tpm.quote((0,), bytes(64)).attest).extra == bytes(64)


def test_too_much_qualifying_or_sealed_data_is_the_callers_mistake(world: World) -> None:
    calls: list[Callable[[], object]] = [
        lambda: world.tpm.quote((0,), bytes(65)),
        lambda: world.tpm.certify_tally(bytes(65)),
        lambda: world.tpm.seal(b"", PCRS),
        lambda: world.tpm.seal(bytes(129), PCRS),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call()


def test_extending_a_pcr_changes_the_digest_as_specified(world: World) -> None:
    world.tpm.unsafe_extend(9, b"\1" * 32)
    value = hashlib.sha256(bytes(32) + b"\1" * 32).digest()
    assert world.tpm.pcr_digest((9,)) == hashlib.sha256(value).digest()


def test_tally_starts_at_zero_and_extends_as_specified(world: World) -> None:
    assert world.tpm.tally() == START
    world.tpm.extend_tally(EXTRA)
    world.tpm.extend_tally(bytes(32))
    assert world.tpm.tally() == extended(extended(START, EXTRA), bytes(32))


def test_certified_tally_passes_the_verifier_and_outlives_a_power_cut(world: World) -> None:
    _, enrolment = world.enrolled()
    last = START
    for step in (b"a" * 32, b"b" * 32):
        world.tpm.extend_tally(step)
        world.power_off()
        world.power_on()
        quote = world.tpm.certify_tally(EXTRA)
        report = TallyReport(attest=quote.attest, signature=quote.signature, step=step)
        last = check_tally(report, enrolment, qualifying=EXTRA, last=last)
    assert last == world.tpm.tally()


def test_resident_key_signs_and_its_proof_passes_the_verifier(world: World) -> None:
    """MUST-9.21, MUST-9.22, MUST-9.23."""
    store = TpmKeys(world.tpm)
    signer, reference = store.make(Alg.ESP256)
    for data in (b"", b"block", bytes(100_000)):
        verify(signer.public, signer.sign(data), data)
    _, enrolment = world.enrolled()
    proof = store.certify(reference, EXTRA)
    check_resident(proof, (signer.public,), enrolment, qualifying=EXTRA)
    with pytest.raises(PeerError) as refused:
        check_resident(proof, (signer.public,), enrolment, qualifying=bytes(32))
    assert refused.value.reason is Reason.BINDING_MISMATCH


def test_resident_key_outlives_a_power_cut(world: World) -> None:
    store = TpmKeys(world.tpm)
    signer, reference = store.make(Alg.ESP256)
    world.power_off()
    world.power_on()
    again = TpmKeys(world.tpm).load(Alg.ESP256, reference)
    assert again.public == signer.public
    verify(signer.public, again.sign(b"block"), b"block")


def test_resident_key_of_another_tpm_signs_nothing(make: Make) -> None:
    first, second = make(), make()
    key = first.tpm.make_key()
    for call in (
        lambda: second.tpm.sign_with(key, bytes(32)),
        lambda: second.tpm.certify_key(key, EXTRA),
    ):
        with pytest.raises(DeniedError) as denied:
            call()
        assert denied.value.reason is Reason.SEALED_STATE_LOST


def test_resident_key_that_was_changed_signs_nothing(world: World) -> None:
    key, other = world.tpm.make_key(), world.tpm.make_key()
    for wrong in (
        replace(key, public=other.public),
        replace(key, private=b""),
        replace(key, private=key.private[:-1] + bytes([key.private[-1] ^ 1])),
        replace(key, public=b"\x00\x01"),
    ):
        with pytest.raises(DeniedError) as denied:
            world.tpm.sign_with(wrong, bytes(32))
        assert denied.value.reason is Reason.SEALED_STATE_LOST


@pytest.mark.parametrize("size", [1, 128])
def test_sealed_data_opens_while_the_state_lasts(world: World, size: int) -> None:
    data = secrets.token_bytes(size)
    blob = world.tpm.seal(data, PCRS)
    assert size < 8 or data not in blob
    assert world.tpm.unseal(blob) == data
    world.tpm.unsafe_extend(15, bytes(32))
    assert world.tpm.unseal(blob) == data


def test_sealed_data_is_lost_after_a_change_of_state(world: World) -> None:
    blob = world.tpm.seal(b"secret", PCRS)
    world.tpm.unsafe_extend(14, bytes(32))
    with pytest.raises(DeniedError) as denied:
        world.tpm.unseal(blob)
    assert denied.value.reason is Reason.SEALED_STATE_LOST
    assert world.tpm.unseal(world.tpm.seal(b"again", PCRS)) == b"again"


def test_data_sealed_for_a_state_to_come_opens_then_and_not_before(world: World) -> None:
    change, other = hashlib.sha256(b"new loader").digest(), hashlib.sha256(b"other").digest()
    value = hashlib.sha256(bytes(32) + change).digest()
    planned = hashlib.sha256(bytes(32) + value).digest()  # over PCRs 0 and 4
    blob = world.tpm.seal(b"secret", (0, 4), planned)
    for step in (None, change):
        if step is not None:
            world.tpm.unsafe_extend(4, step)
            assert world.tpm.pcr_digest((0, 4)) == planned
            assert world.tpm.unseal(blob) == b"secret"
            world.tpm.unsafe_extend(4, other)
        with pytest.raises(DeniedError) as denied:
            world.tpm.unseal(blob)
        assert denied.value.reason is Reason.SEALED_STATE_LOST


def test_sealed_data_does_not_open_in_another_tpm(make: Make) -> None:
    first, second = make(), make()
    blob = first.tpm.seal(b"secret", PCRS)
    with pytest.raises(DeniedError) as denied:
        second.tpm.unseal(blob)
    assert denied.value.reason is Reason.SEALED_STATE_LOST


def test_changed_blob_does_not_open(world: World) -> None:
    blob = world.tpm.seal(b"secret", PCRS)
    for at in range(0, len(blob), 9):
        with pytest.raises(DeniedError) as denied:
            world.tpm.unseal(blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
        assert denied.value.reason is Reason.SEALED_STATE_LOST
    for garbage in (b"", b"\x83\x81\x00\x40\x40", b"\x83\x81\x18\x63\x40\x40", b"\x83\x00\x40\x40"):
        with pytest.raises(DeniedError):
            world.tpm.unseal(garbage)


def test_tpm_without_power_is_unavailable_and_comes_back_as_itself(world: World) -> None:
    before = world.tpm.ak_public()
    blob = world.tpm.seal(b"secret", PCRS)
    key = world.tpm.make_key()
    world.power_off()
    for call in (
        world.tpm.ek_certificate,
        world.tpm.ak_public,
        lambda: world.tpm.activate(b"", b""),
        lambda: world.tpm.quote(PCRS, EXTRA),
        lambda: world.tpm.pcr_digest(PCRS),
        world.tpm.tally,
        lambda: world.tpm.extend_tally(EXTRA),
        lambda: world.tpm.certify_tally(EXTRA),
        world.tpm.make_key,
        lambda: world.tpm.sign_with(key, bytes(32)),
        lambda: world.tpm.certify_key(key, EXTRA),
        lambda: world.tpm.seal(b"data", PCRS),
        lambda: world.tpm.unseal(blob),
    ):
        with pytest.raises(UnavailableError) as unavailable:
            call()
        assert unavailable.value.reason is Reason.TPM_UNAVAILABLE
    world.power_on()
    assert world.tpm.ak_public() == before
    assert world.tpm.unseal(blob) == b"secret"


def test_power_cuts_do_not_look_like_a_rollback(world: World) -> None:
    seen = world.appraised().counters
    for _ in range(4):  # more than the three after which a TPM may lock its keys
        world.power_off()
        world.power_on()
        after = world.appraised(seen).counters
        assert after.resets > seen.resets
        seen = after
