"""A log whose broker is an enemy: what is stored and served may be edited, record by record.

Everything a broker's operator can do without anybody's keys, and in the words of the attack:
drop, replay, swap, move, cut, restore, delete, rewrite. Offsets are given out anew after an
edit, as an operator would who knows what shows.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TypeAlias

from fabric.model.errors import DeniedError, Reason
from fabric.ports import Record
from tests.fakes.platform import IdentifiedLog

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""


class HostileLog(IdentifiedLog):
    """The platform's log, edited; offsets need not begin at 0."""

    def copy(self) -> "HostileLog":
        """The same records, to be edited apart."""
        other = HostileLog()
        other.records = {place: [*records] for place, records in self.records.items()}
        return other

    async def read(
        self, topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        """Yield by offset, not by place in the list; an offset that is not held is lost."""
        while True:
            first, end = await self.bounds(topic, partition)
            if not first <= offset <= end:
                raise DeniedError(Reason.HISTORY_LOST, "log does not hold the offset")
            changed = self._changed
            batch = [r for r in self.records.get((topic, partition), ()) if r.offset >= offset]
            if batch:
                offset = batch[-1].offset + 1
                yield batch
            else:
                await changed.wait()

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset and the one after the last."""
        records = self.records.get((topic, partition), [])
        return (records[0].offset, records[-1].offset + 1) if records else (0, 0)

    # What the operator does

    def drop(self, place: Place, at: int) -> None:
        """A record is gone, and nothing shows that it was there."""
        del self.records[place][at]
        self._number(place)

    def replay(self, place: Place, at: int) -> None:
        """A record stands once more at the end."""
        self.insert(place, len(self.records[place]), self.records[place][at])

    def swap(self, place: Place, one: int, two: int) -> None:
        """Two records change places."""
        records = self.records[place]
        records[one], records[two] = records[two], records[one]
        self._number(place)

    def insert(self, place: Place, at: int, record: Record) -> None:
        """A record of anywhere stands here, as if it had been sent here."""
        topic, partition = place
        moved = replace(record, topic=topic, partition=partition)
        self.records.setdefault(place, []).insert(at, moved)
        self._number(place)

    def move(self, place: Place, at: int, to: Place, to_at: int) -> None:
        """A record stands elsewhere instead."""
        self.insert(to, to_at, self.records[place][at])
        self.drop(place, at)

    def cut(self, place: Place, kept: int) -> None:
        """Only the first `kept` records are left: a suffix is lost, or an old log restored."""
        del self.records[place][kept:]

    def delete_before(self, place: Place, first: int) -> None:
        """Records before `first` are deleted; the others keep their offsets."""
        del self.records[place][:first]

    def rewrite(self, place: Place, at: int, **fields: object) -> None:
        """A record says something else: value, key or timestamp."""
        records = self.records[place]
        records[at] = replace(records[at], **fields)  # type: ignore[arg-type]  # tests name fields

    def flip(self, place: Place, at: int, byte: int) -> None:
        """One bit of a value is changed."""
        value = bytearray(self.records[place][at].value or b"")
        value[byte] ^= 1
        self.rewrite(place, at, value=bytes(value))

    def forge(self, place: Place, value: bytes | None, *, key: bytes | None = None) -> None:
        """A record of the operator's own making at the end; the gateway is not asked."""
        self.put(*place, key, value)
        self._number(place)

    def _number(self, place: Place) -> None:
        records = self.records[place]
        self.records[place] = [replace(record, offset=at) for at, record in enumerate(records)]
        self._changed.set()
        self._changed = asyncio.Event()
