"""Short work is done at once, long work in a thread; both raise what the work raises."""

import threading

import pytest

from fabric.agent.aside import aside


@pytest.mark.parametrize("is_short", [True, False])
async def test_long_work_leaves_the_event_loops_thread(is_short: bool) -> None:
    thread = await aside(threading.get_ident, is_short=is_short)
    assert (thread == threading.get_ident()) is is_short


@pytest.mark.parametrize("is_short", [True, False])
async def test_what_the_work_raises_is_raised(is_short: bool) -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, is_short=is_short)
