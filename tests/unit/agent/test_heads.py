"""Heads that a host tells: every stream's, and of very many each in its turn."""

from dataclasses import replace

import pytest

from fabric.agent import heads as heads_module
from fabric.agent.heads import Told
from fabric.model.change import Sequence
from fabric.model.limits import HEADS_SPARE
from fabric.model.names import Stream, Topic
from fabric.policy.decide import streams_of
from fabric.policy.types import Policy
from fabric.seal.epoch import Head
from fabric.store.state import StreamHead
from tests.fakes.platform import OPEN, ORIGIN, SECRET, A, TestHost

GONE = Topic.parse("secret.G01.gone")
"""No dataset of the policy; its name stands before SECRET's."""


def save(a: TestHost, count: int) -> list[bytes]:
    heads = []
    for partition in range(count):
        head = Head(
            origin=ORIGIN,
            partition=partition,
            epoch=b"e" * 32,
            counter=1,
            hash=bytes([partition]) * 32,
        )
        stream = Stream(ORIGIN, SECRET, partition)
        heads.append(StreamHead(stream=stream, head=head, upto=Sequence(1, 1, 1)))
    a.host.identity.state.save_heads(heads)
    return [item.head.hash for item in heads if item.head]


def policy_of(a: TestHost, partitions: int) -> Policy:
    """The policy, with so many streams of SECRET."""
    policy = a.platform.policy
    dataset = replace(policy.datasets[str(SECRET)], partitions=partitions)
    return replace(policy, datasets={**policy.datasets, str(SECRET): dataset})


def test_every_streams_head_is_told_and_open_streams_have_none(a: TestHost) -> None:
    hashes = save(a, 3)
    open_stream = Stream(ORIGIN, OPEN, 0)
    a.host.identity.state.save_heads(
        [StreamHead(stream=open_stream, head=None, upto=Sequence(1, 1, 1))]
    )
    told, policy = Told(), policy_of(a, 3)
    for _ in range(2):
        assert {*told.next(a.host.identity.state, {SECRET, OPEN}, policy, A)} == {*hashes}


def test_of_too_many_each_has_its_turn(a: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "RESULT_HEADS_MAX", 2)
    hashes, told, policy = save(a, 5), Told(), policy_of(a, 5)
    turns = [told.next(a.host.identity.state, {SECRET}, policy, A) for _ in range(3)]
    assert [len(turn) for turn in turns] == [2, 2, 2]
    assert {head for turn in turns for head in turn} == {*hashes}


def told_in(a: TestHost, policy: Policy, renewals: int) -> list[set[bytes]]:
    """The heads that the authority takes, of each of so many renewals."""
    told, state, taken = Told(), a.host.identity.state, streams_of(policy, A) + HEADS_SPARE
    return [{*told.next(state, {SECRET}, policy, A)[:taken]} for _ in range(renewals)]


def test_of_too_many_that_the_policy_does_not_name_each_has_its_turn(a: TestHost) -> None:
    """The authority takes HEADS_SPARE of them: a drain waits until it has taken all."""
    hashes, policy = save(a, 2 + 2 * HEADS_SPARE + 1), policy_of(a, 2)
    turns = told_in(a, policy, 3)
    assert all({*hashes[:2]} <= turn for turn in turns), "streams that are read lose nothing"
    assert set().union(*turns) == {*hashes}


@pytest.mark.parametrize("live", [3, 4, 5])
def test_where_streams_alone_fill_a_result_the_others_have_their_turn_too(
    a: TestHost, monkeypatch: pytest.MonkeyPatch, live: int
) -> None:
    monkeypatch.setattr(heads_module, "RESULT_HEADS_MAX", 4)
    hashes = save(a, live + 3)
    turns = told_in(a, policy_of(a, live), 3)
    assert all(len(turn) == 4 for turn in turns)
    assert set().union(*turns) == {*hashes}


def test_what_the_policy_does_not_name_any_more_comes_last(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority cuts there: streams that are still read lose nothing."""
    hashes, state = save(a, 5), a.host.identity.state
    other = StreamHead(
        stream=Stream(ORIGIN, GONE, 0),
        head=Head(origin=ORIGIN, partition=0, epoch=b"e" * 32, counter=1, hash=b"g" * 32),
        upto=Sequence(1, 1, 1),
    )
    state.save_heads([other])
    told = Told().next(state, {SECRET, GONE}, policy_of(a, 4), A)
    assert {*told[:4]} == {*hashes[:4]}
    assert {*told[4:]} == {hashes[4], b"g" * 32}
    monkeypatch.setattr(heads_module, "RESULT_HEADS_MAX", 4)
    assert {*Told().next(state, {SECRET, GONE}, policy_of(a, 4), A)} == {*hashes[:4]}
