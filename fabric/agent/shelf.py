"""The epochs of one topic that their sender keeps, and whom each of them serves.

Secrets stay in the state file until they are wanted; what stands here is read once
and grows with each grant, because a sweep for late recipients comes every second.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from fabric.agent.epoch_machine import Served
from fabric.model.names import HostId, Topic
from fabric.seal.epoch import OpenedStart, bare, parse_start
from fabric.store.state import StateFile, StoredEpoch


@dataclass(slots=True)
class Kept:
    """One kept epoch: its start without wraps of others, and whom it serves."""

    opened: OpenedStart
    served: set[tuple[HostId, bytes]] = field(default_factory=set)

    @property
    def number(self) -> int:
        """The epoch's number."""
        return self.opened.start.number

    @property
    def suite(self) -> str:
        """Id of the suite that it seals with."""
        return self.opened.start.suite

    def as_served(self) -> Served:
        """What the epoch machine wants to know of it."""
        started = self.opened.start.started
        return Served(number=self.number, started=started, served=frozenset(self.served))


class Shelf:
    """Kept epochs by number. Methods block on the state file: run them in a thread."""

    def __init__(self, state: StateFile, topic: Topic) -> None:
        self._state = state
        self._topic = topic
        self._kept: dict[int, Kept] = {}
        for stored in state.epochs(topic):
            self._put(stored)

    def __iter__(self) -> Iterator[Kept]:
        return iter([self._kept[number] for number in sorted(self._kept)])

    def _put(self, stored: StoredEpoch) -> None:
        opened = bare(parse_start(stored.start))
        kept = Kept(opened=opened)
        kept.served |= {(item.host, item.thumbprint) for item in opened.start.recipients}
        for host, thumbprint in self._state.granted(opened.start.id):
            kept.served.add((HostId.parse(host), thumbprint))
        self._kept[stored.number] = kept

    def add(self, stored: StoredEpoch) -> None:
        """Keep a new epoch; it is on disk when this returns."""
        self._state.save_epoch(stored)
        self._put(stored)

    def next_number(self, now: datetime) -> int:
        """Above every number ever used: where the state file was lost, seconds are."""
        return max(self._kept, default=int(now.timestamp()) - 1) + 1

    def secret_of(self, number: int) -> bytes | None:
        """The secret of a kept epoch."""
        stored = self._state.epoch(self._topic, number)
        return None if stored is None else stored.secret

    def granted(self, kept: Kept, pairs: frozenset[tuple[HostId, bytes]]) -> None:
        """Remember grants that were acknowledged."""
        ident = kept.opened.start.id
        self._state.save_granted(ident, [(str(host), key) for host, key in pairs])
        kept.served |= pairs

    def expired(self, before: datetime) -> Sequence[Kept]:
        """Epochs that began before `before`, but never the newest: its number is needed."""
        newest = max(self._kept, default=0)
        return [
            kept
            for number, kept in self._kept.items()
            if kept.opened.start.started < before and number != newest
        ]

    def erase(self, before: datetime) -> None:
        """Erase the expired epochs' secrets, and whom they were granted to."""
        for kept in self.expired(before):
            self._state.drop_epoch(self._topic, kept.number, kept.opened.start.id)
            del self._kept[kept.number]
