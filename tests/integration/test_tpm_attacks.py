"""Attacks and faults at a real TPM, against the real service: docs/threat-model.md names these."""

import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fabric.agent.identity import Identity
from fabric.agent.tally import Tally
from fabric.attest import evidence
from fabric.attest.appraise import enrol
from fabric.attest.ek import check_ek
from fabric.attest.messages import AttestRequest, Challenge
from fabric.attest.tally import TallyReport
from fabric.demo.swtpm import SoftTpm, TpmCa
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason
from fabric.ports import Quote
from fabric.tpm.device import TpmDevice
from tests.fakes import boot
from tests.fakes.authority_site import ADMIN, CALLER, PCRS, SENDER, AuthoritySite, Machine
from tests.fakes.tpm import await_tpm

pytestmark = pytest.mark.integration
Soft = Callable[..., SoftTpm]


def powered(soft: SoftTpm) -> TpmDevice:
    """The device of a TPM that is on."""
    device = TpmDevice(soft.tcti)
    await_tpm(device)
    return device


def power_cut(soft: SoftTpm, device: TpmDevice) -> None:
    """Off without a word, and on again."""
    soft.stop(kill=True)
    soft.start()
    await_tpm(device)


def snapshot(soft: SoftTpm, name: str, ca: TpmCa) -> SoftTpm:
    """A copy of everything a TPM has on disk, not started yet."""
    folder = soft.folder.with_name(f"{soft.folder.name}-{name}")
    shutil.copytree(soft.folder, folder, ignore=shutil.ignore_patterns("s", "s.ctrl", ".lock"))
    return SoftTpm(folder, name, ca)


def use_a_key_under_lockout(tcti: str) -> None:
    """Sign with a key that is not noDA: an unclean end after that counts as a failed try."""
    from tpm2_pytss import (
        ESAPI,
        ESYS_TR,
        TPM2_ALG,
        TPM2B_PUBLIC,
        TPMT_SIG_SCHEME,
        TPMT_TK_HASHCHECK,
    )

    attributes = evidence.AK_ATTRIBUTES & ~0x0001_0400  # neither restricted nor noDA
    with ESAPI(tcti) as esapi:
        template = TPM2B_PUBLIC.parse("ecc256:ecdsa-sha256:null", objectAttributes=attributes)
        key, *_ = esapi.create_primary(None, template, ESYS_TR.OWNER)
        try:
            ticket = TPMT_TK_HASHCHECK()
            ticket.tag, ticket.hierarchy = 0x8024, 0x4000_0007
            esapi.sign(key, bytes(32), TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL), ticket)
        finally:
            esapi.flush_context(key)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    async with site.running():
        yield site
    site.close()


@pytest.fixture
def soft(soft_tpm: Soft) -> SoftTpm:
    return soft_tpm("host")


@pytest.fixture
async def host(site: AuthoritySite, soft: SoftTpm, tpm_ca: TpmCa) -> Machine:
    """An enrolled machine with a real TPM."""
    machine = Machine(SENDER, powered(soft))
    site.clock.advance(10)  # its certificate was made after the site
    site.adopt(machine, tpm_ca)
    await site.enrol(machine)
    return machine


async def refused(site: AuthoritySite, machine: Machine) -> Reason:
    with pytest.raises((DeniedError, PeerError)) as error:
        await site.attest(machine)
    return error.value.reason


async def test_running_clone_is_caught_at_its_first_renewal(
    site: AuthoritySite, host: Machine, soft: SoftTpm, tpm_ca: TpmCa
) -> None:
    await site.attest(host)
    soft.stop()
    copy = snapshot(soft, "clone", tpm_ca)
    soft.start()
    try:
        copy.start()
        clone = Machine(SENDER, powered(copy))
        clone.keys = host.keys  # memory was copied too
        await_tpm(host.tpm)
        assert clone.ak_name == host.ak_name
        await site.attest(host)
        assert await refused(site, clone) is Reason.FORK
    finally:
        copy.stop()
    assert site.noticed == ["suspension"]
    assert await refused(site, host) is Reason.HOST_SUSPENDED


async def test_restored_snapshot_is_refused_and_suspended(
    site: AuthoritySite, host: Machine, soft: SoftTpm, tpm_ca: TpmCa
) -> None:
    await site.attest(host)
    soft.stop()
    old = snapshot(soft, "old", tpm_ca)
    soft.start()
    await_tpm(host.tpm)
    await site.attest(host)
    soft.stop()
    try:
        old.start()
        restored = Machine(SENDER, powered(old))
        assert await refused(site, restored) in (Reason.FORK, Reason.COUNTERS_WENT_BACK)
    finally:
        old.stop()
    assert site.noticed == ["suspension"]


async def test_cleared_tpm_must_enrol_anew_and_keeps_no_approval(
    site: AuthoritySite, host: Machine
) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR

    await site.attest(host)
    before = host.ak_name
    with ESAPI(host.tpm.tcti) as esapi:
        esapi.clear(ESYS_TR.LOCKOUT)
    assert host.ak_name != before
    assert await refused(site, host) is Reason.BAD_SIGNATURE
    with pytest.raises(DeniedError) as conflict:
        await site.enrol(host)
    assert conflict.value.reason is Reason.ENROLMENT_CONFLICT
    await site.service.forget(SENDER, why="cleared", caller=ADMIN)
    await site.enrol(host)
    assert await refused(site, host) is Reason.NOT_APPROVED  # the approval names the old key
    site.approve(host, number=2)
    site.publish()
    await site.attest(host)


async def test_three_power_cuts_lock_the_tpm_and_not_the_host(
    site: AuthoritySite, host: Machine, soft: SoftTpm
) -> None:
    """Clock back and safe = 0 are honest after a power cut; the keys are outside the lockout."""
    from tpm2_pytss import TSS2_Exception

    blob = host.tpm.seal(b"state key", PCRS)
    for _ in range(3):
        await site.attest(host)
        use_a_key_under_lockout(host.tpm.tcti)
        power_cut(soft, host.tpm)
    with pytest.raises(TSS2_Exception, match="DA lockout"):
        use_a_key_under_lockout(host.tpm.tcti)
    assert not evidence.parse_attest(host.tpm.quote(PCRS, b"").attest).safe
    await site.attest(host)
    assert host.tpm.unseal(blob) == b"state key"
    assert host.tpm.unseal(host.tpm.seal(b"another", PCRS)) == b"another"
    assert site.noticed == []


async def test_agent_that_dies_between_extension_and_report_catches_up(
    site: AuthoritySite, host: Machine, soft: SoftTpm, tmp_path: Path
) -> None:
    """Power fails right after TPM2_NV_Extend, three times in a row."""
    for _ in range(3):
        challenge = Challenge.decode(await site.challenge(host))
        Tally(tmp_path, host.tpm).report(challenge, host.extra(challenge))
        power_cut(soft, host.tpm)
    answer = await site.challenge(host)
    challenge = Challenge.decode(answer)
    report = Tally(tmp_path, host.tpm).report(challenge, host.extra(challenge))
    await site.service.attest(host.attest_request(answer, tally=report), CALLER)
    assert site.noticed == []


async def test_replayed_quote_of_an_earlier_session_is_refused(
    site: AuthoritySite, host: Machine
) -> None:
    first = Challenge.decode(await site.challenge(host))
    old = host.tpm.quote(first.pcrs, host.extra(first))
    body = host.attest_request(await site.challenge(host), quote=old)
    with pytest.raises(PeerError) as error:
        await site.service.attest(body, CALLER)
    assert error.value.reason is Reason.BINDING_MISMATCH


@pytest.mark.parametrize("encode", [bytes.hex, lambda data: data.hex().upper()])
async def test_nonce_in_another_encoding_is_refused(
    site: AuthoritySite, host: Machine, encode: Callable[[bytes], str]
) -> None:
    answer = await site.challenge(host)
    challenge = Challenge.decode(answer)
    quote = host.tpm.quote(challenge.pcrs, encode(host.extra(challenge)).encode())
    with pytest.raises(PeerError) as error:
        await site.service.attest(host.attest_request(answer, quote=quote), CALLER)
    assert error.value.reason is Reason.BINDING_MISMATCH


@pytest.mark.parametrize(
    "selection", ["sha256:0", "sha256:0,1,7,8", "sha1:0,1,7", "sha256:0,1,7+sha1:0"]
)
async def test_real_quote_over_other_pcrs_or_banks_is_refused(
    site: AuthoritySite, host: Machine, selection: str
) -> None:
    from tpm2_pytss import ESAPI

    from fabric.tpm.keys import AK_HANDLE

    answer = await site.challenge(host)
    with ESAPI(host.tpm.tcti) as esapi:
        ak = esapi.tr_from_tpmpublic(AK_HANDLE)
        attest, signature = esapi.quote(ak, selection, host.extra(Challenge.decode(answer)))
    quote = Quote(attest=bytes(attest), signature=signature.marshal())
    with pytest.raises(PeerError) as error:
        await site.service.attest(host.attest_request(answer, quote=quote), CALLER)
    assert error.value.reason is Reason.EVIDENCE_REFUSED


async def test_attestation_key_of_another_tpm_cannot_be_enrolled(
    site: AuthoritySite, host: Machine, soft_tpm: Soft
) -> None:
    """EK of one TPM, AK of another: neither can answer, and no error holds a secret."""
    other = Machine(SENDER, powered(soft_tpm("other")))
    await site.service.forget(SENDER, why="test", caller=ADMIN)
    relayed = replace_ak(host, other.tpm.ak_public())
    answer = await site.service.enrol(relayed, CALLER)
    for machine in (host, other):
        with pytest.raises(DeniedError) as error:
            machine.activate_request(answer)
        assert error.value.reason is Reason.ACTIVATION_FAILED


def replace_ak(machine: Machine, ak_public: bytes) -> bytes:
    """An enrolment request that shows another attestation key."""
    from fabric.attest.messages import EnrolRequest

    request = EnrolRequest.decode(machine.enrol_request())
    return replace(request, ak_public=ak_public).encode()


async def test_unrestricted_key_cannot_be_enrolled_and_a_restricted_one_signs_no_forgery(
    site: AuthoritySite, host: Machine, tpm_ca: TpmCa
) -> None:
    from tpm2_pytss import (
        ESAPI,
        ESYS_TR,
        TPM2_ALG,
        TPM2B_PUBLIC,
        TPMA_OBJECT,
        TPMT_SIG_SCHEME,
        TPMT_TK_HASHCHECK,
        TSS2_Exception,
    )

    from fabric.tpm.keys import AK_HANDLE

    forged = host.tpm.quote(PCRS, b"forged by software").attest
    digest = hashlib.sha256(forged).digest()
    with ESAPI(host.tpm.tcti) as esapi:
        free = TPM2B_PUBLIC.parse(
            "ecc256:ecdsa-sha256:null",
            objectAttributes=evidence.AK_ATTRIBUTES & ~int(TPMA_OBJECT.RESTRICTED),
        )
        key, public, *_ = esapi.create_primary(None, free, ESYS_TR.ENDORSEMENT)
        scheme, ticket = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL), TPMT_TK_HASHCHECK()
        ticket.tag, ticket.hierarchy = 0x8024, 0x40000007
        assert esapi.sign(key, digest, scheme, ticket).marshal()
        with pytest.raises(TSS2_Exception, match="ticket"):
            esapi.sign(esapi.tr_from_tpmpublic(AK_HANDLE), digest, scheme, ticket)
        esapi.flush_context(key)
    ek = check_ek(host.tpm.ek_certificate(), tpm_ca.pem, site.clock.now())
    with pytest.raises(DeniedError) as denied:
        enrol(SENDER, ek, public.marshal())
    assert denied.value.reason is Reason.EVIDENCE_REFUSED


async def test_tpm_of_a_rogue_manufacturer_cannot_be_enrolled(
    site: AuthoritySite, host: Machine, soft_tpm: Soft, tmp_path: Path
) -> None:
    rogue = Machine(SENDER, powered(soft_tpm("rogue", TpmCa(tmp_path / "rogue").create())))
    site.approve(rogue)
    site.publish()
    with pytest.raises(DeniedError) as denied:
        await site.enrol(rogue)
    assert denied.value.reason is Reason.EVIDENCE_REFUSED


async def test_other_keys_than_the_quoted_ones_are_refused(
    site: AuthoritySite, host: Machine
) -> None:
    from tests.fakes.verifier import HostKeys

    answer = await site.challenge(host)
    challenge = Challenge.decode(answer)
    quote, tally = (
        host.tpm.quote(challenge.pcrs, host.extra(challenge)),
        host.tally_report(challenge),
    )
    host.keys = HostKeys()
    with pytest.raises(PeerError) as error:
        await site.service.attest(host.attest_request(answer, quote, tally), CALLER)
    assert error.value.reason is Reason.BINDING_MISMATCH


def test_only_the_resettable_pcrs_that_no_policy_may_use_can_be_reset(soft: SoftTpm) -> None:
    from tpm2_pytss import ESAPI, ESYS_TR, TSS2_Exception

    device = powered(soft)
    for pcr in (4, 16):
        device.unsafe_extend(pcr, b"\1" * 32)
    with ESAPI(device.tcti) as esapi:
        esapi.pcr_reset(ESYS_TR.PCR16)
        with pytest.raises(TSS2_Exception, match="locality"):
            esapi.pcr_reset(ESYS_TR.PCR4)
    assert device.pcr_digest((16,)) == hashlib.sha256(bytes(32)).digest()


async def test_boot_is_judged_by_its_event_log_at_every_renewal(
    site: AuthoritySite, host: Machine
) -> None:
    good = boot.Boot()
    for item in good.entries[1:]:
        host.tpm.unsafe_extend(item.pcr, item.digest)
    host.event_log = good.log()
    rules = good.rules(boot.PCRS)
    site.approve(host, number=2, pcrs=list(boot.PCRS), digests=[], event_log=rules)
    site.publish()
    await site.attest(host)
    late = boot.entry(9, "EV_IPL", b"module\0", b"an unapproved module")
    host.tpm.unsafe_extend(late.pcr, late.digest)
    assert await refused(site, host) is Reason.EVIDENCE_REFUSED  # the old log is not this state's
    assert site.noticed == []
    host.event_log = boot.Boot(entries=(*good.entries, late)).log()
    assert await refused(site, host) is Reason.STATE_REFUSED
    assert site.noticed == ["suspension"]


def test_state_opens_after_an_approved_change_and_not_after_another(
    soft: SoftTpm, tmp_path: Path
) -> None:
    """Approve B while in A; boot B: the state opens. Boot C: it does not."""
    device = powered(soft)
    loader = hashlib.sha256(b"loader B").digest()
    a = device.pcr_digest((4, 7))
    value = hashlib.sha256(bytes(32) + loader).digest()
    b = hashlib.sha256(value + bytes(32)).digest()
    identity = Identity(tmp_path, device, ca=tmp_path / "ca.pem", stores=())
    identity.create((4, 7))
    identity.state.put("kept", b"what was here")
    identity.keep_sealed((4, 7), (a, b))
    identity.close()
    device.unsafe_extend(4, loader)
    later = Identity(tmp_path, device, ca=tmp_path / "ca.pem", stores=())
    assert later.open_existing()
    assert later.state.get("kept") == b"what was here"
    later.close()
    device.unsafe_extend(4, hashlib.sha256(b"loader C").digest())
    with pytest.raises(DeniedError) as lost:
        Identity(tmp_path, device, ca=tmp_path / "ca.pem", stores=()).open_existing()
    assert lost.value.reason is Reason.SEALED_STATE_LOST


async def test_any_changed_byte_of_the_evidence_is_refused(
    site: AuthoritySite, host: Machine
) -> None:
    """Signed by the host's own keys again, so that only the TPM's signatures can object."""
    answer = await site.challenge(host)
    challenge = Challenge.decode(answer)
    good = AttestRequest.decode(host.attest_request(answer))
    changed = [
        replace(good, quote_attest=flipped(good.quote_attest, at))
        for at in range(0, len(good.quote_attest), 7)
    ]
    changed += [
        replace(good, tally=replace(good.tally, attest=flipped(good.tally.attest, at)))
        for at in range(0, len(good.tally.attest), 7)
    ]
    changed.append(replace(good, tally=replace(good.tally, step=bytes(32))))
    policy = site.policy
    for request in changed:
        judged_refused(site, host, request, challenge)
    assert site.policy is policy


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def judged_refused(
    site: AuthoritySite, host: Machine, request: AttestRequest, challenge: Challenge
) -> None:
    """The judgement alone, so that one challenge serves every change."""
    from fabric.authority.attest_machine import Case, judge
    from fabric.authority.machine import OpenChallenge

    known = site.ledger._ledger.known(host.host)
    opened = OpenChallenge(
        session=challenge.session,
        nonce=challenge.nonce,
        host=host.host,
        expires=site.clock.now(),
    )
    last = known.tally or bytes(32)
    case = Case(
        request=request,
        challenge=opened,
        known=replace(known, tally=last),
        policy=site.policy,
        now=site.clock.now(),
        lifetime_s=None,
    )
    with pytest.raises(FabricError):
        judge(case)


def test_report_of_another_index_with_the_same_value_is_refused(
    soft: SoftTpm, tpm_ca: TpmCa
) -> None:
    """An ordinary NV index can hold any value its owner likes: its name gives it away."""
    from datetime import UTC, datetime

    from tpm2_pytss import (
        ESAPI,
        TPM2_ALG,
        TPM2B_NV_PUBLIC,
        TPMS_NV_PUBLIC,
        TPMT_SIG_SCHEME,
    )

    from fabric.attest.tally import NV_DEFINED, START, check_tally, extended
    from fabric.tpm.keys import AK_HANDLE

    device = powered(soft)
    ek = check_ek(device.ek_certificate(), tpm_ca.pem, datetime.now(UTC))
    enrolment = enrol(SENDER, ek, device.ak_public())
    step = b"s" * 32
    with ESAPI(device.tcti) as esapi:
        area = TPMS_NV_PUBLIC(
            nvIndex=0x0180_FAB2,
            nameAlg=TPM2_ALG.SHA256,
            attributes=NV_DEFINED & ~0xF0,
            dataSize=32,
        )
        index = esapi.nv_define_space(b"", TPM2B_NV_PUBLIC(nvPublic=area))
        esapi.nv_write(index, extended(START, step), 0, index)
        scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
        ak = esapi.tr_from_tpmpublic(AK_HANDLE)
        attest, signature = esapi.nv_certify(ak, index, b"x", scheme, 32, 0, index)
    report = TallyReport(attest=bytes(attest), signature=signature.marshal(), step=step)
    with pytest.raises(PeerError) as refused_:
        check_tally(report, enrolment, qualifying=b"x", last=START)
    assert refused_.value.reason is Reason.EVIDENCE_REFUSED
