"""Room in all, for each writer, and for each of its places."""

from collections.abc import Callable

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


def crowd_in(
    it: NewestRoom, writer: HostId, name: bytes, check: Callable[[bytes], object] = bytes
) -> list[bytes]:
    """Take one more, of which by default nobody can tell whose it is; what had to go for it."""
    it.take(writer, name)
    return [*it.excess(writer, check)]


def test_whoever_fills_its_own_room_loses_its_oldest() -> None:
    it = NewestRoom(9, 3)
    gone = [crowd_in(it, A, bytes([n])) for n in range(5)]
    assert gone == [[], [], [], [b"\0"], [b"\1"]]
    assert crowd_in(it, B, b"\0") == []


def test_where_all_is_full_whoever_has_most_loses_its_oldest() -> None:
    it = NewestRoom(5, 3)
    assert [crowd_in(it, A, bytes([n])) for n in range(3)] == [[]] * 3
    assert [crowd_in(it, B, bytes([n])) for n in range(2)] == [[]] * 2
    assert crowd_in(it, C, b"c") == [b"\0"]
    assert {writer: [*names.all] for writer, names in it._kept.items()} == {
        A: [b"\1", b"\2"],
        B: [b"\0", b"\1"],
        C: [b"c"],
    }


def test_it_says_what_it_keeps_of_a_writer_and_whether_anything_had_to_go() -> None:
    it = NewestRoom(9, 2)
    for name in (b"2", b"1"):
        crowd_in(it, A, name)
    assert ([*it.names(A)], [*it.names(B)], it.has_let_go) == ([b"2", b"1"], [], False)
    crowd_in(it, A, b"3")
    assert ([*it.names(A)], it.has_let_go) == ([b"1", b"3"], True)


def test_what_is_proven_goes_by_its_age_and_only_when_no_other_can() -> None:
    it = NewestRoom(9, 3)
    for name in (b"1", b"2", b"3"):
        it.take(A, name)
    for name in (b"3", b"2"):  # proven in another order than it came
        it.prove(A, name)
    assert crowd_in(it, A, b"x", lambda name: it.give_back(A, name) if name == b"1" else 0) == []
    assert crowd_in(it, A, b"4") == [b"x"]
    it.prove(A, b"4")
    assert crowd_in(it, A, b"5") == [b"2"]


def test_what_can_be_checked_late_is_proven_before_it_would_go() -> None:
    it = NewestRoom(9, 2)
    assert [crowd_in(it, A, name) for name in (b"1", b"2", b"3")] == [[], [], [b"1"]]
    assert crowd_in(it, A, b"4", lambda name: it.prove(A, name) if name == b"2" else 0) == [b"3"]
    assert [*it._kept[A].all] == [b"2", b"4"]


def test_checks_come_a_few_at_a_time_and_a_seventh_more_is_kept_meanwhile() -> None:
    it, checked, most = NewestRoom(9_000, 700), [0], 0

    def prove(name: bytes) -> None:
        checked[0] += 1
        it.prove(A, name)

    for n in range(1_600):
        before = checked[0]
        crowd_in(it, A, n.to_bytes(2, "big"), prove)
        assert checked[0] - before <= 8
        most = max(most, len(it._kept[A].all))
    assert most <= 800
    assert checked[0] <= 1_600
    assert [*it._kept[A].all] == [n.to_bytes(2, "big") for n in range(900, 1_600)]


def test_what_is_given_back_takes_no_room_and_leaves_nothing() -> None:
    it = NewestRoom(2, 2)
    for name in (b"1", b"2"):
        assert crowd_in(it, A, name) == []
    it.give_back(A, b"1")
    assert crowd_in(it, B, b"1") == []
    it.give_back(A, b"2")
    it.give_back(B, b"1")
    assert (it._kept, it._shares.total) == ({}, 0)
