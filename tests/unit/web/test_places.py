"""Of those who fill a listener, who has to go first."""

from fabric.web.places import Places


def filled(places_max: int, *, known: str = "", strangers: str = "", shaking: str = "") -> Places:
    """Places that are taken by shares of one letter each, in this order."""
    places: Places[str] = Places(places_max)
    for kind, shares in (("known", known), ("stranger", strangers), ("shaking", shaking)):
        for number, share in enumerate(shares):
            place = f"{kind} {share}{number}"
            assert places.add(place, share) is None
            if kind != "shaking":
                places.finished(place, is_known=kind == "known")
    return places


def test_nobody_goes_while_there_is_room() -> None:
    places = filled(4, strangers="aaa")
    assert places.add("new", "b") is None
    assert len(places) == 4


def test_handshakes_go_before_strangers_and_hosts_last() -> None:
    places = filled(3, known="a", strangers="b", shaking="c")
    assert places.add("new 1", "d") == "shaking c0"
    places.finished("new 1", is_known=True)
    assert places.add("new 2", "e") == "stranger b0"
    places.finished("new 2", is_known=True)
    assert places.add("new 3", "f") == "known a0"


def test_of_each_kind_the_oldest_of_the_largest_share_goes() -> None:
    assert filled(4, shaking="abba").add("new", "c") == "shaking a0"
    assert filled(4, shaking="abbc").add("new", "c") == "shaking b1"
    assert filled(4, strangers="abbc").add("new", "c") == "stranger b1"
    assert filled(4, known="abbc").add("new", "c") == "known b1"


def test_a_share_is_as_large_as_what_it_holds_of_that_kind() -> None:
    assert filled(9, known="aaaa", shaking="abbcc").add("new", "c") == "shaking b1"


def test_few_handshakes_are_left_alone_while_strangers_sit() -> None:
    places = filled(8, strangers="aaabbb", shaking="cd")
    assert places.add("new 1", "e") == "stranger a0"
    assert places.add("new 2", "f") == "shaking c0"


def test_few_handshakes_go_all_the_same_before_hosts() -> None:
    assert filled(8, known="aaaaaaa", shaking="b").add("new", "c") == "shaking b0"


def test_who_is_gone_takes_no_place_again_and_goes_only_once() -> None:
    places = filled(1, shaking="a")
    assert places.add("new", "b") == "shaking a0"
    places.finished("shaking a0", is_known=True)
    places.drop("shaking a0")
    assert len(places) == 1
    places.drop("new")
    places.drop("new")
    assert len(places) == 0
