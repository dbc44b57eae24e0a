"""Starts and grants, trusted when asked for."""

from datetime import timedelta

import pytest

from fabric.agent.grant_book import GrantBook
from fabric.attest.members import Members
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import Topic
from fabric.seal.epoch import Started, parse_start, start_key, verify_start
from fabric.seal.grant import GrantDraft, grant, grant_key
from fabric.seal.hpke import HpkeKey
from tests.fakes.sealing import NOW, TOPIC, TRUST_DOMAIN, Party

SENDER = Party.make()
READER = Party.make("G02/health/b1")
LATE = Party.make("G03/statistics/c1")


class KnownResults(Members):
    """A view that knows these results and trusts them."""

    def __init__(self, *results: Result) -> None:
        self._known = {result.id: result for result in results}
        self.refuses: Reason | None = None

    def result(self, result_id: bytes) -> Result:
        if result_id not in self._known:
            raise DeniedError(Reason.RESULT_UNKNOWN, "result is not known here")
        return self._known[result_id]

    def was_trusted(self, result: Result, at: object) -> Reason | None:
        return self.refuses

    def learn(self, result: Result) -> None:
        self._known[result.id] = result


def book(party: Party = READER) -> GrantBook:
    return GrantBook(TOPIC, TRUST_DOMAIN, party.host)


def started(number: int = 1) -> Started:
    return SENDER.start(SENDER.draft(number), [READER])


def grant_to(party: Party, of: Started) -> tuple[bytes, bytes]:
    verified = verify_start(parse_start(of.value), SENDER.result, TRUST_DOMAIN)
    draft = GrantDraft(
        granter=SENDER.host,
        result_id=SENDER.result.id,
        policy_version=7,
        revocation_number=3,
        granted=NOW + timedelta(hours=1),
    )
    value = grant(
        draft,
        verified,
        SENDER.secret(of.start.number),
        recipients=[(party.host, party.key.public)],
        signers=SENDER.signers,
    )
    return grant_key(SENDER.host, of.start.id), value


def test_a_named_reader_finds_start_and_secret() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    assert it.secret(verified, [READER.key], members) == SENDER.secret()


def test_a_secret_is_at_hand_only_once_start_and_wrap_were_verified() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    assert it.known(start.hash) is None
    verified = it.start(start.hash, members)
    assert it.known(start.hash) is None
    assert verified is not None
    it.secret(verified, [READER.key], members)
    assert it.known(start.hash) == SENDER.secret()
    assert it.known(bytes(32)) is None


def test_an_unknown_start_is_missing_and_an_unknown_result_is_waited_for() -> None:
    it, start, members = book(), started(), KnownResults()
    assert it.start(start.hash, members) is None
    it.feed(start_key(start.start), start.value)
    with pytest.raises(DeniedError) as caught:
        it.start(start.hash, members)
    assert caught.value.reason is Reason.RESULT_UNKNOWN
    members.learn(SENDER.result)
    assert it.start(start.hash, members) is not None


def test_a_late_reader_needs_a_grant() -> None:
    it, start, members = book(LATE), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    with pytest.raises(DeniedError) as caught:
        it.secret(verified, [LATE.key], members)
    assert caught.value.reason is Reason.GRANT_MISSING
    it.feed(*grant_to(LATE, start))
    assert it.secret(verified, [LATE.key], members) == SENDER.secret()


def test_a_reader_that_lost_its_keys_is_served_by_a_grant_to_the_new_ones() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    new = HpkeKey.generate(READER.key.kem)
    with pytest.raises(DeniedError):
        it.secret(verified, [new], members)
    from dataclasses import replace

    it.feed(*grant_to(replace(READER, key=new), start))
    assert it.secret(verified, [new], members) == SENDER.secret()


def test_grants_to_others_are_not_kept() -> None:
    it, start = book(), started()
    it.feed(*grant_to(LATE, start))
    assert it._grants == {}


def test_a_copy_with_other_wraps_does_not_hide_the_good_one() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    match canonical.decode(start.value):
        case [bytes() as manifest, list() as wraps]:
            spoilt = canonical.encode([manifest, [bytes(len(wraps[0]))] * len(wraps)])  # type: ignore[arg-type]
    it.feed(start_key(start.start), spoilt)
    assert it.start(start.hash, members) is None
    it.feed(start_key(start.start), spoilt)
    it.feed(start_key(start.start), start.value)
    assert it.start(start.hash, members) is not None


def test_a_start_by_a_host_that_was_not_trusted_then_is_none() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    members.refuses = Reason.HOST_SUSPENDED
    it.feed(start_key(start.start), start.value)
    assert it.start(start.hash, members) is None


def test_foreign_records_are_refused() -> None:
    start = started()
    other = GrantBook(Topic.parse("secret.G01.other"), TRUST_DOMAIN, READER.host)
    for it, key, value in (
        (other, start_key(start.start), start.value),
        (other, *grant_to(LATE, start)),
        (book(), b"G09/else/x1/start/1", start.value),
        (book(), b"G09/else/x1/grant/1", grant_to(LATE, start)[1]),
        (book(), b"k", b"garbage"),
    ):
        with pytest.raises(PeerError):
            it.feed(key, value)
