"""Heads that a host tells: every stream's, and of very many each in its turn."""

import pytest

from fabric.agent import heads as heads_module
from fabric.agent.heads import Told
from fabric.model.change import Sequence
from fabric.model.names import Stream
from fabric.seal.epoch import Head
from fabric.store.state import StreamHead
from tests.fakes.platform import OPEN, ORIGIN, SECRET, TestHost


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


def test_every_streams_head_is_told_and_open_streams_have_none(a: TestHost) -> None:
    hashes = save(a, 3)
    open_stream = Stream(ORIGIN, OPEN, 0)
    a.host.identity.state.save_heads(
        [StreamHead(stream=open_stream, head=None, upto=Sequence(1, 1, 1))]
    )
    told = Told()
    for _ in range(2):
        assert {*told.next(a.host.identity.state, {SECRET, OPEN})} == {*hashes}


def test_of_too_many_each_has_its_turn(a: TestHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads_module, "RESULT_HEADS_MAX", 2)
    hashes, told = save(a, 5), Told()
    turns = [told.next(a.host.identity.state, {SECRET}) for _ in range(3)]
    assert [len(turn) for turn in turns] == [2, 2, 2]
    assert {head for turn in turns for head in turn} == {*hashes}
