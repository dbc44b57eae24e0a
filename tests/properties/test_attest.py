"""Whatever bytes come in, a parser of this package gives a value or a PeerError, nothing else."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fabric.attest import cose, event_log, evidence
from fabric.attest.appraise import Counters, check_counters
from fabric.attest.ek import certified_name, check_ek
from fabric.attest.keys import Alg, PublicKey, SigningKey, Use, verify
from fabric.attest.members import Members, heartbeat_record, host_record, notice_record
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
from fabric.model import canonical
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.label import Label
from fabric.model.names import MEMBERS, RESULTS, HostId
from tests.fakes.boot import Boot
from tests.fakes.tpm import FakeTpm
from tests.fakes.verifier import (
    HOST,
    TRUST_DOMAIN,
    HostKeys,
    Verifier,
    a_beat,
    a_notice,
    a_result,
    a_state,
)

VERIFIER = Verifier()
TPM = FakeTpm()
KEYS = HostKeys()
QUOTE = TPM.quote((0, 7), bytes(32))
NV = TPM.certify_tally(bytes(32))
CERTIFICATE = TPM.certify_key(TPM.make_key(), bytes(32))
STATE_KEY, STATE = host_record(a_state(a_result()), VERIFIER.signers)
NOTICE_KEY, NOTICE = notice_record(a_notice(1), VERIFIER.signers)
BEAT_KEY, BEAT = heartbeat_record(a_beat(1), VERIFIER.signers)
RESULT = encode(a_result(), TRUST_DOMAIN, VERIFIER.signers)
REQUEST = AttestRequest(
    session=bytes(16),
    host=HOST,
    quote_attest=QUOTE.attest,
    quote_signature=QUOTE.signature,
    keys=KEYS.public,
    heads=(),
    tally=TallyReport(attest=NV.attest, signature=NV.signature, step=bytes(32)),
).encode(KEYS.signers)
Parser = Callable[[bytes], object]


def _check_ek(data: bytes) -> object:
    return check_ek(data, TPM.ca.pem, datetime.now(UTC))


PARSERS: dict[str, tuple[Parser, bytes]] = {
    "key": (evidence.parse_ak, TPM.ak_public()),
    "quote": (evidence.parse_attest, QUOTE.attest),
    "tally": (evidence.parse_nv, NV.attest),
    "key certificate": (evidence.parse_certify, CERTIFICATE.attest),
    "event log": (event_log.parse, Boot().log()),
    "quote signature": (evidence.parse_signature, QUOTE.signature),
    "cose": (cose.parse, RESULT),
    "result": (lambda data: decode(data, VERIFIER.trust), RESULT),
    "host state": (lambda data: Members(VERIFIER.trust).feed(MEMBERS, STATE_KEY, data), STATE),
    "notice": (lambda data: Members(VERIFIER.trust).feed(MEMBERS, NOTICE_KEY, data), NOTICE),
    "heartbeat": (lambda data: Members(VERIFIER.trust).feed(MEMBERS, BEAT_KEY, data), BEAT),
    "fed result": (lambda data: Members(VERIFIER.trust).feed(RESULTS, b"", data), RESULT),
    "key of a record": (lambda data: Members(VERIFIER.trust).feed(MEMBERS, data, BEAT), BEAT_KEY),
    "attest request": (AttestRequest.decode, REQUEST),
    "enrol request": (
        EnrolRequest.decode,
        EnrolRequest(host=HOST, ek_certificate=b"c", ak_public=b"p").encode(),
    ),
    "enrol challenge": (
        EnrolChallenge.decode,
        EnrolChallenge(enrolment=bytes(16), credential=b"c", secret=b"s").encode(),
    ),
    "activate request": (
        ActivateRequest.decode,
        ActivateRequest(enrolment=bytes(16), secret=b"s").encode(),
    ),
    "challenge request": (ChallengeRequest.decode, ChallengeRequest(host=HOST).encode()),
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
    "answer": (AttestAnswer.decode, AttestAnswer(svid_pem=b"p", result=b"r").encode()),
    "refusal": (Refusal.decode, Refusal(reason=Reason.GAP, message="no").encode()),
}
CERTIFICATE_PARSERS: dict[str, Parser] = {"check": _check_ek, "name": certified_name}


def _only_peer_errors(parse: Parser, data: bytes) -> None:
    with contextlib.suppress(PeerError):
        parse(data)


@st.composite
def _damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A good structure with a few bytes overwritten, cut out, doubled or inserted."""
    data = good
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        data = data[:start] + draw(st.binary(max_size=8)) + data[end:]
    return data


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=600))
@example(data=b"")
@settings(max_examples=60)
def test_garbage_raises_peer_errors_only(name: str, data: bytes) -> None:
    _only_peer_errors(PARSERS[name][0], data)


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=60)
def test_damaged_structure_raises_peer_errors_only(name: str, data: st.DataObject) -> None:
    parse, good = PARSERS[name]
    _only_peer_errors(parse, data.draw(_damaged(good)))


@pytest.mark.parametrize("name", CERTIFICATE_PARSERS)
@given(data=st.one_of(st.binary(max_size=600), _damaged(TPM.ek_certificate())))
@settings(max_examples=150, deadline=None)
def test_damaged_certificate_is_refused_by_peer_or_denied_errors_only(
    name: str, data: bytes
) -> None:
    with contextlib.suppress(PeerError, DeniedError):
        CERTIFICATE_PARSERS[name](data)


VALUES = st.recursive(
    st.one_of(st.integers(-(2**17), 2**64 - 1), st.binary(max_size=40), st.text(max_size=40)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.integers(-70_000, 300), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(kind=st.sampled_from(["result", "member", "notice", "heartbeat"]), value=VALUES)
@settings(max_examples=200, deadline=None)
def test_whatever_the_verifier_signs_is_read_or_refused(kind: str, value: canonical.Value) -> None:
    """Its keys may be stolen: even its signature does not make a view fail."""
    typ = "application/eat+cwt" if kind == "result" else kind
    signed = cose.sign(kind, canonical.encode({16: typ}), canonical.encode(value), VERIFIER.signers)
    topic = RESULTS if kind == "result" else MEMBERS
    _only_peer_errors(lambda data: Members(VERIFIER.trust).feed(topic, b"verifier", data), signed)


@given(
    alg=st.sampled_from([*Alg, -7, 0]),
    key=st.binary(max_size=100),
    signature=st.binary(max_size=100),
)
def test_signature_that_is_garbage_raises_peer_errors_only(
    alg: int, key: bytes, signature: bytes
) -> None:
    with pytest.raises(PeerError):
        verify(PublicKey(Use.SIGN, alg, key), signature, b"data")


@given(
    level=st.integers(1, 5),
    approval=st.integers(0, 2**63 - 1),
    heads=st.lists(st.binary(min_size=32, max_size=32), max_size=5),
    clearance=st.sets(st.sampled_from(["a", "b", "personal-data"])),
    host=st.from_regex(
        r"[0-9A-Z]{1,5}(\.[0-9A-Z]{1,3})?/[a-z0-9-]{1,9}/[a-z0-9-]{1,9}", fullmatch=True
    ),
)
@settings(deadline=None)
def test_result_survives_its_bytes(
    level: int, approval: int, heads: list[bytes], clearance: set[str], host: str
) -> None:
    result = a_result(
        level=level,
        approval=approval,
        heads=tuple(heads),
        clearance=Label("secret", frozenset(clearance)),
        host=HostId.parse(host),
    )
    assert decode(encode(result, TRUST_DOMAIN, VERIFIER.signers), VERIFIER.trust) == result


COUNTERS = st.builds(
    Counters,
    clock=st.integers(0, 3),
    resets=st.integers(0, 3),
    restarts=st.integers(0, 3),
    safe=st.booleans(),
)


@given(new=COUNTERS, old=COUNTERS)
def test_counters_never_pass_in_both_directions_unless_a_power_cut_explains_it(
    new: Counters, old: Counters
) -> None:
    def passes(after: Counters, before: Counters) -> bool:
        try:
            check_counters(after, before)
        except DeniedError:
            return False
        return True

    counts = [(c.resets, c.restarts, c.clock) for c in (new, old)]
    if passes(new, old) and passes(old, new):
        assert counts[0] == counts[1]
    if counts[0][:2] < counts[1][:2]:
        assert not passes(new, old)


SIGNER = SigningKey.generate(Alg.ED25519)


@given(payload=st.binary(max_size=100), kind=st.sampled_from(["attest", "result", "notice"]))
def test_signature_serves_one_kind_only(payload: bytes, kind: str) -> None:
    signed = cose.parse(cose.sign(kind, b"\xa0", payload, [SIGNER]))
    cose.check(signed, kind, [SIGNER.public])
    for other in {"attest", "result", "notice", "envelope"} - {kind}:
        with pytest.raises(PeerError):
            cose.check(signed, other, [SIGNER.public])
