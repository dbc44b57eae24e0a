"""Whose turn it is at a dataset's table: one block at a time, whichever sink of ours brings it.

A mark works for hours on a connection of its own. When its sink is thrown away meanwhile, it
goes on, and so the streams of its topic wait for it at the next sink as well: a row may go over
from one to the other. Another process is not held up, nor one that names the database otherwise.
"""

import asyncio
from weakref import WeakValueDictionary

from fabric.model.names import Topic

_TURNS: "WeakValueDictionary[tuple[object, str, Topic], asyncio.Lock]" = WeakValueDictionary()


def turn(url: str, topic: Topic) -> asyncio.Lock:
    """The lock of a topic in a database, for this event loop; it lasts while somebody has it."""
    return _TURNS.setdefault((asyncio.get_running_loop(), url, topic), asyncio.Lock())
