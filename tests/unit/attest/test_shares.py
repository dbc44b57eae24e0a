"""Whose turn it is: the host with most, at any order of additions and removals."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fabric.attest.shares import Shares
from fabric.model.names import HostId

HOSTS = [HostId.parse(f"G01/registry/a{n}") for n in range(4)]


@given(st.lists(st.tuples(st.sampled_from(HOSTS), st.booleans())))
def test_the_host_with_most_is_named_after_every_step(steps: list[tuple[HostId, bool]]) -> None:
    shares, held = Shares(), Counter[HostId]()
    for host, is_more in steps:
        if is_more:
            shares.add(host)
            held[host] += 1
        elif held[host]:
            shares.drop(host)
            held[host] -= 1
        assert shares.total == held.total()
        if held.total():
            assert held[shares.largest()] == max(held.values())


def test_of_two_with_as_much_the_later_one_gives_way() -> None:
    shares = Shares()
    for host in (HOSTS[0], HOSTS[1]):
        shares.add(host)
    assert shares.largest() == HOSTS[1]


def test_nothing_is_remembered_of_a_host_that_holds_nothing_any_more() -> None:
    shares = Shares()
    shares.add(HOSTS[0])
    shares.drop(HOSTS[0])
    assert not shares._held
    assert not shares._by_count
