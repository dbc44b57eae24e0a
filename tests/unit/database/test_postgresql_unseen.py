"""fabric.database.postgresql_unseen"""

from fabric.database.postgresql_unseen import Unseen
from fabric.database.postgresql_window import Visible


def test_what_a_snapshot_saw_is_forgotten() -> None:
    unseen = Unseen()
    for xid in (9, 12, 10):
        unseen.passed(xid)
    assert unseen.span == (9, 12)
    assert not unseen.settle(Visible.parse("10:20:10,15"))
    assert unseen.span == (10, 10)
    assert unseen.settle(Visible.parse("15:20:15"))
    assert unseen.span is None


def test_however_many_follow_what_waits_is_kept() -> None:
    unseen = Unseen()
    unseen.passed(9)
    for xid in range(10, 20_000):
        unseen.passed(xid)
    assert unseen.is_full
    assert not unseen.settle(Visible.parse("9:20000:9"))
    assert (unseen.is_full, unseen.span) == (False, (9, 9))


def test_what_runs_in_the_span_of_the_past_may_have_gone_by() -> None:
    unseen = Unseen((10, 14))
    assert not unseen.settle(Visible.parse("5:20:5,12,19"))
    assert unseen.span == (10, 14)
    assert unseen.settle(Visible.parse("5:20:5,19"))
    assert unseen.span is None


def test_the_newest_of_the_past_may_lie_behind_a_snapshots_end() -> None:
    assert not Unseen((10, 14)).settle(Visible.parse("14:14:"))
    assert Unseen((10, 14)).settle(Visible.parse("15:15:"))


def test_what_goes_by_now_did_not_go_by_before() -> None:
    unseen = Unseen((10, 14))
    unseen.passed(12)
    assert not unseen.settle(Visible.parse("12:20:12"))
    assert unseen.span == (12, 12)


def test_a_span_is_handed_on_until_it_is_seen() -> None:
    unseen = Unseen((10, 14))
    unseen.passed(17)
    assert unseen.span == (10, 17)
    assert not unseen.settle(Visible.parse("11:20:11"))
    assert unseen.span == (10, 14)


def test_a_span_goes_round_with_the_ids() -> None:
    unseen = Unseen((2**32 - 2, 2**32 - 1))
    unseen.passed(3)
    assert unseen.span == (2**32 - 2, 3)
    after = 2**32
    assert not unseen.settle(Visible.parse(f"{after - 1}:{after + 9}:{after - 1}"))
    assert unseen.settle(Visible.parse(f"{after + 9}:{after + 9}:"))
