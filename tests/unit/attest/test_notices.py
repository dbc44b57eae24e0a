from datetime import timedelta

import pytest

from fabric.attest import cose
from fabric.attest.keys import Alg, SigningKey
from fabric.attest.notices import (
    HEARTBEAT_KEY,
    MemberState,
    NoticeKind,
    heartbeat_record,
    host_record,
    notice_record,
    read_member,
    result_key,
    result_record,
)
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason
from tests.fakes.verifier import (
    NOW,
    OTHER,
    TRUST_DOMAIN,
    Verifier,
    a_beat,
    a_notice,
    a_result,
    a_state,
)

VERIFIER = Verifier()
STATE = a_state(a_result())
NOTICE = a_notice(3)


def test_host_state_survives_its_record() -> None:
    key, value = host_record(STATE, VERIFIER.signers)
    assert key == b"verifier/host/G01/registry/a1"
    assert read_member(key, value, VERIFIER.trust) == STATE


@pytest.mark.parametrize("kind", list(NoticeKind))
def test_notice_survives_its_record(kind: NoticeKind) -> None:
    notice = a_notice(3, kind)
    key, value = notice_record(notice, VERIFIER.signers)
    assert key == b"verifier/revocation/3"
    assert read_member(key, value, VERIFIER.trust) == notice


def test_heartbeat_survives_its_record() -> None:
    key, value = heartbeat_record(a_beat(5), VERIFIER.signers)
    assert key == HEARTBEAT_KEY == b"verifier/heartbeat"
    assert read_member(key, value, VERIFIER.trust) == a_beat(5)


def test_result_stands_under_its_id() -> None:
    result = a_result(id=bytes(range(16)))
    key, _ = result_record(result, TRUST_DOMAIN, VERIFIER.signers)
    assert key == result_key(result.id) == b"verifier/000102030405060708090a0b0c0d0e0f"


RECORDS = [
    host_record(STATE, VERIFIER.signers),
    notice_record(NOTICE, VERIFIER.signers),
    heartbeat_record(a_beat(5), VERIFIER.signers),
]


@pytest.mark.parametrize(("key", "value"), RECORDS, ids=["host", "notice", "heartbeat"])
def test_record_under_another_key_is_malformed(key: bytes, value: bytes) -> None:
    others = [other for other, _ in RECORDS if other != key] + [b"", key + b"0", b"verifier"]
    for other in others:
        with pytest.raises(Malformed):
            read_member(other, value, VERIFIER.trust)


@pytest.mark.parametrize(("key", "value"), RECORDS, ids=["host", "notice", "heartbeat"])
def test_record_of_another_signer_is_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(PeerError) as refused:
        read_member(key, value, Verifier().trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(("key", "value"), RECORDS, ids=["host", "notice", "heartbeat"])
def test_changed_byte_of_a_record_is_refused(key: bytes, value: bytes) -> None:
    for at in range(0, len(value), 11):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(PeerError):
            read_member(key, changed, VERIFIER.trust)


def test_record_by_only_one_of_the_verifiers_keys_is_refused() -> None:
    key, value = notice_record(NOTICE, VERIFIER.signers[:1])
    with pytest.raises(PeerError):
        read_member(key, value, VERIFIER.trust)


def test_one_kind_signed_as_another_is_refused() -> None:
    payload = cose.parse(RECORDS[2][1]).payload
    head = canonical.encode({16: "heartbeat"})
    value = cose.sign("notice", head, payload, VERIFIER.signers)
    with pytest.raises(PeerError) as refused:
        read_member(HEARTBEAT_KEY, value, VERIFIER.trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("kind", ["result", "envelope", "", 7, b"notice"])
def test_unknown_kind_is_malformed(kind: canonical.Value) -> None:
    head = canonical.encode({16: kind})
    value = cose.sign("notice", head, b"\xa0", VERIFIER.signers)
    with pytest.raises(Malformed):
        read_member(b"verifier/heartbeat", value, VERIFIER.trust)


@pytest.mark.parametrize(
    "change",
    [{0: 1}, {1: 0}, {1: -1}, {2: "G01"}, {2: 5}, {3: "pardon"}, {5: "whim"}, {6: 2**63}, {7: 0}],
    ids=str,
)
def test_notice_with_a_wrong_field_is_malformed(change: dict[int, canonical.Value]) -> None:
    content = canonical.decode(cose.parse(RECORDS[1][1]).payload)
    assert isinstance(content, dict)
    payload = canonical.encode({**content, **change})
    value = cose.sign("notice", canonical.encode({16: "notice"}), payload, VERIFIER.signers)
    with pytest.raises(Malformed):
        read_member(b"verifier/revocation/3", value, VERIFIER.trust)


def test_attested_state_without_a_result_is_never_written() -> None:
    with pytest.raises(Malformed):
        host_record(a_state(a_result(), result_id=b""), VERIFIER.signers)


def test_revoked_state_needs_no_result() -> None:
    state = a_state(a_result(host=OTHER), state=MemberState.REVOKED, result_id=b"")
    key, value = host_record(state, VERIFIER.signers)
    assert read_member(key, value, VERIFIER.trust) == state


def test_times_keep_their_milliseconds() -> None:
    notice = a_notice(1, at=NOW + timedelta(milliseconds=7))
    assert read_member(*notice_record(notice, VERIFIER.signers), VERIFIER.trust) == notice


def test_signer_outside_the_trust_adds_nothing() -> None:
    extra = (*VERIFIER.signers, SigningKey.generate(Alg.ED25519))
    with pytest.raises(PeerError):
        read_member(*notice_record(NOTICE, extra), VERIFIER.trust)
