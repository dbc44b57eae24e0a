"""fabric.database.postgresql_unseen"""

from fabric.database.postgresql_unseen import Past, Unseen
from fabric.database.postgresql_window import Visible


def ids(*xids: int) -> Past:
    return Past(ids=frozenset(xids))


def test_what_a_snapshot_saw_is_forgotten() -> None:
    unseen = Unseen()
    for xid in (9, 12, 10):
        unseen.passed(xid)
    assert unseen.past == ids(9, 10, 12)
    assert not unseen.settle(Visible.parse("10:20:10,15"))
    assert (unseen.past, unseen.kept) == (ids(10), {10})
    assert unseen.settle(Visible.parse("15:20:15"))
    assert unseen.past == Past()


def test_however_many_follow_what_waits_is_kept() -> None:
    unseen = Unseen()
    unseen.passed(9)
    for xid in range(10, 20_000):
        unseen.passed(xid)
    assert unseen.is_full
    assert not unseen.settle(Visible.parse("9:20000:9"))
    assert (unseen.is_full, unseen.past) == (False, ids(9))


def test_another_transaction_among_those_that_went_by_holds_nothing_up() -> None:
    unseen = Unseen(ids(10, 14).among({5, 10, 12, 14, 19}))
    unseen.passed(17)
    assert unseen.past == ids(10, 14, 17)
    assert unseen.settle(Visible.parse("5:20:5,12,19"))


def test_the_newest_may_lie_behind_a_snapshots_end() -> None:
    assert not Unseen((10, 14)).settle(Visible.parse("14:14:"))
    assert Unseen((10, 14)).settle(Visible.parse("15:15:"))


def test_what_is_visible_is_not_handed_on() -> None:
    assert ids(10, 14).among({12, 14}) == {14}
    assert ids(10, 14).among(()) == frozenset()


def test_too_many_to_name_are_told_by_their_span_and_what_waits_by_its_id() -> None:
    unseen = Unseen((3,))
    for xid in range(100, 163):
        unseen.passed(xid)
    assert unseen.past == ids(3, *range(100, 163))
    unseen.passed(170)
    assert unseen.past == Past(ids=frozenset({3}), span=(100, 170))
    assert not unseen.settle(Visible.parse("3:200:3,90,150"))
    assert unseen.past == ids(3, 150)


def test_too_many_that_wait_are_told_by_their_span() -> None:
    unseen = Unseen(range(10, 75))
    assert unseen.past == Past(span=(10, 74))
    unseen.passed(80)
    assert unseen.past == Past(span=(10, 80))


def test_of_a_span_only_what_is_under_way_at_the_restart_may_be_unseen() -> None:
    past = Past(ids=frozenset({3}), span=(100, 170))
    assert past.among({3, 90, 100, 150, 170, 171}) == {3, 100, 150, 170}


def test_a_span_goes_round_with_the_ids() -> None:
    unseen = Unseen(range(2**32 - 70, 2**32))
    unseen.passed(3)
    assert unseen.past == Past(span=(2**32 - 70, 3))
    assert unseen.past.among({2**32 - 71, 2**32 - 1, 1, 4}) == {2**32 - 1, 1}
    after = 2**32
    assert not unseen.settle(Visible.parse(f"{after - 1}:{after + 9}:{after - 1}"))
    assert unseen.settle(Visible.parse(f"{after + 9}:{after + 9}:"))
