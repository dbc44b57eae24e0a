"""Public keys of the results that a view keeps: each once in memory for its host. Pure.

A host renews its result every few minutes and its keys once a day, and post-quantum keys weigh
far more than all else in a result. What they weigh is counted by host, so that a host with new
keys in every result can be made to give way alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fabric.attest.keys import PublicKey
from fabric.attest.shares import Shares
from fabric.model.names import HostId

_KIB = 1024


@dataclass(slots=True)
class _Held:
    key: PublicKey
    results: int = 0


class SharedKeys:
    """Keys by host, each for as long as a result has it."""

    def __init__(self) -> None:
        self._held: dict[HostId, dict[PublicKey, _Held]] = {}
        self._shares = Shares()  # of KiB

    @property
    def kib(self) -> int:
        """What all keys weigh, in KiB begun of each key's bytes."""
        return self._shares.total

    def largest(self) -> HostId:
        """The host whose keys weigh most; somebody holds one."""
        return self._shares.largest()

    def take(self, host: HostId, keys: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
        """The keys of one more result of a host, those that it has already as the same objects."""
        mine = self._held.setdefault(host, {})
        return tuple(self._taken(host, mine, key) for key in keys)

    def drop(self, host: HostId, keys: Sequence[PublicKey]) -> None:
        """A result with these keys, all of them taken, is let go."""
        mine = self._held[host]
        for key in keys:
            held = mine[key]
            held.results -= 1
            if not held.results:
                del mine[key]
                for _ in range(_weight(key)):
                    self._shares.drop(host)
        if not mine:
            del self._held[host]

    def _taken(self, host: HostId, mine: dict[PublicKey, _Held], key: PublicKey) -> PublicKey:
        held = mine.get(key)
        if held is None:
            held = mine[key] = _Held(key)
            for _ in range(_weight(key)):
                self._shares.add(host)
        held.results += 1
        return held.key


def _weight(key: PublicKey) -> int:
    """KiB begun: what a key's object takes beside its bytes is in the rest of the last one."""
    return -(-len(key.data) // _KIB)
