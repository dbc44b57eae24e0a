import time
from dataclasses import replace
from typing import Any

import pytest

from fabric.attest import cose
from fabric.attest.keys import Alg, SigningKey, Use
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
from fabric.attest.resident import ResidentReport
from fabric.attest.tally import TallyReport
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.limits import REQUEST_BYTES_MAX, RESULT_HEADS_MAX
from fabric.model.names import HostId
from tests.fakes.verifier import HOST, HostKeys

KEYS = HostKeys()
REQUEST = AttestRequest(
    session=bytes(16),
    host=HOST,
    quote_attest=b"attest",
    quote_signature=b"signature",
    keys=KEYS.public,
    heads=(bytes(32),),
    tally=TallyReport(attest=b"attest", signature=b"signature", step=bytes(32)),
    event_log=b"log",
)
MESSAGES = [
    EnrolRequest(host=HOST, ek_certificate=b"certificate", ak_public=b"public"),
    EnrolChallenge(enrolment=bytes(16), credential=b"credential", secret=b"secret"),
    ActivateRequest(enrolment=bytes(16), secret=b"secret"),
    ChallengeRequest(host=HOST),
    Challenge(
        session=bytes(16),
        nonce=bytes(32),
        verifier="verifier",
        pcrs=(0, 7),
        expires_ms=9,
        tally=b"",
        step=bytes(32),
    ),
    AttestAnswer(svid_pem=b"pem", result=b"result"),
    Refusal(reason=Reason.STATE_REFUSED, message="host is not in an approved state"),
]


def crowded(count: int) -> bytes:
    """A body of three fields, one of them so many numbers."""
    return b"\xa3\x00\x80\x01\x99" + count.to_bytes(2) + b"\x80" * count + b"\x02\x80"


@pytest.mark.parametrize("message", MESSAGES, ids=type)
def test_a_body_of_very_many_values_is_refused_before_they_are_made(message: Any) -> None:
    """Whoever reaches the authority may send one: it costs nothing."""
    body = crowded(49_000)
    begin = time.thread_time()
    for _ in range(100):
        with pytest.raises(Malformed):
            type(message).decode(body)
    assert time.thread_time() - begin < 0.1


def test_a_request_of_very_many_values_is_refused_before_they_are_made() -> None:
    outer = b"\xd8\x62\x84\x40\xa0\x40\x99" + (49_000).to_bytes(2) + b"\x80" * 49_000
    inner = cose.sign("attest", b"\xa0", crowded(49_000), KEYS.signers)
    begin = time.thread_time()
    for body in [outer, inner] * 20:
        with pytest.raises(Malformed):
            AttestRequest.decode(body)
    assert time.thread_time() - begin < 0.2


def test_the_largest_request_is_read() -> None:
    heads = tuple(number.to_bytes(32) for number in range(RESULT_HEADS_MAX))
    keys = HostKeys()
    request = replace(REQUEST, keys=keys.public, heads=heads, resident=PROOF)
    assert AttestRequest.decode(request.encode(keys.signers)).heads == heads


PROOF = ResidentReport(attest=b"attest", signature=b"signature", public=b"public")


def test_request_carries_the_proof_of_a_key_in_the_tpm() -> None:
    request = replace(REQUEST, resident=PROOF)
    assert AttestRequest.decode(request.encode(KEYS.signers)) == request


@pytest.mark.parametrize(
    "wrong", [[b"a"], [b"a", b"b"], [b"a", b"b", b""], [b"a", b"b", b"c", b"d"]]
)
def test_request_with_half_a_proof_is_malformed(wrong: list[bytes]) -> None:
    signed = cose.parse(REQUEST.encode(KEYS.signers))
    content = canonical.decode(signed.payload)
    assert isinstance(content, dict)
    content[8] = list(wrong)
    body = cose.sign("attest", b"\xa0", canonical.encode(content), KEYS.signers)
    with pytest.raises(Malformed):
        AttestRequest.decode(body)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_survives_its_body(message: EnrolRequest) -> None:
    assert type(message).decode(message.encode()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_with_bytes_missing_added_or_unknown_fields_is_malformed(
    message: EnrolRequest,
) -> None:
    body = message.encode()
    fields = canonical.decode(body)
    assert isinstance(fields, dict)
    fewer = {key: fields[key] for key in list(fields)[:-1]}
    more = {**fields, 99: 0}
    for bad in (b"", body[:-1], body + b"\0", canonical.encode(fewer), canonical.encode(more)):
        with pytest.raises(Malformed):
            type(message).decode(bad)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_message_with_any_field_of_another_type_is_malformed(message: EnrolRequest) -> None:
    fields = canonical.decode(message.encode())
    assert isinstance(fields, dict)
    for key in fields:
        for other in ([[]], {0: 0}, -1, b"", "\n"):
            with pytest.raises(Malformed):
                type(message).decode(canonical.encode({**fields, key: other}))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_long_message_is_malformed_before_it_is_parsed(message: EnrolRequest) -> None:
    with pytest.raises(Malformed, match="too long"):
        type(message).decode(bytes(REQUEST_BYTES_MAX + 1))


def test_long_attest_request_is_malformed_before_it_is_parsed() -> None:
    with pytest.raises(Malformed, match="too long"):
        AttestRequest.decode(bytes(REQUEST_BYTES_MAX + 1))


def test_attest_request_survives_its_signed_body() -> None:
    assert AttestRequest.decode(REQUEST.encode(KEYS.signers)) == REQUEST


@pytest.mark.parametrize(
    "signers",
    [
        KEYS.sign,
        (KEYS.sign[0], KEYS.tls),
        KEYS.signers[::-1],
        (*KEYS.sign, SigningKey.generate(Alg.ESP256, Use.TLS)),
    ],
    ids=["TLS key missing", "signing key missing", "other order", "foreign TLS key"],
)
def test_request_must_be_signed_by_every_bound_key_that_can(
    signers: tuple[SigningKey, ...],
) -> None:
    with pytest.raises(PeerError) as refused:
        AttestRequest.decode(REQUEST.encode(signers))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_what_is_asked_of_a_request_first_is_asked_before_any_signature() -> None:
    forged = REQUEST.encode((*KEYS.sign, SigningKey.generate(Alg.ESP256, Use.TLS)))
    asked: list[tuple[bytes, HostId]] = []

    def refuse(session: bytes, host: HostId) -> None:
        asked.append((session, host))
        raise PeerError(Reason.NONCE_REFUSED, "no such session")

    for body in (forged, REQUEST.encode(KEYS.signers)):
        with pytest.raises(PeerError) as refused:
            AttestRequest.decode(body, refuse)
        assert refused.value.reason is Reason.NONCE_REFUSED
    with pytest.raises(PeerError) as refused:
        AttestRequest.decode(forged, lambda *named: asked.append(named))
    assert refused.value.reason is Reason.BAD_SIGNATURE
    assert asked == [(REQUEST.session, REQUEST.host)] * 3


@pytest.mark.parametrize("missing", range(4), ids=["sign", "sign", "hpke", "tls"])
def test_request_without_a_key_of_some_use_is_malformed_or_keeps_one(missing: int) -> None:
    keys = tuple(key for at, key in enumerate(KEYS.public) if at != missing)
    request = replace(REQUEST, keys=keys)
    signers = tuple(signer for signer in KEYS.signers if signer.public in keys)
    if missing < 2:
        assert AttestRequest.decode(request.encode(signers)) == request
        return
    with pytest.raises(Malformed):
        AttestRequest.decode(request.encode(signers))


def test_request_that_binds_no_signing_key_is_malformed() -> None:
    request = replace(REQUEST, keys=KEYS.public[2:])
    with pytest.raises(Malformed):
        AttestRequest.decode(request.encode([KEYS.tls]))


def test_request_with_headers_is_malformed() -> None:
    payload = cose.parse(REQUEST.encode(KEYS.signers)).payload
    with pytest.raises(Malformed):
        AttestRequest.decode(
            cose.sign("attest", canonical.encode({16: "x"}), payload, KEYS.signers)
        )


def test_changed_byte_of_a_request_is_refused() -> None:
    data = REQUEST.encode(KEYS.signers)
    for at in range(0, len(data), 13):
        with pytest.raises(PeerError):
            AttestRequest.decode(data[:at] + bytes([data[at] ^ 2]) + data[at + 1 :])


@pytest.mark.parametrize("pcrs", [[], [7, 0], [0, 0], [24], list(range(25)), [-1]], ids=str)
def test_challenge_over_no_repeated_or_unknown_pcrs_is_malformed(pcrs: list[int]) -> None:
    fields = canonical.decode(MESSAGES[4].encode())
    assert isinstance(fields, dict)
    with pytest.raises(Malformed):
        Challenge.decode(canonical.encode({**fields, 3: pcrs}))


def test_activation_hides_its_secret() -> None:
    assert "736563726574" not in repr(MESSAGES[2])
    assert "b'secret'" not in repr(MESSAGES[2])


def test_refusal_of_an_unknown_reason_is_malformed() -> None:
    with pytest.raises(Malformed):
        Refusal.decode(canonical.encode({0: "whim", 1: "no"}))


def test_refusal_is_cut_and_cleaned_before_it_is_sent() -> None:
    sent = Refusal(reason=Reason.INTERNAL, message="a\nb" + "c" * 600)
    assert Refusal.decode(sent.encode()).message == "a b" + "c" * 497
