"""The Python API as a target: delivery, positions, and coming back."""

from pathlib import Path

import pytest

from fabric.agent.identity import Identity
from fabric.agent.subscription import Position, Subscription
from fabric.model.block import trim
from fabric.model.change import Change
from fabric.ports import StreamState
from fabric.store.file_keys import FileKeys
from tests.fakes.platform import DrawerTpm
from tests.fakes.sealing import STREAM, TOPIC, block


def state(high: tuple[int, int, int], *, offset: int, chain: bytes = b"new") -> StreamState:
    from fabric.model.change import Sequence

    return StreamState(
        high=Sequence(*high),
        chain=chain,
        offset=offset,
        cluster="c",
        topic_id="t",
        incomplete=False,
    )


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    made = Identity(tmp_path, DrawerTpm(), ca=tmp_path / "ca.pem", stores=(FileKeys(),))
    made.create((0,))
    return made


async def delivered(it: Subscription) -> list[tuple[Change, Position]]:
    return list(await it.next())


async def test_every_change_comes_with_its_position(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    content, new = block(3), state((1, 100, 3), offset=8)
    applied = await it.apply(content, None, new)
    assert (applied.state, applied.applied) == (new, 3)
    found = await delivered(it)
    assert [change.row and change.row["id"] for change, _ in found] == [0, 1, 2]
    assert [position.state.high.ordinal for _, position in found] == [1, 2, 3]
    assert found[-1][1].state == new


async def test_a_position_inside_a_block_reads_the_record_again_and_drops_what_was_done(
    identity: Identity,
) -> None:
    it = Subscription(identity, TOPIC)
    before, new = state((1, 50, 9), offset=7, chain=b"old"), state((1, 100, 3), offset=8)
    content = block(3)
    await it.apply(content, before, new)
    middle = (await delivered(it))[1][1].state
    assert (middle.chain, middle.offset) == (b"old", 7)
    assert trim(content, middle.high).count == 1


async def test_a_later_life_goes_on_from_what_was_acknowledged(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    await it.apply(block(3), None, state((1, 100, 3), offset=8))
    found = await delivered(it)
    assert await Subscription(identity, TOPIC).streams(TOPIC) == {}
    position = found[0][1]
    identity.state.save_position(position.stream, position.state)
    assert await Subscription(identity, TOPIC).state(STREAM) == position.state
    assert (await it.state(STREAM)) == state((1, 100, 3), offset=8)


async def test_an_empty_block_delivers_nothing_and_moves_on(identity: Identity) -> None:
    it = Subscription(identity, TOPIC)
    await it.apply(block(0), None, state((1, 100, 3), offset=8))
    assert await delivered(it) == []


def test_a_position_shows_no_chain(identity: Identity) -> None:
    assert "new" not in repr(Position(STREAM, state((1, 2, 3), offset=1)))
