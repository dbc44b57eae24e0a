"""Room in all, for each writer, and for each of its places."""

import pytest

from fabric.agent.room import NewestRoom, Room
from fabric.model.errors import PeerError, Reason
from fabric.model.names import HostId

A, B, C = (HostId("G01", "registry", name) for name in ("a1", "b1", "c1"))


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


def test_whoever_fills_its_own_room_loses_its_oldest() -> None:
    it = NewestRoom(9, 3)
    assert [it.take(A, bytes([n])) for n in range(5)] == [None, None, None, b"\0", b"\1"]
    assert it.take(B, b"\0") is None


def test_where_all_is_full_whoever_has_most_loses_its_oldest() -> None:
    it = NewestRoom(5, 3)
    assert [it.take(A, bytes([n])) for n in range(3)] == [None] * 3
    assert [it.take(B, bytes([n])) for n in range(2)] == [None] * 2
    assert it.take(C, b"c") == b"\0"
    assert it._kept == {
        A: {b"\1": None, b"\2": None},
        B: {b"\0": None, b"\1": None},
        C: {b"c": None},
    }


def test_what_is_given_back_takes_no_room_and_leaves_nothing() -> None:
    it = NewestRoom(2, 2)
    it.take(A, b"1")
    it.take(A, b"2")
    it.give_back(A, b"1")
    assert it.take(B, b"1") is None
    it.give_back(A, b"2")
    it.give_back(B, b"1")
    assert (it._kept, it._shares.total) == ({}, 0)
