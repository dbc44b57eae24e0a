"""fabric.database.postgresql_turns"""

import asyncio
from dataclasses import replace

from fabric.database.postgresql_turns import _TURNS, turn
from tests.contract.postgresql_cases import TOPIC

URL = "postgresql://127.0.0.1/x"


async def test_a_topic_of_a_database_has_one_turn_as_long_as_somebody_has_it() -> None:
    one = turn(URL, TOPIC)
    assert turn(URL, TOPIC) is one
    assert turn(URL + "y", TOPIC) is not one
    assert turn(URL, replace(TOPIC, dataset="others")) is not one
    assert [key[1:] for key in _TURNS] == [(URL, TOPIC)]
    del one
    assert not _TURNS


def test_loops_have_turns_of_their_own() -> None:
    """A lock serves one event loop, and an application may have several."""

    async def take() -> None:
        async with turn(URL, TOPIC), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(wait())
            await asyncio.sleep(0)
            waiting.cancel()

    async def wait() -> None:
        async with turn(URL, TOPIC):
            raise AssertionError

    asyncio.run(take())
    asyncio.run(take())
