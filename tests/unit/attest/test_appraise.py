from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fabric.attest import evidence
from fabric.attest.appraise import (
    Appraisal,
    Counters,
    Enrolment,
    Question,
    appraise,
    check_counters,
    enrol,
)
from fabric.attest.binding import qualifying
from fabric.attest.ek import check_ek, qualified_name
from fabric.authority.attest_machine import SUSPENDING
from fabric.model.errors import DeniedError, FabricError, Malformed, PeerError, Reason
from fabric.model.label import Label
from fabric.policy.event_types import EVENT_TYPES
from fabric.policy.types import Approval, EventStep, PcrRule
from fabric.ports import Quote
from tests.fakes.boot import PCRS as BOOT_PCRS
from tests.fakes.boot import Boot
from tests.fakes.tpm import FakeTpm, public_area, signature
from tests.fakes.verifier import HOST, OTHER, HostKeys

TPM = FakeTpm()
NOW = datetime.now(UTC)
PCRS = (0, 2, 4, 7)
EXTRA = bytes(range(32))
SHA1 = 0x0004


def _enrolment(tpm: FakeTpm = TPM) -> Enrolment:
    return enrol(HOST, check_ek(tpm.ek_certificate(), tpm.ca.pem, NOW), tpm.ak_public())


def _approval(enrolment: Enrolment, tpm: FakeTpm = TPM) -> Approval:
    return Approval(
        host=HOST,
        number=1,
        ek_sha256=enrolment.ek_sha256,
        ak_name=enrolment.ak_name,
        security_level=4,
        clearance=Label("secret"),
        pcrs=PCRS,
        digests=(bytes(32), tpm.pcr_digest(PCRS)),
        not_before=NOW,
        not_after=NOW,
    )


ENROLMENT = _enrolment()
APPROVAL = _approval(ENROLMENT)
QUESTION = Question(enrolment=ENROLMENT, approval=APPROVAL, qualifying=EXTRA, counters=None)


def _appraise(quote: Quote, question: Question = QUESTION) -> Appraisal:
    return appraise(quote.attest, quote.signature, question=question)


def _refused(quote: Quote, question: Question = QUESTION) -> FabricError:
    with pytest.raises((PeerError, DeniedError)) as refused:
        _appraise(quote, question)
    return refused.value


def _lie(**changes: object) -> Quote:
    return TPM.lie(PCRS, EXTRA, **changes)


def test_honest_quote_of_an_approved_state_passes() -> None:
    appraisal = _appraise(TPM.quote(PCRS, EXTRA))
    assert appraisal.level == 4
    assert appraisal.pcr_digest == TPM.pcr_digest(PCRS)
    assert appraisal.counters == Counters(clock=TPM.clock, resets=3, restarts=0, safe=True)


def test_level_is_the_lower_of_approved_and_evidenced() -> None:
    for level in range(1, 6):
        question = replace(QUESTION, approval=replace(APPROVAL, security_level=level))
        assert _appraise(TPM.quote(PCRS, EXTRA), question).level == level


def test_trailing_byte_is_refused_in_quote_and_signature() -> None:
    """MUST-9.1."""
    quote = TPM.quote(PCRS, EXTRA)
    longer = quote.attest + b"\0"
    assert isinstance(_refused(Quote(attest=longer, signature=TPM.sign(longer))), Malformed)
    more = Quote(attest=quote.attest, signature=quote.signature + b"\0")
    assert isinstance(_refused(more), Malformed)


def test_attestation_key_that_was_not_activated_is_refused() -> None:
    software = ec.generate_private_key(ec.SECP256R1())
    swapped = replace(ENROLMENT, ak_public=public_area(software.public_key()))
    attest = TPM.words(PCRS, EXTRA).marshal()
    quote = Quote(attest=attest, signature=signature(software, attest))
    assert _refused(quote, replace(QUESTION, enrolment=swapped)).reason is Reason.NOT_ENROLLED


@pytest.mark.parametrize(
    "attributes",
    [
        evidence.AK_ATTRIBUTES & ~0x0001_0000,
        evidence.AK_ATTRIBUTES & ~0x0000_0002,
        evidence.AK_ATTRIBUTES & ~0x0000_0010,
        evidence.AK_ATTRIBUTES & ~0x0000_0020,
        evidence.AK_ATTRIBUTES & ~0x0000_0400,
        evidence.AK_ATTRIBUTES | 0x0002_0000,
        evidence.AK_ATTRIBUTES | 0x0000_0800,
    ],
    ids=[
        *("unrestricted", "not fixed to its TPM", "not fixed to its parent", "made outside"),
        *("under lockout", "decrypts", "encrypted duplication"),
    ],
)
def test_key_with_other_attributes_is_refused_at_enrolment_and_after(attributes: int) -> None:
    """MUST-9.2."""
    area = public_area(TPM.ak.public_key(), attributes)
    with pytest.raises(DeniedError) as denied:
        enrol(HOST, check_ek(TPM.ek_certificate(), TPM.ca.pem, NOW), area)
    assert denied.value.reason is Reason.EVIDENCE_REFUSED
    name = evidence.parse_ak(area).name
    question = replace(
        QUESTION,
        enrolment=replace(ENROLMENT, ak_public=area, ak_name=name),
        approval=replace(APPROVAL, ak_name=name),
    )
    # Everything else fits: such a key can sign whatever its owner writes.
    forged = _lie(signer=qualified_name(ENROLMENT.ek_name, name))
    error = _refused(forged, question)
    assert error.reason is Reason.EVIDENCE_REFUSED
    assert "restricted" in str(error)


def test_quote_of_another_tpms_key_is_refused() -> None:
    other = FakeTpm(TPM.ca)
    assert _refused(other.quote(PCRS, EXTRA)).reason is Reason.BAD_SIGNATURE


def test_quote_with_a_changed_byte_is_refused_wherever_it_is() -> None:
    quote = TPM.quote(PCRS, EXTRA)
    for at in range(len(quote.attest)):
        changed = quote.attest[:at] + bytes([quote.attest[at] ^ 1]) + quote.attest[at + 1 :]
        error = _refused(Quote(attest=changed, signature=quote.signature))
        assert error.reason in (Reason.BAD_SIGNATURE, Reason.MALFORMED)


def test_sha1_signature_is_refused_though_it_verifies() -> None:
    attest = TPM.words(PCRS, EXTRA).marshal()
    quote = Quote(attest=attest, signature=signature(TPM.ak, attest, SHA1))
    assert _refused(quote).reason is Reason.BAD_SIGNATURE


def test_sha1_signature_that_claims_sha256_is_refused() -> None:
    attest = TPM.words(PCRS, EXTRA).marshal()
    data = signature(TPM.ak, attest, SHA1)
    quote = Quote(attest=attest, signature=data[:2] + b"\x00\x0b" + data[4:])
    assert _refused(quote).reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("head", [b"\x00\x18\x00\x04", b"\x00\x14\x00\x0b", b"\x00\x10\x00\x10"])
def test_good_signature_that_claims_another_algorithm_is_refused(head: bytes) -> None:
    quote = TPM.quote(PCRS, EXTRA)
    error = _refused(Quote(attest=quote.attest, signature=head + quote.signature[4:]))
    assert error.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "change", [{"magic": 0xFF544348}, {"magic": 0}, {"type": 0x8017}, {"type": 0x8014}], ids=str
)
def test_signed_structure_that_is_no_quote_is_refused(change: dict[str, object]) -> None:
    assert _refused(_lie(**change)).reason is Reason.EVIDENCE_REFUSED


@pytest.mark.parametrize("extra", [b"", bytes(32), EXTRA[:-1], EXTRA + b"\0", EXTRA[::-1]])
def test_quote_over_another_nonce_is_refused(extra: bytes) -> None:
    assert _refused(TPM.quote(PCRS, extra)).reason is Reason.BINDING_MISMATCH


def test_quote_that_binds_another_key_is_refused() -> None:
    mine, stolen = HostKeys(), HostKeys()
    bound = [
        qualifying(bytes(32), bytes(16), verifier="v", spiffe="s", keys=keys)
        for keys in (mine.public, (*mine.public[:3], stolen.tls.public))
    ]
    error = _refused(TPM.quote(PCRS, bound[0]), replace(QUESTION, qualifying=bound[1]))
    assert error.reason is Reason.BINDING_MISMATCH


@pytest.mark.parametrize(
    "selection",
    [
        (),
        ((evidence.ALG_SHA256, frozenset[int]()),),
        ((evidence.ALG_SHA256, frozenset(PCRS[:3])),),
        ((evidence.ALG_SHA256, frozenset({*PCRS, 16})),),
        ((evidence.ALG_SHA256, frozenset({0, 2, 4, 8})),),
        ((SHA1, frozenset(PCRS)),),
        ((evidence.ALG_SHA384, frozenset(PCRS)),),
        ((evidence.ALG_SHA256, frozenset(PCRS)), (SHA1, frozenset({0}))),
        ((evidence.ALG_SHA256, frozenset(PCRS)), (evidence.ALG_SHA256, frozenset(PCRS))),
    ],
    ids=[
        *("no bank", "no PCR", "narrowed", "widened", "another", "SHA-1 bank", "SHA-384 bank"),
        *("two banks", "twice"),
    ],
)
def test_quote_over_another_selection_is_refused(
    selection: tuple[tuple[int, frozenset[int]], ...],
) -> None:
    assert _refused(_lie(selection=selection)).reason is Reason.EVIDENCE_REFUSED


def test_approval_over_no_pcrs_lets_nothing_pass() -> None:
    question = replace(QUESTION, approval=replace(APPROVAL, pcrs=()))
    assert _refused(TPM.quote((), EXTRA), question).reason is Reason.EVIDENCE_REFUSED


def test_authentic_quote_of_a_wrong_state_is_the_one_that_suspends() -> None:
    tpm = FakeTpm()
    enrolment = _enrolment(tpm)
    question = replace(QUESTION, enrolment=enrolment, approval=_approval(enrolment, tpm))
    _appraise(tpm.quote(PCRS, EXTRA), question)
    tpm.extend(4, bytes(32))
    error = _refused(tpm.quote(PCRS, EXTRA), question)
    assert isinstance(error, DeniedError)
    assert error.reason is Reason.STATE_REFUSED


@pytest.mark.parametrize(
    "change",
    [{"magic": 0}, {"extra": bytes(32)}, {"selection": ()}],
    ids=["not a quote", "another nonce", "no PCR"],
)
def test_wrong_state_in_a_quote_that_is_not_authentic_suspends_nobody(
    change: dict[str, object],
) -> None:
    assert _refused(_lie(digest=b"\1" * 32, **change)).reason is not Reason.STATE_REFUSED
    foreign = FakeTpm(TPM.ca).lie(PCRS, EXTRA, digest=b"\1" * 32, **change)
    assert _refused(foreign).reason is Reason.BAD_SIGNATURE


def test_quote_by_a_key_that_is_not_the_endorsement_keys_child_is_refused() -> None:
    assert _refused(_lie(signer=b"\x00\x0b" + bytes(32))).reason is Reason.EVIDENCE_REFUSED
    name = evidence.parse_ak(TPM.ak_public()).name
    assert _refused(_lie(signer=name)).reason is Reason.EVIDENCE_REFUSED


@pytest.mark.parametrize(
    "change",
    [{"host": OTHER}, {"ek_sha256": bytes(32)}, {"ak_name": None}, {"ak_name": bytes(34)}],
    ids=["another host", "another TPM", "no key", "another key"],
)
def test_approval_must_name_this_host_tpm_and_key(change: dict[str, object]) -> None:
    approval = replace(APPROVAL, **change)  # type: ignore[arg-type]
    error = _refused(TPM.quote(PCRS, EXTRA), replace(QUESTION, approval=approval))
    assert error.reason is Reason.NOT_APPROVED


OLD = Counters(clock=1_000, resets=4, restarts=2, safe=True)


@pytest.mark.parametrize(
    "new",
    [
        replace(OLD, clock=1_001),
        OLD,
        replace(OLD, restarts=3, clock=1_001),
        replace(OLD, resets=5, restarts=0, clock=1_001),
        replace(OLD, resets=5, restarts=0, clock=10, safe=False),
        replace(OLD, clock=1_001, safe=False),
    ],
    ids=["later", "same", "resumed", "rebooted", "power cut", "after a power cut"],
)
def test_honest_tpm_passes_also_after_a_power_cut(new: Counters) -> None:
    check_counters(new, OLD)


@pytest.mark.parametrize(
    "new",
    [
        replace(OLD, resets=3, clock=2_000),
        replace(OLD, resets=3, restarts=9, clock=2_000),
        replace(OLD, restarts=1, clock=2_000),
        replace(OLD, clock=999),
        replace(OLD, clock=999, safe=False),
        replace(OLD, resets=0, restarts=0, clock=160, safe=True),
        replace(OLD, resets=5, clock=999, safe=True),
    ],
    ids=[
        *("snapshot", "snapshot that resumed", "fewer restarts", "clock alone", "unsafe clock"),
        *("TPM2_Clear", "snapshot rebooted past the mark"),
    ],
)
def test_tpm_whose_time_went_back_is_refused(new: Counters) -> None:
    with pytest.raises(DeniedError) as denied:
        check_counters(new, OLD)
    assert denied.value.reason is Reason.COUNTERS_WENT_BACK


def test_quote_after_a_restored_snapshot_is_refused() -> None:
    tpm = FakeTpm()
    enrolment = _enrolment(tpm)
    tpm.reboot()
    question = replace(QUESTION, enrolment=enrolment, approval=_approval(enrolment, tpm))
    seen = _appraise(tpm.quote(PCRS, EXTRA), question).counters
    tpm.resets -= 1
    error = _refused(tpm.quote(PCRS, EXTRA), replace(question, counters=seen))
    assert error.reason is Reason.COUNTERS_WENT_BACK


def test_quote_after_an_honest_power_cut_passes() -> None:
    tpm = FakeTpm()
    enrolment = _enrolment(tpm)
    question = replace(QUESTION, enrolment=enrolment, approval=_approval(enrolment, tpm))
    seen = _appraise(tpm.quote(PCRS, EXTRA), question).counters
    tpm.reboot(clean=False)
    after = _appraise(tpm.quote(PCRS, EXTRA), replace(question, counters=seen)).counters
    assert after.clock < seen.clock
    _appraise(tpm.quote(PCRS, EXTRA), replace(question, counters=after))


def test_elliptic_endorsement_key_is_appraised_alike() -> None:
    tpm = FakeTpm(elliptic=True)
    enrolment = _enrolment(tpm)
    question = replace(QUESTION, enrolment=enrolment, approval=_approval(enrolment, tpm))
    assert _appraise(tpm.quote(PCRS, EXTRA), question).level == 4


BOOT = Boot()


def booted(boot: Boot) -> FakeTpm:
    """A TPM into which a boot was measured."""
    tpm = TPM.copy()
    tpm.pcrs = {**dict.fromkeys(range(24), bytes(32)), **boot.values()}
    return tpm


def rule_question(log: bytes, boot: Boot = BOOT, digests: tuple[bytes, ...] = ()) -> Question:
    rules = tuple(
        PcrRule(
            pcr=int(str(rule["pcr"])),
            steps=tuple(
                EventStep(
                    type=EVENT_TYPES[step["type"]],
                    digests=tuple(map(bytes.fromhex, step["digests"])),
                    is_optional=False,
                )
                for step in rule["steps"]  # type: ignore[attr-defined]
            ),
        )
        for rule in boot.rules(BOOT_PCRS)
    )
    approval = replace(APPROVAL, pcrs=BOOT_PCRS, digests=digests, event_rules=rules)
    return replace(QUESTION, approval=approval, event_log=log)


def test_boot_that_keeps_its_rules_passes_without_a_listed_digest() -> None:
    """MUST-9.12."""
    quote = booted(BOOT).quote(BOOT_PCRS, EXTRA)
    assert _appraise(quote, rule_question(BOOT.log())).level == 4


def test_listed_digest_passes_beside_rules_and_without_a_log() -> None:
    other = BOOT.with_entry(9, measured=b"loader 2")
    quote = booted(other).quote(BOOT_PCRS, EXTRA)
    _appraise(quote, rule_question(b"", digests=(other.digest(BOOT_PCRS),)))


def test_replayed_boot_that_breaks_a_rule_is_a_refused_state() -> None:
    """MUST-9.12."""
    evil = BOOT.with_entry(9, measured=b"an unapproved loader")
    quote = booted(evil).quote(BOOT_PCRS, EXTRA)
    assert _refused(quote, rule_question(evil.log())).reason is Reason.STATE_REFUSED


@pytest.mark.parametrize("log", [b"", BOOT.log(), BOOT.log()[:-1], b"garbage"], ids=len)
def test_log_that_is_missing_untrue_or_garbage_shows_nothing_and_suspends_nobody(
    log: bytes,
) -> None:
    """MUST-9.13."""
    evil = BOOT.with_entry(9, measured=b"an unapproved loader")
    quote = booted(evil).quote(BOOT_PCRS, EXTRA)
    reason = _refused(quote, rule_question(log)).reason
    assert reason in (Reason.EVIDENCE_REFUSED, Reason.MALFORMED)
    assert reason not in SUSPENDING


def test_log_without_rules_changes_nothing() -> None:
    quote = booted(BOOT).quote(BOOT_PCRS, EXTRA)
    question = rule_question(BOOT.log())
    question = replace(question, approval=replace(question.approval, event_rules=()))
    assert _refused(quote, question).reason is Reason.STATE_REFUSED
