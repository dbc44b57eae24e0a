"""A flood of one kind is a few lines a minute, and hides no other kind."""

from fabric.agent.sparing import EVENTS_MAX, KINDS_MAX, STANDING_S, Sparing


def test_a_flood_is_written_in_part_and_counted_whole() -> None:
    sparing = Sparing()
    said = [sparing.unsaid("garbage", 0.0) for _ in range(1_000)]
    assert said[:EVENTS_MAX] == [0] * EVENTS_MAX
    assert set(said[EVENTS_MAX:]) == {None}
    assert sparing.unsaid("other", 0.0) == 0
    assert sparing.unsaid("garbage", 59.9) is None
    assert sparing.unsaid("garbage", 60.0) == 1_000 - EVENTS_MAX + 1
    assert sparing.unsaid("garbage", 60.0) == 0


def test_kinds_without_end_take_no_memory_without_end() -> None:
    sparing = Sparing()
    written = [sparing.unsaid(n, 0.0) for n in range(KINDS_MAX + 100)]
    assert written[: KINDS_MAX + EVENTS_MAX] == [0] * (KINDS_MAX + EVENTS_MAX)
    assert set(written[KINDS_MAX + EVENTS_MAX :]) == {None}
    assert len(sparing._kinds) == KINDS_MAX + 1


def test_how_many_are_written_in_how_long_is_the_callers_to_say() -> None:
    sparing = Sparing(events_max=1, period_s=STANDING_S)
    assert [sparing.unsaid("stands", at) for at in (0.0, 1.0, 599.0)] == [0, None, None]
    assert sparing.unsaid("stands", 600.0) == 2
