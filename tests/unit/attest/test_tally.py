"""The tally's report: one step further, by this TPM, for this challenge; all else is refused."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fabric.attest import evidence, tally
from fabric.attest.appraise import enrol
from fabric.attest.ek import check_ek
from fabric.attest.tally import START, TallyReport, check_tally, extended, is_heard
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason
from tests.fakes.tpm import FakeTpm, public_area, signature
from tests.fakes.verifier import HOST

TPM = FakeTpm(elliptic=True)
EXTRA = bytes(range(32))
STEP = bytes([7]) * 32
ENROLMENT = enrol(
    HOST, check_ek(TPM.ek_certificate(), TPM.ca.pem, datetime.now(UTC)), TPM.ak_public()
)


def report(tpm: FakeTpm = TPM, *, step: bytes = STEP, **changes: object) -> TallyReport:
    """A certificate of the tally as it stands, signed whatever it says."""
    attest = replace(tpm.tally_words(EXTRA), **changes).marshal()  # type: ignore[arg-type]
    return TallyReport(attest=attest, signature=tpm.sign(attest), step=step)


def moved() -> FakeTpm:
    """A copy of the TPM that renewed once by STEP."""
    tpm = TPM.copy()
    tpm.extend_tally(STEP)
    return tpm


def reason_of(made: TallyReport, last: bytes | None = START) -> Reason:
    with pytest.raises((PeerError, DeniedError)) as refused:
        check_tally(made, ENROLMENT, qualifying=EXTRA, last=last)
    return refused.value.reason


def test_one_step_further_is_accepted_and_gives_the_new_value() -> None:
    """MUST-9.6."""
    value = check_tally(report(moved()), ENROLMENT, qualifying=EXTRA, last=START)
    assert value == sha256(START + STEP).digest()


def test_first_report_begins_the_chain_wherever_it_stands() -> None:
    """MUST-9.5."""
    assert check_tally(report(moved()), ENROLMENT, qualifying=EXTRA, last=None) == extended(
        START, STEP
    )


def test_anything_but_one_step_further_is_a_fork() -> None:
    """MUST-9.6."""
    ahead = moved()
    ahead.extend_tally(STEP)
    assert reason_of(report(ahead)) is Reason.FORK
    assert reason_of(report(moved(), step=bytes(32))) is Reason.FORK
    assert reason_of(report(moved()), last=b"\1" * 32) is Reason.FORK


def test_value_that_was_reported_before_asks_for_a_new_challenge() -> None:
    """MUST-9.7."""
    value = moved().tally()
    assert reason_of(report(moved()), last=value) is Reason.NONCE_REFUSED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": 0}, Reason.EVIDENCE_REFUSED),
        ({"type": evidence.TYPE_QUOTE}, Reason.EVIDENCE_REFUSED),
        ({"type": 0x801C}, Reason.EVIDENCE_REFUSED),
        ({"extra": bytes(32)}, Reason.BINDING_MISMATCH),
        ({"signer": b"\0\x0b" + bytes(32)}, Reason.EVIDENCE_REFUSED),
        ({"index": b"\0\x0b" + bytes(32)}, Reason.EVIDENCE_REFUSED),
        (
            {"index": evidence.name_of(tally.public_area(tally.NV_DEFINED))},
            Reason.EVIDENCE_REFUSED,
        ),
        ({"offset": 1}, Reason.EVIDENCE_REFUSED),
        ({"contents": bytes(31)}, Reason.EVIDENCE_REFUSED),
        ({"contents": b""}, Reason.EVIDENCE_REFUSED),
        ({"contents": bytes(65)}, Reason.MALFORMED),
    ],
    ids=str,
)
def test_every_word_of_the_certificate_counts(changes: dict[str, object], reason: Reason) -> None:
    """MUST-9.3, MUST-9.4."""
    assert reason_of(report(moved(), **changes)) is reason
    with pytest.raises(FabricError):  # the first report is no exception
        check_tally(report(moved(), **changes), ENROLMENT, qualifying=EXTRA, last=None)


def test_another_keys_certificate_is_refused() -> None:
    good = report(moved())
    software = ec.generate_private_key(ec.SECP256R1())
    forged = replace(good, signature=signature(software, good.attest))
    assert reason_of(forged) is Reason.BAD_SIGNATURE
    sha1 = replace(good, signature=signature(TPM.ak, good.attest, 0x0004))
    assert reason_of(sha1) is Reason.BAD_SIGNATURE
    swapped = replace(ENROLMENT, ak_public=public_area(software.public_key()))
    with pytest.raises(DeniedError) as denied:
        check_tally(forged, swapped, qualifying=EXTRA, last=START)
    assert denied.value.reason is Reason.NOT_ENROLLED


def test_quote_is_no_certificate_of_the_tally() -> None:
    quote = TPM.quote((0, 7), EXTRA)
    made = TallyReport(attest=quote.attest, signature=quote.signature, step=STEP)
    assert reason_of(made) in (Reason.MALFORMED, Reason.EVIDENCE_REFUSED)


def test_every_cut_or_longer_certificate_is_malformed() -> None:
    """MUST-9.3."""
    attest = report(moved()).attest
    for bad in [attest[:at] for at in range(len(attest))] + [attest + b"\0"]:
        made = TallyReport(attest=bad, signature=TPM.sign(bad), step=STEP)
        assert reason_of(made) is Reason.MALFORMED


def test_name_is_the_hash_of_the_public_area_that_the_page_gives() -> None:
    """MUST-9.4: the name is constant, so that no host can choose another kind of index."""
    area = bytes.fromhex("0180fab1000b2204004400000020")
    assert tally.public_area() == area
    assert bytes.fromhex("000b") + sha256(area).digest() == tally.NAME


def test_only_a_value_that_was_heard_or_never_extended_calls_for_a_step() -> None:
    """MUST-9.8."""
    first = extended(START, STEP)
    assert is_heard(first, first)
    assert is_heard(b"", START)
    assert is_heard(first, START)
    assert not is_heard(b"", first)
    assert not is_heard(START, first)
    assert not is_heard(first, extended(first, STEP))


def test_report_hides_its_step() -> None:
    assert STEP.hex() not in repr(report())
