"""From a well-formed envelope to a verified one: the only module that makes that type.

Verified means: signed by exactly the suite's keys of the host it names, as a
verified result states them. Whether that result was good at the time, and
whether policy lets the host write here, is for admission to say.
Spec: docs/format.md section 5.
"""

from dataclasses import InitVar, dataclass

from fabric.attest import cose
from fabric.attest.keys import Use, of_use
from fabric.attest.result import Result
from fabric.model.errors import PeerError, Reason, UsageError
from fabric.seal import envelope as form
from fabric.seal.suites import claimed_suite

_PROOF = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEnvelope:
    """An envelope whose sender signed it, with the result that says which keys are its own."""

    envelope: form.Envelope
    result: Result
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise UsageError(Reason.INTERNAL, "only verify makes a verified envelope")


def verify(envelope: form.Envelope, result: Result, trust_domain: str) -> VerifiedEnvelope:
    """Check sender and signatures.

    Args:
        result: a verified result, the one the header names.
        trust_domain: the policy's SPIFFE trust domain.

    Raises:
        PeerError: IDENTITY_MISMATCH, the header names another host or result;
            BAD_SIGNATURE, signatures are not exactly the suite's by the result's keys;
            SUITE_REFUSED, this build does not know the suite.
    """
    header = envelope.header
    if header.sender != result.host.spiffe(trust_domain):
        raise PeerError(Reason.IDENTITY_MISMATCH, "sender is not the result's host")
    if header.result_id != result.id:
        raise PeerError(Reason.IDENTITY_MISMATCH, "header names another result")
    keys = of_use(result.keys, Use.SIGN, claimed_suite(header.suite).signatures)
    cose.check(envelope.signed, form.KIND, keys)
    return VerifiedEnvelope(envelope=envelope, result=result, proof=_PROOF)
