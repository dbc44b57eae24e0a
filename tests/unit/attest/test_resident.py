"""A key that claims to live in the TPM must be proved to, by this TPM, for this request."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fabric.attest import evidence
from fabric.attest.appraise import enrol
from fabric.attest.ek import check_ek
from fabric.attest.keys import Alg, PublicKey, SigningKey, Use
from fabric.attest.resident import (
    RESIDENT_ATTRIBUTES,
    ResidentReport,
    check_resident,
    is_resident,
    point_of,
)
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from tests.fakes.tpm import FakeTpm, FakeTpmCa, public_area, signature
from tests.fakes.verifier import HOST, HostKeys

MAKER = FakeTpmCa()
TPM = FakeTpm(MAKER, elliptic=True)
EXTRA = bytes(range(32))
ENROLMENT = enrol(
    HOST, check_ek(TPM.ek_certificate(), TPM.ca.pem, datetime.now(UTC)), TPM.ak_public()
)
KEY = TPM.make_key()
BOUND = PublicKey(Use.SIGN, Alg.ESP256, point_of(KEY.public))
OTHERS = HostKeys().public


def report(public: bytes = KEY.public, **changes: object) -> ResidentReport:
    """A proof, signed by the attestation key whatever it says."""
    words = TPM.key_words(replace(KEY, public=public), EXTRA)
    attest = replace(words, **changes).marshal()  # type: ignore[arg-type]
    return ResidentReport(attest=attest, signature=TPM.sign(attest), public=public)


def reason_of(
    made: ResidentReport | None, keys: tuple[PublicKey, ...] = (*OTHERS, BOUND)
) -> Reason:
    with pytest.raises((PeerError, DeniedError)) as refused:
        check_resident(made, keys, ENROLMENT, qualifying=EXTRA)
    return refused.value.reason


def test_a_proved_key_is_accepted_among_others() -> None:
    """MUST-9.21."""
    check_resident(report(), (*OTHERS, BOUND), ENROLMENT, qualifying=EXTRA)


def test_a_host_without_such_a_key_needs_no_proof_and_may_not_send_one() -> None:
    """MUST-9.21."""
    check_resident(None, OTHERS, ENROLMENT, qualifying=EXTRA)
    assert reason_of(report(), OTHERS) is Reason.EVIDENCE_REFUSED


def test_a_key_without_a_proof_is_refused() -> None:
    """MUST-9.21, MUST-1.3: or a key in software could pass for one in the TPM."""
    software = SigningKey.generate(Alg.ESP256).public
    assert is_resident(software)
    assert reason_of(None, (*OTHERS, software)) is Reason.EVIDENCE_REFUSED


def test_the_tls_key_of_the_same_algorithm_is_no_such_key() -> None:
    assert not is_resident(SigningKey.generate(Alg.ESP256, Use.TLS).public)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"magic": 0}, Reason.EVIDENCE_REFUSED),
        ({"type": evidence.TYPE_QUOTE}, Reason.EVIDENCE_REFUSED),
        ({"type": 0x801A}, Reason.EVIDENCE_REFUSED),
        ({"extra": bytes(32)}, Reason.BINDING_MISMATCH),
        ({"signer": b"\0\x0b" + bytes(32)}, Reason.EVIDENCE_REFUSED),
        ({"name": b"\0\x0b" + bytes(32)}, Reason.BINDING_MISMATCH),
        ({"name": b""}, Reason.BINDING_MISMATCH),
        ({"name": bytes(67)}, Reason.MALFORMED),
    ],
    ids=str,
)
def test_every_word_of_the_proof_counts(changes: dict[str, object], reason: Reason) -> None:
    """MUST-9.22."""
    assert reason_of(report(**changes)) is reason


def test_another_keys_signature_is_refused() -> None:
    """MUST-9.22."""
    good = report()
    software = ec.generate_private_key(ec.SECP256R1())
    assert reason_of(replace(good, signature=signature(software, good.attest))) is (
        Reason.BAD_SIGNATURE
    )
    sha1 = replace(good, signature=signature(TPM.ak, good.attest, 0x0004))
    assert reason_of(sha1) is Reason.BAD_SIGNATURE


def test_proof_of_one_key_is_no_proof_of_another() -> None:
    """MUST-9.23."""
    other = TPM.make_key()
    theirs = PublicKey(Use.SIGN, Alg.ESP256, point_of(other.public))
    assert reason_of(report(), (*OTHERS, theirs)) is Reason.BINDING_MISMATCH
    swapped = replace(report(), public=other.public)
    assert reason_of(swapped) is Reason.BINDING_MISMATCH
    assert reason_of(swapped, (*OTHERS, theirs)) is Reason.BINDING_MISMATCH


@pytest.mark.parametrize("bit", [1 << 1, 1 << 4, 1 << 5, 1 << 6, 1 << 16, 1 << 17, 1 << 18])
def test_key_with_any_other_attribute_is_refused(bit: int) -> None:
    """MUST-9.23: it could leave the TPM, came from outside, or signs what only a TPM may say."""
    private = ec.generate_private_key(ec.SECP256R1())
    public = public_area(private.public_key(), RESIDENT_ATTRIBUTES ^ bit)
    bound = PublicKey(Use.SIGN, Alg.ESP256, point_of(public))
    assert reason_of(report(public), (*OTHERS, bound)) is Reason.EVIDENCE_REFUSED


def test_the_attestation_key_itself_signs_no_blocks() -> None:
    """MUST-9.23: it is restricted."""
    public = TPM.ak_public()
    bound = PublicKey(Use.SIGN, Alg.ESP256, point_of(public))
    assert reason_of(report(public), (*OTHERS, bound)) is Reason.EVIDENCE_REFUSED


def test_quote_and_tally_are_no_proof() -> None:
    TPM.extend_tally(bytes(32))
    for quote in (TPM.quote((0, 7), EXTRA), TPM.certify_tally(EXTRA)):
        made = replace(report(), attest=quote.attest, signature=quote.signature)
        assert reason_of(made) in (Reason.MALFORMED, Reason.EVIDENCE_REFUSED)


def test_proof_by_another_hosts_tpm_is_refused() -> None:
    other = FakeTpm(MAKER, elliptic=True)
    key = other.make_key()
    quote = other.certify_key(key, EXTRA)
    made = ResidentReport(attest=quote.attest, signature=quote.signature, public=key.public)
    theirs = PublicKey(Use.SIGN, Alg.ESP256, point_of(key.public))
    assert reason_of(made, (*OTHERS, theirs)) is Reason.BAD_SIGNATURE


def test_every_cut_or_longer_proof_is_malformed() -> None:
    """MUST-9.22."""
    good = report()
    for at in range(0, len(good.attest), 5):
        bad = good.attest[:at]
        with pytest.raises(Malformed):
            check_resident(
                ResidentReport(attest=bad, signature=TPM.sign(bad), public=KEY.public),
                (*OTHERS, BOUND),
                ENROLMENT,
                qualifying=EXTRA,
            )
    longer = good.attest + b"\0"
    made = replace(good, attest=longer, signature=TPM.sign(longer))
    assert reason_of(made) is Reason.MALFORMED
    assert reason_of(replace(good, public=good.public + b"\0")) is Reason.MALFORMED
