"""Events without end: the first of a kind is told, the others are counted, and all is bounded."""

from fabric.model.counting import Kinds

REST = "rest"


def told(kinds: Kinds[str], *events: str) -> list[str]:
    """Those events that are to be written at once."""
    return [event for event in events if kinds.is_first(event, REST)]


def test_the_first_of_a_kind_is_told_and_the_others_are_counted_once() -> None:
    kinds = Kinds[str](10)
    assert told(kinds, *"abaab") == ["a", "b"]
    assert kinds.flush() == ([("a", 2), ("b", 1)], [])
    assert kinds.flush() == ([], [])
    assert told(kinds, "a") == []
    assert kinds.flush() == ([("a", 1)], [])


def test_beyond_so_many_kinds_events_are_counted_together_and_none_told() -> None:
    kinds = Kinds[str](2)
    assert told(kinds, *"abcdefa") == ["a", "b"]
    assert "b" in kinds
    assert "c" not in kinds
    assert kinds.flush() == ([("a", 1), (REST, 4)], [])
    assert len(kinds) == 3


def test_a_kind_that_rests_is_forgotten_and_makes_room() -> None:
    kinds = Kinds[str](1)
    told(kinds, "a")
    rounds = [kinds.flush() for _ in range(7)]
    assert rounds == [([], [])] * 6 + [([], ["a"])]
    assert len(kinds) == 0
    assert told(kinds, "b", "a") == ["b"]


def test_a_kind_that_comes_again_in_time_is_not_forgotten() -> None:
    kinds = Kinds[str](1)
    for _ in range(4):
        kinds.is_first("a", REST)
        for _ in range(6):
            kinds.flush()
    assert "a" in kinds
