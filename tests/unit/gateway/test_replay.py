import tracemalloc

import pytest

from fabric.gateway.replay import Mark, Replays, Stored
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import SIGNED_RECORDS_MAX

KEY = ("spiffe://d/G01/s/a", b"epoch", 0)
OTHER = ("spiffe://d/G01/s/a", b"epoch", 1)


def marks(*counters: int, key: tuple[str, bytes, int] = KEY, salt: bytes = b"") -> list[Mark]:
    return [Mark(key, counter, bytes([counter]) + salt) for counter in counters]


def sent(*batches: list[Mark]) -> Replays:
    replays = Replays()
    for batch in batches:
        assert replays.check(batch) is None
        replays.sent(batch)
    return replays


def is_replayed(replays: Replays, batch: list[Mark]) -> bool:
    try:
        replays.check(batch)
    except PeerError as exc:
        return exc.reason is Reason.REPLAYED
    return False


def test_rising_counters_pass_also_with_gaps() -> None:
    sent(marks(0), marks(1), marks(5), marks(6, 7))


def test_a_lower_counter_is_replayed() -> None:
    replays = sent(marks(0), marks(1))
    assert is_replayed(replays, marks(0))
    assert not is_replayed(replays, marks(0, key=OTHER))


def test_another_hash_for_the_last_counter_is_replayed() -> None:
    assert is_replayed(sent(marks(1)), marks(1, salt=b"x"))


def test_counters_rise_within_a_batch() -> None:
    assert is_replayed(Replays(), marks(2, 1))
    assert is_replayed(Replays(), marks(1, 1))


def test_the_same_batch_is_forwarded_again_while_its_outcome_is_unknown() -> None:
    replays = sent(marks(3))
    assert replays.check(marks(3)) is None


def test_the_same_batch_gets_its_outcome_once_it_is_stored() -> None:
    replays = sent(marks(3, 4))
    replays.stored(marks(3, 4), 77)
    assert replays.check(marks(3, 4)) == Stored(offset=77)
    assert is_replayed(replays, marks(4))


def test_an_outcome_that_comes_late_does_not_hide_a_later_batch() -> None:
    replays = sent(marks(3), marks(4))
    replays.stored(marks(3), 77)
    assert is_replayed(replays, marks(3))
    assert replays.check(marks(4)) is None


def test_an_epoch_change_inside_a_batch_is_forwarded_again() -> None:
    batch = marks(3) + marks(0, key=OTHER)
    replays = sent(batch)
    replays.stored(batch, 5)
    assert replays.check(batch) is None


def test_the_least_used_is_forgotten() -> None:
    replays = Replays(size=2)
    keys = [("s", b"e", partition) for partition in range(3)]
    for key in keys:
        replays.sent(marks(1, key=key))
    assert len(replays) == 2
    assert not is_replayed(replays, marks(0, key=keys[0]))
    assert is_replayed(replays, marks(0, key=keys[2]))


@pytest.mark.parametrize("batch", [[], marks(1)])
def test_what_was_never_sent_is_not_remembered(batch: list[Mark]) -> None:
    replays = Replays()
    replays.stored(batch, 1)
    assert replays.check(batch) is None


def test_a_batch_that_cannot_be_stored_leaves_its_counters_free() -> None:
    """A block that was too large for the broker comes again in halves, from the same counter."""
    replays = sent(marks(0, 1), marks(2, 3))
    replays.forget(marks(2, 3))
    assert not is_replayed(replays, marks(2, salt=b"half"))
    assert is_replayed(replays, marks(1, salt=b"other"))
    replays.sent(marks(2, salt=b"half"))
    replays.forget(marks(2, 3))
    assert is_replayed(replays, marks(2, salt=b"another"))


def test_what_is_stored_is_not_forgotten() -> None:
    replays = sent(marks(0))
    replays.stored(marks(0), 7)
    replays.forget(marks(0))
    assert is_replayed(replays, marks(0, salt=b"other"))


def test_the_first_batch_of_an_epoch_is_forgotten_wholly() -> None:
    replays = sent(marks(0))
    replays.forget(marks(0))
    assert len(replays) == 0


def test_a_batch_that_was_sent_before_a_later_one_is_forgotten_as_well() -> None:
    """Neither went out: the place of the first is as free as that of the second."""
    replays = sent(marks(0), marks(1), marks(2))
    replays.stored(marks(0), 7)
    replays.forget(marks(1))
    replays.forget(marks(2))
    assert not is_replayed(replays, marks(1, salt=b"sealed anew"))
    assert replays.check(marks(0)) == Stored(offset=7)
    assert is_replayed(replays, marks(0, salt=b"other"))


def test_what_a_broker_refuses_for_good_was_refused_each_time_it_was_sent() -> None:
    """A block whose first answer got lost, and that is too large: it comes again in halves."""
    replays = sent(marks(0), marks(0))
    replays.refused(marks(0))
    assert not is_replayed(replays, marks(0, salt=b"half"))
    assert len(replays) == 0


def test_what_was_sent_once_stays_where_a_second_sending_came_to_nothing() -> None:
    replays = sent(marks(0), marks(0))
    replays.forget(marks(0))
    assert replays.check(marks(0)) is None
    assert is_replayed(replays, marks(0, salt=b"other"))


def test_what_is_stored_is_no_more_refused() -> None:
    replays = sent(marks(0))
    replays.stored(marks(0), 7)
    replays.refused(marks(0))
    assert replays.check(marks(0)) == Stored(offset=7)


def test_an_outcome_ends_the_way_back_and_counts_behind_a_later_batch() -> None:
    replays = sent(marks(0), marks(1), marks(2))
    replays.stored(marks(1), 7)
    replays.forget(marks(2))
    assert replays.check(marks(1)) == Stored(offset=7)


def test_of_however_many_batches_of_whatever_size_little_is_kept() -> None:
    replays = Replays()
    tracemalloc.start()
    for first in range(0, 200 * SIGNED_RECORDS_MAX, SIGNED_RECORDS_MAX):
        counters = range(first, first + SIGNED_RECORDS_MAX)
        replays.sent([Mark(KEY, counter, counter.to_bytes(32)) for counter in counters])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 16 * 1024
    assert not is_replayed(replays, marks(250, key=OTHER))
