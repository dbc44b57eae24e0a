"""fabric.database.postgresql_state"""

from dataclasses import replace

import pytest

from fabric.database import postgresql_state as states
from fabric.database.postgresql_connect import connect, shut
from fabric.model.change import Sequence, end_of
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.names import Origin
from fabric.ports import StreamState
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import STREAM, TOPIC

database = postgresql_world.database
pytestmark = pytest.mark.integration
FIRST = StreamState(
    high=Sequence(1, 2, 3), chain=b"c", offset=4, cluster="k", topic_id="t", incomplete=False
)


async def test_a_state_moves_only_from_where_it_is(database: str) -> None:
    connection = await connect(database)
    async with connection.transaction():
        await states.create(connection)
    place = await states.move(connection, STREAM, expected=None, new=FIRST)
    assert (place.is_first, place.is_shared, place.has_parked) == (True, False, False)
    assert await states.load(connection, STREAM) == FIRST
    second = replace(FIRST, high=end_of(1, 9), offset=5)
    for wrong in (None, replace(FIRST, chain=b"x"), second):
        with pytest.raises(UnavailableError) as caught:
            await states.move(connection, STREAM, expected=wrong, new=second)
        assert caught.value.reason is Reason.OVERLOADED
    await states.move(connection, STREAM, expected=FIRST, new=second)
    assert await states.load_all(connection, TOPIC) == {STREAM: second}
    await shut(connection)


async def test_incomplete_is_not_forgotten_by_a_move(database: str) -> None:
    connection = await connect(database)
    async with connection.transaction():
        await states.create(connection)
    place = await states.move(connection, STREAM, expected=None, new=FIRST)
    await states.mark(connection, place.id, incomplete=True, snapshot=states.TRACKED)
    moved = await states.move(connection, STREAM, expected=FIRST, new=FIRST)
    assert (moved.incomplete, moved.snapshot) == (True, states.TRACKED)
    assert (await states.lock(connection, STREAM)).id == place.id
    await shut(connection)


async def test_origins_of_one_topic_know_of_each_other(database: str) -> None:
    connection = await connect(database)
    async with connection.transaction():
        await states.create(connection)
        await states.create(connection)
    other = replace(STREAM, origin=Origin("G01", "registry", "second"))
    await states.move(connection, STREAM, expected=None, new=FIRST)
    place = await states.move(connection, other, expected=None, new=FIRST)
    assert (place.is_first, place.is_shared) == (False, True)
    place = await states.lock(connection, STREAM)
    assert (place.is_first, place.is_shared) == (True, True)
    with pytest.raises(UsageError):
        await states.lock(connection, replace(STREAM, partition=7))
    first = await states.dataset_number(connection, TOPIC, "a")
    assert await states.dataset_number(connection, TOPIC, "a") == first
    assert await states.dataset_number(connection, TOPIC, "b") != first
    await shut(connection)
