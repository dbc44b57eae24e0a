"""Parts built from policy and state file."""

import asyncio

import pytest

from fabric.agent.lane import SealedLane
from fabric.agent.open_lane import OpenLane
from fabric.agent.parts import is_sealed, origin_of, publisher, source_tables
from fabric.model.change import Sequence
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import Stream, Topic
from fabric.store.state import SourceState, StreamHead
from tests.fakes.platform import NOTES, OPEN, ORIGIN, SECRET, A, TestHost, dataset
from tests.fakes.running import BLOCK, table
from tests.fakes.source import MemoryDatabase, MemorySource


async def test_a_capture_is_built_from_what_is_remembered(a: TestHost) -> None:
    state = a.host.identity.state
    upto = Sequence(7, 5, 1)
    state.save_heads([StreamHead(stream=Stream(ORIGIN, OPEN, 0), head=None, upto=upto)])
    state.save_source("main", SourceState(generation=7, position=5, resume="token"))
    made = await publisher(
        a.host,
        "capture main",
        "main",
        reads=MemorySource(MemoryDatabase([table()])),
        topics=[SECRET, OPEN],
        block=BLOCK,
        stop=asyncio.Event(),
    )
    plan = made._plan
    assert plan.origin == ORIGIN
    assert plan.resume is not None
    assert plan.resume.resume == "token"
    assert plan.upto == {Stream(ORIGIN, OPEN, 0): upto}
    assert [feed.sealed for feed in plan.feeds] == [True, False]
    assert isinstance(made._lanes[SECRET], SealedLane)
    assert isinstance(made._lanes[OPEN], OpenLane)


def test_a_source_reads_only_what_policy_knows(a: TestHost) -> None:
    (one,) = source_tables(a.host, {"public.notes": SECRET})
    assert (one.table, one.topic, one.schema) == ("public.notes", SECRET, NOTES)
    with pytest.raises(DeniedError) as caught:
        source_tables(a.host, {"t": Topic.parse("secret.G01.unknown")})
    assert caught.value.reason is Reason.TOPIC_UNKNOWN


def test_levels_say_which_form_a_dataset_takes(a: TestHost) -> None:
    assert is_sealed(a.host, dataset(SECRET))
    assert not is_sealed(a.host, dataset(OPEN))


def test_an_origin_is_of_the_system_and_not_of_the_host() -> None:
    assert str(origin_of(A, "main")) == "G01/registry/main"
