"""Targets of fabric.attest and of those who ask it: TPM structures, results, members, messages."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fabric.attest import cose, event_log, evidence
from fabric.attest.catchup import Catchup
from fabric.attest.ek import certified_name, check_ek
from fabric.attest.keys import Alg, SigningKey
from fabric.attest.members import Heartbeat, Members, heartbeat_record, host_record, notice_record
from fabric.attest.messages import (
    ActivateRequest,
    AttestAnswer,
    AttestRequest,
    Challenge,
    ChallengeRequest,
    EnrolChallenge,
    EnrolRequest,
    Refusal,
)
from fabric.attest.result import decode, encode
from fabric.attest.tally import TallyReport
from fabric.authority.admin_messages import Decision, Scope
from fabric.authority.callers import caller_of
from fabric.authority.pki import issue_platform, issue_svid, make_ca
from fabric.gateway.identity import identify
from fabric.model import canonical
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import MEMBERS, RESULTS
from fabric.policy.types import Trust
from tests.fakes.boot import Boot
from tests.fakes.tpm import FakeTpm
from tests.fakes.verifier import (
    HOST,
    NOW,
    TRUST_DOMAIN,
    HostKeys,
    a_notice,
    a_result,
    a_state,
)
from tests.fuzz.target import Target, cut, join

BOTH = (PeerError, DeniedError)
_DAY = timedelta(days=1)
TPM, KEYS = FakeTpm(), HostKeys()
QUOTE = TPM.quote((0, 7), bytes(32))
NV = TPM.certify_tally(bytes(32))
CERTIFICATE = TPM.certify_key(TPM.make_key(), bytes(32))
PEN = SigningKey.generate(Alg.ED25519)
TRUST = Trust(
    trust_domain=TRUST_DOMAIN,
    verifier_name="verifier",
    verifier_keys=((PEN.public.alg, PEN.public.data),),
    ca_pem=b"",
    ek_ca_pem=TPM.ca.pem,
)
RESULT = a_result()


def _same(parse: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """A parser of messages that must be written back as the same bytes."""

    def both(data: bytes) -> None:
        message = parse(data)
        assert message.encode() == data  # type: ignore[attr-defined]  # every message has it

    return both


def _signed(kind: str, typ: str, payload: bytes) -> bytes:
    return cose.sign(kind, canonical.encode({16: typ}), payload, [PEN])


def _claims(data: bytes) -> None:
    """Claims that the verifier signed, whoever has its key now."""
    signed = _signed("result", "application/eat+cwt", data)
    result = decode(signed, TRUST)
    assert encode(result, TRUST_DOMAIN, [PEN]) == signed


def _members(data: bytes) -> None:
    """A statement that the verifier signed, and every question that a view is asked."""
    key, payload = cut(data)
    members = Members(TRUST)
    members.feed(RESULTS, f"verifier/{RESULT.id.hex()}".encode(), _encoded_result())
    for kind in ("member", "notice", "heartbeat"):
        with contextlib.suppress(*BOTH):
            members.feed(MEMBERS, key, _signed(kind, kind, payload))
    with contextlib.suppress(*BOTH):
        members.check_fresh(NOW, 1.0)
    with contextlib.suppress(*BOTH):
        members.current(HOST, NOW)
    members.was_trusted(RESULT, NOW)


def _encoded_result() -> bytes:
    return encode(RESULT, TRUST_DOMAIN, [PEN])


def members() -> Iterator[bytes]:
    """A host's state, a notice, a heartbeat: their keys and payloads."""
    for key, value in (
        host_record(a_state(RESULT), [PEN]),
        notice_record(a_notice(1), [PEN]),
        heartbeat_record(Heartbeat(number=1, at=NOW + timedelta(days=1), listed=bytes(32)), [PEN]),
    ):
        yield join(key, cose.parse(value).payload)


def _ak(data: bytes) -> None:
    ak = evidence.parse_ak(data)
    assert len(ak.name) == 34


def _ek(data: bytes) -> None:
    with contextlib.suppress(*BOTH):
        certified_name(data)
    check_ek(data, TPM.ca.pem, datetime.now(UTC))


def _caller(data: bytes) -> None:
    """A certificate that TLS has let through, as the authority and the gateway see it."""
    with contextlib.suppress(*BOTH):
        caller_of(data, "127.0.0.1", TRUST_DOMAIN)
    identify(data, TRUST_DOMAIN)


def certificates() -> Iterator[bytes]:
    """A host's SVID and a platform part's certificate, DER."""
    ca = make_ca("fuzz")
    for pem in (
        issue_svid(ca, HOST, TRUST_DOMAIN, KEYS.tls.public.data, datetime.now(UTC) + _DAY),
        issue_platform(ca, "gateway", hosts=["localhost"], days=2)[0],
    ):
        yield x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


MESSAGES: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "enrol-request": (
        EnrolRequest.decode,
        EnrolRequest(host=HOST, ek_certificate=b"c", ak_public=b"p").encode(),
    ),
    "enrol-challenge": (
        EnrolChallenge.decode,
        EnrolChallenge(enrolment=bytes(16), credential=b"c", secret=b"s").encode(),
    ),
    "activate-request": (
        ActivateRequest.decode,
        ActivateRequest(enrolment=bytes(16), secret=b"s").encode(),
    ),
    "challenge-request": (ChallengeRequest.decode, ChallengeRequest(host=HOST).encode()),
    "challenge": (
        Challenge.decode,
        Challenge(
            session=bytes(16),
            nonce=bytes(32),
            verifier="v",
            pcrs=(0, 7),
            expires_ms=1,
            tally=b"",
            step=bytes(32),
        ).encode(),
    ),
    "attest-answer": (AttestAnswer.decode, AttestAnswer(svid_pem=b"p", result=b"r").encode()),
    "refusal": (Refusal.decode, Refusal(reason=Reason.GAP, message="no").encode()),
    "decision": (Decision.decode, Decision(who=Scope.parse(str(HOST)), why="a cause").encode()),
    "catchup": (
        Catchup.decode,
        Catchup(
            records=(heartbeat_record(Heartbeat(number=1, at=NOW, listed=bytes(32)), [PEN]),)
        ).encode(),
    ),
}


def _attest_request() -> bytes:
    return AttestRequest(
        session=bytes(16),
        host=HOST,
        quote_attest=QUOTE.attest,
        quote_signature=QUOTE.signature,
        keys=KEYS.public,
        heads=(),
        tally=TallyReport(attest=NV.attest, signature=NV.signature, step=bytes(32)),
        event_log=Boot().log(),
    ).encode(KEYS.signers)


def _signed_request(data: bytes) -> None:
    """A request's body, signed as every bound key would: what is behind the signatures."""
    AttestRequest.decode(cose.sign("attest", b"\xa0", data, KEYS.signers))


TARGETS = [
    Target(name="tpm-public", parse=_ak, seeds=lambda: [TPM.ak_public()]),
    Target(name="tpm-attest", parse=evidence.parse_attest, seeds=lambda: [QUOTE.attest]),
    Target(name="tpm-nv", parse=evidence.parse_nv, seeds=lambda: [NV.attest]),
    Target(name="tpm-certify", parse=evidence.parse_certify, seeds=lambda: [CERTIFICATE.attest]),
    Target(name="event-log", parse=event_log.parse, seeds=lambda: [Boot().log()], bytes_max=65_536),
    Target(name="tpm-signature", parse=evidence.parse_signature, seeds=lambda: [QUOTE.signature]),
    Target(name="ek-certificate", parse=_ek, seeds=lambda: [TPM.ek_certificate()], families=BOTH),
    Target(name="tls-certificate", parse=_caller, seeds=certificates),
    Target(name="cose", parse=cose.parse, seeds=lambda: [_encoded_result(), _attest_request()]),
    Target(
        name="result-claims", parse=_claims, seeds=lambda: [cose.parse(_encoded_result()).payload]
    ),
    Target(name="members", parse=_members, seeds=members),
    Target(
        name="attest-request",
        parse=AttestRequest.decode,
        seeds=lambda: [_attest_request()],
        bytes_max=65_536,
    ),
    Target(
        name="signed-request",
        parse=_signed_request,
        seeds=lambda: [cose.parse(_attest_request()).payload],
        bytes_max=65_536,
    ),
    *(
        Target(name=name, parse=_same(parse), seeds=lambda good=good: [good])  # type: ignore[misc]
        for name, (parse, good) in MESSAGES.items()
    ),
]
