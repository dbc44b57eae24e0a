from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import permutations

import pytest

from fabric.attest import kept as kept_module
from fabric.attest import members as members_module
from fabric.attest.anchors import Anchor
from fabric.attest.members import (
    HostState,
    Members,
    MemberState,
    Notice,
    NoticeKind,
    heartbeat_record,
    host_record,
    notice_record,
    result_record,
)
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.names import MEMBERS, RESULTS
from tests.fakes.verifier import (
    HOST,
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
SECOND = timedelta(seconds=1)
SUSPENSION, REVOCATION = NoticeKind.SUSPENSION, NoticeKind.REVOCATION
REINSTATEMENT = NoticeKind.REINSTATEMENT
Statement = Result | HostState | Notice | tuple[int, datetime]


def kept(result: Result) -> Result:
    """A result as a view keeps it: its heads are anchors."""
    return replace(result, heads=())


def _record(statement: Statement) -> tuple[str, bytes, bytes]:
    if isinstance(statement, Result):
        return RESULTS, *result_record(statement, TRUST_DOMAIN, VERIFIER.signers)
    if isinstance(statement, HostState):
        return MEMBERS, *host_record(statement, VERIFIER.signers)
    if isinstance(statement, Notice):
        return MEMBERS, *notice_record(statement, VERIFIER.signers)
    return MEMBERS, *heartbeat_record(a_beat(*statement), VERIFIER.signers)


def _members(*statements: Statement) -> Members:
    members = Members(VERIFIER.trust)
    told = [statement for statement in statements if isinstance(statement, Notice)]
    for statement in statements:
        if isinstance(statement, tuple):
            record = heartbeat_record(a_beat(*statement, told), VERIFIER.signers)
            members.feed(MEMBERS, *record)
        else:
            members.feed(*_record(statement))
    return members


def _why(members: Members, now: datetime = NOW) -> Reason | None:
    try:
        members.current(HOST, now)
    except DeniedError as exc:
        return exc.reason
    return None


def _in_every_order(statements: Sequence[Statement], expected: Reason | None) -> None:
    records = [_record(statement) for statement in statements]
    for order in permutations(records):
        members = Members(VERIFIER.trust)
        for record in (*order, *order):  # everything twice
            members.feed(*record)
        assert _why(members, NOW + timedelta(minutes=1)) is expected


RESULT = a_result()
STATE = a_state(RESULT)


def test_attested_host_acts_under_its_result() -> None:
    assert _members(RESULT, STATE).current(HOST, NOW) == kept(RESULT)


def test_unknown_host_is_not_attested() -> None:
    assert _why(_members(RESULT)) is Reason.NOT_ATTESTED


def test_result_that_was_not_seen_yet_is_unknown() -> None:
    assert _why(_members(STATE)) is Reason.RESULT_UNKNOWN
    with pytest.raises(DeniedError) as denied:
        _members().result(RESULT.id)
    assert denied.value.reason is Reason.RESULT_UNKNOWN


def test_result_ends_at_its_end() -> None:
    members = _members(RESULT, STATE)
    assert _why(members, RESULT.expires - SECOND) is None
    assert _why(members, RESULT.expires) is Reason.RESULT_EXPIRED


def test_result_ends_though_the_state_claims_longer() -> None:
    members = _members(RESULT, a_state(RESULT, expires=RESULT.expires + 60 * SECOND))
    assert _why(members, RESULT.expires) is Reason.RESULT_EXPIRED


def test_result_from_the_future_waits() -> None:
    members = _members(RESULT, STATE)
    assert _why(members, NOW - 30 * SECOND) is None
    assert _why(members, NOW - 31 * SECOND) is Reason.RESULT_UNKNOWN


@pytest.mark.parametrize("change", [{"host": OTHER}, {"approval": 2}], ids=["host", "approval"])
def test_state_that_names_anothers_result_attests_nobody(change: dict[str, object]) -> None:
    result = a_result(**change)
    members = _members(result, a_state(result, host=HOST, approval=1))
    assert _why(members) is Reason.NOT_ATTESTED


def test_newer_state_replaces_an_older_one_in_every_order() -> None:
    newer = a_result(issued=NOW + SECOND)
    for order in permutations([RESULT, STATE, newer, a_state(newer)]):
        assert _members(*order).current(HOST, NOW) == kept(newer)


def test_state_after_a_later_notice_is_newer_than_one_with_a_later_time() -> None:
    newer = a_result(revocation_number=1)
    members = _members(RESULT, a_state(RESULT, since=NOW + SECOND), newer, a_state(newer))
    assert members.hosts[HOST].result_id == newer.id


def test_of_two_states_of_one_moment_the_worse_is_kept() -> None:
    suspended = a_state(RESULT, state=MemberState.SUSPENDED)
    for order in permutations([RESULT, STATE, suspended]):
        assert _why(_members(*order)) is Reason.HOST_SUSPENDED


def test_suspension_stands_in_every_order_against_later_results_of_its_approval() -> None:
    newer = a_result(issued=NOW + 9 * SECOND, revocation_number=1)
    _in_every_order([newer, a_state(newer), a_notice(1)], Reason.HOST_SUSPENDED)


def test_suspension_is_lifted_by_an_approval_with_a_greater_number() -> None:
    newer = a_result(approval=2, revocation_number=1)
    _in_every_order([newer, a_state(newer), a_notice(1)], None)


def test_suspension_is_lifted_by_a_later_reinstatement() -> None:
    _in_every_order([RESULT, STATE, a_notice(1), a_notice(2, REINSTATEMENT)], None)


def test_suspension_is_not_lifted_by_an_earlier_reinstatement() -> None:
    _in_every_order([RESULT, STATE, a_notice(1, REINSTATEMENT), a_notice(2)], Reason.HOST_SUSPENDED)


def test_suspension_is_not_lifted_by_a_reinstatement_of_an_earlier_approval() -> None:
    result = a_result(approval=2)
    lifted = a_notice(2, REINSTATEMENT, approval=1)
    _in_every_order(
        [result, a_state(result), a_notice(1, approval=2), lifted], Reason.HOST_SUSPENDED
    )


def test_reinstatement_under_an_earlier_approval_does_not_lift_a_later_ones_suspension() -> None:
    suspended, lifted = a_notice(1, approval=2), a_notice(2, REINSTATEMENT, approval=1)
    _in_every_order([RESULT, STATE, suspended, lifted], Reason.HOST_SUSPENDED)


def test_suspension_of_a_later_approval_covers_the_earlier_one() -> None:
    assert _why(_members(RESULT, STATE, a_notice(1, approval=2))) is Reason.HOST_SUSPENDED


def test_revocation_wins_in_every_order_over_renewal_and_reinstatement() -> None:
    newer = a_result(issued=NOW + 9 * SECOND, revocation_number=2)
    _in_every_order(
        [newer, a_state(newer), a_notice(1, REVOCATION), a_notice(2, REINSTATEMENT)],
        Reason.HOST_REVOKED,
    )


def test_revocation_is_final_for_its_approval_only() -> None:
    newer = a_result(approval=2, revocation_number=1)
    _in_every_order([newer, a_state(newer), a_notice(1, REVOCATION)], None)


def test_notice_about_another_host_changes_nothing() -> None:
    members = _members(RESULT, STATE, a_notice(1, REVOCATION, host=OTHER))
    assert _why(members) is None


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (MemberState.SUSPENDED, Reason.HOST_SUSPENDED),
        (MemberState.REVOKED, Reason.HOST_REVOKED),
    ],
)
def test_state_itself_may_say_suspended_or_revoked(state: MemberState, reason: Reason) -> None:
    assert _why(_members(RESULT, a_state(RESULT, state=state))) is reason


def test_notices_are_counted_without_a_gap() -> None:
    members = _members(a_notice(1), a_notice(3))
    assert members.revocation_number == 1
    members.feed(*_record(a_notice(2, host=OTHER)))
    assert members.revocation_number == 3


def test_two_notices_of_one_number_are_a_fork_and_both_take_away() -> None:
    mine, others = a_notice(1), a_notice(1, host=OTHER)
    for first, second in ((mine, others), (others, mine)):
        members = _members(RESULT, STATE, first)
        with pytest.raises(PeerError) as refused:
            members.feed(*_record(second))
        assert refused.value.reason is Reason.FORK
        assert _why(members) is Reason.HOST_SUSPENDED


def test_disputed_reinstatement_lifts_nothing_in_any_order() -> None:
    lift, other = a_notice(2, REINSTATEMENT), a_notice(2, host=OTHER)
    for first, second in ((lift, other), (other, lift)):
        members = _members(RESULT, STATE, a_notice(1), first)
        with pytest.raises(PeerError):
            members.feed(*_record(second))
        assert _why(members) is Reason.HOST_SUSPENDED


def test_two_results_of_one_id_are_a_fork_and_the_first_stays() -> None:
    members = _members(RESULT)
    with pytest.raises(PeerError) as refused:
        members.feed(*_record(a_result(id=RESULT.id, level=5)))
    assert refused.value.reason is Reason.FORK
    assert members.result(RESULT.id) == kept(RESULT)


def test_view_is_fresh_with_a_recent_heartbeat_and_every_notice() -> None:
    _members(a_notice(1), (1, NOW)).check_fresh(NOW + 2 * SECOND, 1.0)


@pytest.mark.parametrize(
    ("members", "now"),
    [
        (_members(a_notice(1)), NOW),
        (_members((0, NOW)), NOW + 2 * SECOND + SECOND / 10),
        (_members((0, NOW)), NOW - 31 * SECOND),
        (_members((1, NOW)), NOW),
        (_members(a_notice(1), a_notice(3), (1, NOW)), NOW),
        (_members(a_notice(2), (2, NOW)), NOW),
    ],
    ids=["no heartbeat", "old", "future", "hidden notice", "gap above", "gap below"],
)
def test_view_that_is_old_or_has_a_gap_is_stale(members: Members, now: datetime) -> None:
    with pytest.raises(DeniedError) as denied:
        members.check_fresh(now, 1.0)
    assert denied.value.reason is Reason.MEMBERS_STALE


def test_heartbeat_that_is_later_than_the_readers_clock_allows_changes_nothing() -> None:
    """MUST-9.42."""
    members = _members((0, NOW))
    with pytest.raises(DeniedError) as refused:
        members.feed(*_record((0, NOW + 2 * SECOND)), latest=NOW + SECOND)
    assert refused.value.reason is Reason.FROM_THE_FUTURE
    assert members.heartbeat == NOW
    assert members.from_future == NOW + 2 * SECOND
    members.feed(*_record((0, NOW + SECOND)), latest=NOW + SECOND)
    assert (members.heartbeat, members.whole_at) == (NOW + SECOND, NOW + SECOND)
    assert members.from_future is None
    members.check_fresh(NOW + SECOND, 1.0)


def test_view_that_was_shown_a_later_heartbeat_does_not_go_by_an_older_one() -> None:
    """A clock that was set back comes to the time of the last heartbeat that it took again."""
    members = _members((0, NOW))
    with pytest.raises(DeniedError):
        members.feed(*_record((0, NOW + 3600 * SECOND)), latest=NOW)
    members.feed(*_record((0, NOW)), latest=NOW)  # a broker shows what was before once more
    assert members.whole_at is None
    with pytest.raises(DeniedError) as denied:
        members.check_fresh(NOW, 1.0)
    assert denied.value.reason is Reason.MEMBERS_STALE


def test_notice_of_the_future_takes_away_at_once() -> None:
    members = _members(RESULT, STATE)
    members.feed(*_record(a_notice(1, at=NOW + 9 * SECOND)), latest=NOW)
    assert _why(members) is Reason.HOST_SUSPENDED


def test_old_heartbeat_never_replaces_a_newer_one() -> None:
    members = _members((0, NOW + SECOND), (0, NOW))
    assert members.heartbeat == NOW + SECOND


@pytest.mark.parametrize(
    ("notices", "seconds", "expected"),
    [
        ([], -31, Reason.NOT_ATTESTED),
        ([], -30, None),
        ([], 0, None),
        ([], 599, None),
        ([], 600, Reason.RESULT_EXPIRED),
        ([a_notice(5)], 4, None),
        ([a_notice(5)], 5, Reason.HOST_SUSPENDED),
        ([a_notice(5), a_notice(9, REINSTATEMENT)], 8, Reason.HOST_SUSPENDED),
        ([a_notice(5), a_notice(9, REINSTATEMENT)], 9, None),
        ([a_notice(5, REVOCATION)], 4, None),
        ([a_notice(5, REVOCATION), a_notice(9, REINSTATEMENT)], 10, Reason.HOST_REVOKED),
        ([a_notice(5, approval=0)], 10, None),
    ],
)
def test_reader_takes_what_was_trusted_then(
    notices: list[Notice], seconds: int, expected: Reason | None
) -> None:
    members = _members(*notices)
    assert members.was_trusted(RESULT, NOW + seconds * SECOND) is expected


@pytest.mark.parametrize(
    ("topic", "statement"), [(RESULTS, STATE), (MEMBERS, RESULT), ("fabric.grants.x", STATE)]
)
def test_record_on_another_topic_is_refused(topic: str, statement: Statement) -> None:
    _, key, value = _record(statement)
    with pytest.raises(PeerError):
        Members(VERIFIER.trust).feed(topic, key, value)


def test_result_under_another_key_is_malformed() -> None:
    _, _, value = _record(RESULT)
    with pytest.raises(Malformed):
        Members(VERIFIER.trust).feed(RESULTS, b"verifier/" + bytes(16).hex().encode(), value)


@pytest.mark.parametrize("statement", [RESULT, STATE, a_notice(1), (0, NOW)], ids=type)
def test_record_of_a_foreign_signer_is_refused_and_leaves_no_trace(statement: Statement) -> None:
    members = Members(Verifier().trust)
    with pytest.raises(PeerError) as refused:
        members.feed(*_record(statement))
    assert refused.value.reason is Reason.BAD_SIGNATURE
    assert (members.hosts, members.revocation_number, members.heartbeat) == ({}, 0, None)


def test_view_holds_a_bounded_number_of_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "RESULTS_KEPT_MAX", 2)
    results = [a_result(expires=NOW + n * SECOND) for n in (2, 1, 3)]
    members = _members(*results, results[1])
    assert [members.result(results[n].id) for n in (0, 2)] == [kept(results[0]), kept(results[2])]
    with pytest.raises(DeniedError) as denied:
        members.result(results[1].id)
    assert denied.value.reason is Reason.RESULT_UNKNOWN


def test_view_tells_whether_it_may_have_let_a_result_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "RESULTS_KEPT_MAX", 2)
    results = [a_result(expires=NOW + n * SECOND) for n in (2, 4, 3, 1)]
    members = _members(*results[:2])
    assert not members.may_have_forgotten(HOST, NOW)
    for result in results[2:]:  # the one that ends at 2, then the one that ended before it
        members.feed(*_record(result))
    assert members.may_have_forgotten(HOST, NOW + SECOND)
    assert not members.may_have_forgotten(HOST, NOW + 2 * SECOND)


def test_view_holds_a_bounded_number_of_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "HOSTS_MAX", 1)
    members = _members(STATE)
    with pytest.raises(PeerError) as refused:
        members.feed(*_record(a_state(a_result(host=OTHER))))
    assert refused.value.reason is Reason.TOO_LARGE


def test_view_that_cannot_hold_every_notice_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members_module, "NOTICES_MAX", 1)
    members = _members(a_notice(1), (2, NOW))
    with pytest.raises(PeerError) as refused:
        members.feed(*_record(a_notice(2)))
    assert refused.value.reason is Reason.TOO_LARGE
    with pytest.raises(DeniedError):
        members.check_fresh(NOW, 1.0)


def test_view_lists_hosts_read_only() -> None:
    members = _members(STATE)
    assert dict(members.hosts) == {HOST: STATE}
    with pytest.raises(TypeError):
        members.hosts[OTHER] = STATE  # type: ignore[index]


def test_view_is_whole_only_for_a_heartbeat_whose_list_is_its_own() -> None:
    """MUST-9.32."""
    members = _members(a_notice(1), a_notice(2))
    assert members.whole_at is None
    members.feed(MEMBERS, *heartbeat_record(a_beat(2, NOW), VERIFIER.signers))
    assert (members.whole_at, members.is_behind) == (None, True)
    good = a_beat(2, NOW + SECOND, [a_notice(1), a_notice(2)])
    members.feed(MEMBERS, *heartbeat_record(good, VERIFIER.signers))
    assert (members.whole_at, members.is_behind) == (NOW + SECOND, False)


def test_a_notice_that_comes_after_its_heartbeat_makes_the_view_whole_again() -> None:
    beat = a_beat(1, NOW, [a_notice(1)])
    members = Members(VERIFIER.trust)
    members.feed(MEMBERS, *heartbeat_record(beat, VERIFIER.signers))
    assert members.is_behind
    members.feed(*_record(a_notice(1)))
    assert (members.whole_at, members.is_behind) == (NOW, False)


def test_an_older_heartbeat_still_holds_when_later_notices_are_known() -> None:
    members = _members(a_notice(1), a_notice(2), (1, NOW))
    assert members.whole_at == NOW


def test_a_hidden_notice_leaves_the_view_as_fresh_as_it_was_before() -> None:
    members = _members((0, NOW))
    beat = a_beat(1, NOW + 5 * SECOND, [a_notice(1)])
    members.feed(MEMBERS, *heartbeat_record(beat, VERIFIER.signers))
    assert (members.whole_at, members.heartbeat) == (NOW, NOW + 5 * SECOND)


def test_two_notices_of_one_number_leave_no_view_whole() -> None:
    members = _members(a_notice(1))
    with pytest.raises(PeerError):
        members.feed(*_record(a_notice(1, host=OTHER)))
    for notice in (a_notice(1), a_notice(1, host=OTHER)):
        beat = heartbeat_record(a_beat(1, NOW, [notice]), VERIFIER.signers)
        members.feed(MEMBERS, *beat)
    assert members.whole_at is None


def test_heads_of_results_and_notices_are_anchors_of_their_host_alone() -> None:
    head, other = b"h" * 32, b"o" * 32
    members = _members(a_result(heads=(head,)), a_notice(1, heads=(other,)))
    assert members.anchor(HOST, head) == Anchor(host=HOST, noticed=None)
    assert members.anchor(HOST, other) == Anchor(host=HOST, noticed=a_notice(1).at)
    assert members.anchor(OTHER, head) is None
    assert members.carried(HOST) == (head,)


def test_a_result_is_named_by_its_hosts_newest_state_alone() -> None:
    members = _members(STATE)
    assert members.is_named(RESULT.id)
    assert not members.knows(RESULT.id)
    assert not members.is_named(bytes(16))
