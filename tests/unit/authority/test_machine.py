"""Bookkeeping: single use, bounded in number, time and share; notices that stand."""

from collections.abc import Callable

import pytest

from fabric.attest.appraise import Enrolment
from fabric.attest.members import NoticeKind
from fabric.authority import machine
from fabric.authority.machine import Challenges, Enrolments, Quota
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.limits import CHALLENGE_LIFETIME_S, ENROLMENT_LIFETIME_S, PENDING_PER_ASKER_MAX
from tests.fakes.clock import ManualClock
from tests.fakes.verifier import HOST, OTHER, a_notice

REFUSED = Reason.NONCE_REFUSED
ENROLMENT = Enrolment(host=HOST, ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a")


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(FabricError) as error:
        call()
    return error.value.reason


def test_nonces_and_sessions_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PENDING_PER_ASKER_MAX", 10)
    clock, challenges = ManualClock(), Challenges()
    opened = [challenges.open(HOST, "a", clock.now()) for _ in range(5_000)]
    assert len({c.nonce for c in opened}) == len({c.session for c in opened}) == 5_000
    assert {len(c.nonce) for c in opened} == {32}


def test_a_challenge_is_taken_once() -> None:
    clock, challenges = ManualClock(), Challenges()
    opened = challenges.open(HOST, "a", clock.now())
    assert challenges.take(opened.session, HOST, clock.now()) == opened
    again = reason_of(lambda: challenges.take(opened.session, HOST, clock.now()))
    assert again is Reason.NONCE_REFUSED


def test_another_hosts_try_uses_a_challenge_up() -> None:
    clock, challenges = ManualClock(), Challenges()
    opened = challenges.open(HOST, "a", clock.now())
    with pytest.raises(PeerError):
        challenges.take(opened.session, OTHER, clock.now())
    with pytest.raises(PeerError):
        challenges.take(opened.session, HOST, clock.now())


def test_a_challenge_that_is_only_asked_for_stays() -> None:
    clock, challenges = ManualClock(), Challenges()
    for is_known in (True, False):
        opened = challenges.open(HOST, "a", clock.now(), is_known=is_known)
        challenges.check(opened.session, HOST, clock.now())
        for session, host in ((opened.session, OTHER), (bytes(16), HOST)):
            wrong = reason_of(lambda s=session, h=host: challenges.check(s, h, clock.now()))
            assert wrong is REFUSED
        assert challenges.take(opened.session, HOST, clock.now()) == opened
        assert reason_of(lambda s=opened.session: challenges.check(s, HOST, clock.now())) is REFUSED
    opened = challenges.open(HOST, "a", clock.now())
    clock.advance(CHALLENGE_LIFETIME_S)
    assert reason_of(lambda: challenges.check(opened.session, HOST, clock.now())) is REFUSED


def test_a_challenge_ends_on_time() -> None:
    clock, challenges = ManualClock(), Challenges()
    opened = challenges.open(HOST, "a", clock.now())
    clock.advance(CHALLENGE_LIFETIME_S)
    with pytest.raises(PeerError):
        challenges.take(opened.session, HOST, clock.now())
    assert len(challenges) == 0


def test_one_peers_share_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PENDING_PER_PEER_MAX", 2)
    clock, challenges = ManualClock(), Challenges()
    for _ in range(2):
        opened = challenges.open(HOST, "a", clock.now())
    full = reason_of(lambda: challenges.open(HOST, "a", clock.now()))
    assert full is Reason.OVERLOADED
    challenges.open(HOST, "b", clock.now())
    challenges.take(opened.session, HOST, clock.now())
    challenges.open(HOST, "a", clock.now())


def test_all_challenges_are_bounded_and_recover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CHALLENGES_MAX", 5)
    clock, challenges = ManualClock(), Challenges()
    opened = [challenges.open(HOST, f"peer {number}", clock.now()) for number in range(6)]
    assert len(challenges) == 5
    assert reason_of(lambda: challenges.take(opened[0].session, HOST, clock.now())) is REFUSED
    assert challenges.take(opened[5].session, HOST, clock.now()) == opened[5]
    clock.advance(CHALLENGE_LIFETIME_S)
    challenges.open(HOST, "another", clock.now())
    assert len(challenges) == 1


def test_strangers_who_fill_their_room_leave_a_host_with_a_certificate_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "CHALLENGES_MAX", 50)
    clock, challenges = ManualClock(), Challenges()
    mine = challenges.open(HOST, str(HOST), clock.now(), is_known=True)
    for number in range(1_000):
        challenges.open(HOST, f"peer {number}", clock.now())
    another = challenges.open(HOST, str(HOST), clock.now(), is_known=True)
    assert len(challenges) == 52
    for opened in (mine, another):
        assert challenges.take(opened.session, HOST, clock.now()) == opened


def test_who_names_a_host_again_and_again_replaces_only_its_own() -> None:
    """A host whose certificate has ended is a stranger too: it can still ask."""
    clock, challenges = ManualClock(), Challenges()
    mine = challenges.open(HOST, "a", clock.now())
    for number in range(1_000):
        challenges.open(HOST, f"peer {number % 50}", clock.now())
    assert len(challenges) == 1 + 50 * PENDING_PER_ASKER_MAX
    assert challenges.take(mine.session, HOST, clock.now()) == mine


def test_challenges_that_name_one_host_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PENDING_PER_HOST_MAX", 10)
    clock, challenges = ManualClock(), Challenges()
    others = challenges.open(OTHER, "peer 0", clock.now())
    for number in range(100):
        opened = challenges.open(HOST, f"peer {number}", clock.now())
    assert len(challenges) == 11
    assert challenges.take(opened.session, HOST, clock.now()) == opened
    assert challenges.take(others.session, OTHER, clock.now()) == others


def test_nothing_is_remembered_of_what_is_over() -> None:
    clock, challenges = ManualClock(), Challenges()
    for number in range(9):
        challenges.open(HOST, f"peer {number % 2}", clock.now())
    clock.advance(CHALLENGE_LIFETIME_S)
    opened = challenges.open(OTHER, "a", clock.now())
    challenges.take(opened.session, OTHER, clock.now())
    pending = challenges._strange
    assert [len(kept) for kept in (pending._items, pending._per_peer, pending._of_host)] == [0] * 3


def test_only_the_right_secret_enrols() -> None:
    clock, enrolments = ManualClock(), Enrolments()
    pending = enrolments.open(ENROLMENT, "a", clock.now())
    assert enrolments.take(pending.id, pending.secret, clock.now()) == ENROLMENT


@pytest.mark.parametrize("secret", [b"", bytes(32), bytes(31), bytes(64)])
def test_a_wrong_secret_uses_the_try_up(secret: bytes) -> None:
    clock, enrolments = ManualClock(), Enrolments()
    pending = enrolments.open(ENROLMENT, "a", clock.now())
    for tried in (secret, pending.secret):
        failed = reason_of(lambda tried=tried: enrolments.take(pending.id, tried, clock.now()))
        assert failed is Reason.ACTIVATION_FAILED


def test_an_unknown_and_an_expired_enrolment_look_like_a_wrong_secret() -> None:
    clock, enrolments = ManualClock(), Enrolments()
    pending = enrolments.open(ENROLMENT, "a", clock.now())
    clock.advance(ENROLMENT_LIFETIME_S)
    messages = set()
    for ident, secret in ((pending.id, pending.secret), (bytes(16), bytes(32))):
        with pytest.raises(DeniedError) as error:
            enrolments.take(ident, secret, clock.now())
        messages.add(str(error.value))
    assert len(messages) == 1


def test_enrolments_are_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ENROLMENTS_PENDING_MAX", 3)
    clock, enrolments = ManualClock(), Enrolments()
    for peer in "abc":
        enrolments.open(ENROLMENT, peer, clock.now())
    enrolments.open(ENROLMENT, "d", clock.now())
    assert len(enrolments) == 3
    clock.advance(ENROLMENT_LIFETIME_S)
    enrolments.open(ENROLMENT, "d", clock.now())
    assert len(enrolments) == 1


def test_a_pending_enrolment_does_not_show_its_secret() -> None:
    pending = Enrolments().open(ENROLMENT, "a", ManualClock().now())
    assert pending.secret.hex() not in repr(pending)
    assert repr(pending.secret) not in repr(pending)


def test_a_peer_that_asks_too_often_is_slowed_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "REQUESTS_BURST_MAX", 3)
    monkeypatch.setattr(machine, "REQUESTS_PER_S_MAX", 2)
    clock, quota = ManualClock(), Quota()
    for _ in range(3):
        quota.spend("a", clock.now())
    assert reason_of(lambda: quota.spend("a", clock.now())) is Reason.OVERLOADED
    quota.spend("b", clock.now())
    clock.advance(1)
    for _ in range(2):
        quota.spend("a", clock.now())
    with pytest.raises(UnavailableError):
        quota.spend("a", clock.now())


def test_what_costs_more_takes_more_and_in_vain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "REQUESTS_BURST_MAX", 10)
    clock, quota = ManualClock(), Quota()
    quota.spend("a", clock.now(), 6)
    assert reason_of(lambda: quota.spend("a", clock.now(), 5)) is Reason.OVERLOADED
    quota.spend("a", clock.now(), 4)
    assert reason_of(lambda: quota.spend("a", clock.now())) is Reason.OVERLOADED


def test_few_peers_are_kept_in_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PEERS_REMEMBERED_MAX", 10)
    clock, quota = ManualClock(), Quota()
    for number in range(100):
        quota.spend(f"peer {number}", clock.now())
    assert len(quota._buckets) == 10


def test_the_same_enrolment_again_is_no_conflict() -> None:
    machine.check_same(None, ENROLMENT)
    machine.check_same(ENROLMENT, ENROLMENT)


@pytest.mark.parametrize("field", ["ek_sha256", "ek_name", "ak_public", "ak_name"])
def test_any_other_key_under_a_hosts_name_is_a_conflict(field: str) -> None:
    from dataclasses import replace

    other = replace(ENROLMENT, **{field: b"other"})
    assert reason_of(lambda: machine.check_same(ENROLMENT, other)) is Reason.ENROLMENT_CONFLICT


@pytest.mark.parametrize(
    ("kinds", "approval", "expected"),
    [
        ([], 1, None),
        ([NoticeKind.SUSPENSION], 1, Reason.HOST_SUSPENDED),
        ([NoticeKind.SUSPENSION], 2, None),
        ([NoticeKind.REVOCATION], 1, Reason.HOST_REVOKED),
        ([NoticeKind.REVOCATION], 2, None),
        ([NoticeKind.SUSPENSION, NoticeKind.REVOCATION], 1, Reason.HOST_REVOKED),
        ([NoticeKind.REVOCATION, NoticeKind.SUSPENSION], 1, Reason.HOST_REVOKED),
    ],
)
def test_a_notice_stands_until_a_greater_approval(
    kinds: list[NoticeKind], approval: int, expected: Reason | None
) -> None:
    notices = [a_notice(number + 1, kind) for number, kind in enumerate(kinds)]
    assert machine.stands(notices, approval) is expected


def test_a_notice_that_says_nothing_new_is_not_given() -> None:
    suspended, revoked = [a_notice(1)], [a_notice(1, NoticeKind.REVOCATION)]
    assert machine.needs_notice([], NoticeKind.SUSPENSION, 1)
    assert not machine.needs_notice(suspended, NoticeKind.SUSPENSION, 1)
    assert machine.needs_notice(suspended, NoticeKind.SUSPENSION, 2)
    assert machine.needs_notice(suspended, NoticeKind.REVOCATION, 1)
    assert not machine.needs_notice(revoked, NoticeKind.REVOCATION, 1)
    assert not machine.needs_notice(revoked, NoticeKind.SUSPENSION, 1)


def test_what_stands_is_denied_with_the_remedy() -> None:
    machine.forbid(None, HOST)
    with pytest.raises(DeniedError, match="greater number"):
        machine.forbid(Reason.HOST_SUSPENDED, HOST)
