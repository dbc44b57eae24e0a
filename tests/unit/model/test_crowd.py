"""Whoever holds most places gives way first, with its oldest one."""

from fabric.model.crowd import Crowd


def crowd(*places: str) -> Crowd[str]:
    """Places named by their share and a number, in the order in which they were taken."""
    made: Crowd[str] = Crowd()
    for place in places:
        made.add(place, place[0])
    return made


def pushed_out(from_: Crowd[str], count: int) -> list[str]:
    return [from_.give_way() for _ in range(count)]


def test_who_holds_most_gives_way_with_its_oldest_place() -> None:
    assert pushed_out(crowd("a1", "b1", "b2", "c1", "b3"), 2) == ["b1", "b2"]


def test_of_several_that_hold_as_much_the_oldest_place_goes() -> None:
    assert pushed_out(crowd("a1", "b1", "c1"), 3) == ["a1", "b1", "c1"]
    places = crowd("a1", "b1", "b2", "a2")
    assert places.drop("a1") == "a"
    places.add("a3", "a")
    assert pushed_out(places, 2) == ["b1", "a2"]


def test_who_crowds_in_pushes_out_its_own_however_often_it_comes_back() -> None:
    places = crowd("a1", *(f"b{n}" for n in range(10)))
    for n in range(10, 100):
        places.add(f"b{n}", "b")
        assert pushed_out(places, 1) == [f"b{n - 10}"]
    assert places.held("a") == 1


def test_a_place_that_is_free_already_is_not_freed_again() -> None:
    places = crowd("a1", "a2")
    assert places.drop("a1") == "a"
    assert places.drop("a1") is None
    assert (len(places), places.held("a"), places.held("b")) == (1, 1, 0)
    assert places.drop("a2") == "a"
    assert len(places) == 0
