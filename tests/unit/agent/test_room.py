"""Room in all, for each writer, and for each of its places."""

import pytest

from fabric.agent.room import Room
from fabric.model.errors import PeerError, Reason


def refuses(room: Room, *path: str) -> bool:
    try:
        room.take(*path)
    except PeerError as exc:
        return exc.reason is Reason.TOO_LARGE
    return False


def test_one_writer_cannot_take_the_room_of_others() -> None:
    it = Room("grants", (5, 3))
    assert [refuses(it, "a") for _ in range(4)] == [False, False, False, True]
    assert [refuses(it, "b") for _ in range(3)] == [False, False, True]


def test_one_place_of_a_writer_cannot_take_the_room_of_its_others() -> None:
    it = Room("grants", (9, 3, 2))
    assert [refuses(it, "a", "x") for _ in range(3)] == [False, False, True]
    assert [refuses(it, "a", "y") for _ in range(2)] == [False, True]
    assert not refuses(it, "b", "x")


def test_what_is_given_back_can_be_taken_again_and_leaves_nothing() -> None:
    it = Room("grants", (1, 1))
    it.take("a")
    assert refuses(it, "b")
    it.give_back("a")
    assert not it._kept
    it.take("b")
    with pytest.raises(PeerError, match="more grants"):
        it.take("a")
