"""Write acknowledgements down: many of one capture in one transaction of the state file.

Heads may be written late, because a reader takes a new epoch that starts up to 64
heads back; the resume token never before the heads, and both before the source
lets go. Each write takes time of the disk that the event loop and other programs
want, too, and one that is synced the most of it: so heads are written as late as
that limit lets them be, and not each time synced. Only a stream's first one of a life
goes to the disk at once: however many short lives follow one another, each starts
from a head of the one before, and what they have left unwritten does not add up.
"""

import asyncio
from collections.abc import Mapping

from fabric.agent.identity import Identity
from fabric.model.limits import HEADS_REMEMBERED
from fabric.model.names import Stream
from fabric.store.state import SourceState, StreamHead

_UNWRITTEN_MAX = HEADS_REMEMBERED // 2
"""As many again may come while they are written, so half of what a reader remembers."""
_UNWRITTEN_MANY = 3 * HEADS_REMEMBERED // 8
_UNSYNCED_MANY = HEADS_REMEMBERED // 2


class Progress:
    """Acknowledged heads of one capture, and what of them is on disk.

    Attributes:
        due: set when a stream has so many heads in memory alone that writing them should
            begin, before a block has to wait for it.
    """

    def __init__(self, source: str, identity: Identity) -> None:
        self._source = source
        self._identity = identity
        self._unwritten: dict[Stream, StreamHead] = {}
        self._count: dict[Stream, int] = {}
        self._unsynced: dict[Stream, int] = {}
        self._begun: set[Stream] = set()
        self._lock = asyncio.Lock()
        self.due = asyncio.Event()

    @property
    def unwritten(self) -> Mapping[Stream, StreamHead]:
        """Heads that only memory holds."""
        return self._unwritten

    @property
    def is_sync_due(self) -> bool:
        """Whether a power cut would cost a stream so many heads that they should be synced."""
        return max(self._unsynced.values(), default=0) >= _UNSYNCED_MANY

    async def note(self, head: StreamHead) -> None:
        """Take one acknowledgement.

        Writes a stream's first one, and when a stream has too many in memory alone.
        """
        stream = head.stream
        is_first = stream not in self._begun
        self._begun.add(stream)
        self._unwritten[stream] = head
        self._count[stream] = count = self._count.get(stream, 0) + 1
        # Counted for many, so that whichever write takes the first one is synced.
        self._unsynced[stream] = self._unsynced.get(stream, 0) + (_UNSYNCED_MANY if is_first else 1)
        if is_first or count >= _UNWRITTEN_MAX:
            await self.flush()
        elif count >= _UNWRITTEN_MANY:
            self.due.set()

    async def flush(self, *, durable: bool = False) -> None:
        """Write every head that is not on disk yet."""
        await self._write(durable=durable)

    async def _write(self, state: SourceState | None = None, *, durable: bool = False) -> None:
        """Heads first, then the resume token; one visit to a thread for both."""
        async with self._lock:
            self.due.clear()
            heads, files = [*self._unwritten.values()], self._identity.state
            if not heads and state is None:
                return

            def write() -> None:
                if heads:
                    files.save_heads(heads, durable=durable)
                if state is not None:
                    files.save_source(self._source, state)

            # The token's commit is synced, and with it whatever was written before it.
            durable = durable or (state is None and self.is_sync_due)
            self._count.clear()  # what comes meanwhile counts anew; a failure ends the capture
            if durable or state is not None:
                self._unsynced.clear()
            await asyncio.to_thread(write)
            for head in heads:
                if self._unwritten.get(head.stream) is head:
                    del self._unwritten[head.stream]

    async def advance(self, state: SourceState) -> None:
        """Write heads, then the resume token; when it returns the source may let go."""
        await self._write(state)
