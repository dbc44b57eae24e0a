"""Who has to go when all places of a listener are taken. Computes; the listener acts.

Whoever has got least far goes first: those in their handshake, then those who showed no
certificate, and hosts last. Of each kind the share with most places gives way, so that few
addresses, however often they come, push out only their own.
"""

from collections.abc import Hashable
from enum import IntEnum, unique
from typing import Generic, TypeVar

from fabric.model.crowd import Crowd

_T = TypeVar("_T", bound=Hashable)
_HANDSHAKES_KEPT = 4
"""One place in so many is for handshakes."""


@unique
class Kind(IntEnum):
    """How far a connection has got, in the order in which they give way."""

    SHAKING = 0
    STRANGER = 1
    KNOWN = 2


class Places(Generic[_T]):
    """Connections by kind and share.

    Args:
        places_max: so many are held at most.
    """

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._crowds = {kind: Crowd[_T]() for kind in Kind}

    def __len__(self) -> int:
        return sum(map(len, self._crowds.values()))

    def add(self, place: _T, share: str) -> _T | None:
        """Somebody comes and begins a handshake; who has to go for that, if all is taken."""
        gone = self._give_way() if len(self) >= self._places_max else None
        self._crowds[Kind.SHAKING].add(place, share)
        return gone

    def finished(self, place: _T, *, is_known: bool) -> None:
        """The handshake is over; `is_known`: with a certificate that holds. No-op when gone."""
        share = self._crowds[Kind.SHAKING].drop(place)
        if share is not None:
            self._crowds[Kind.KNOWN if is_known else Kind.STRANGER].add(place, share)

    def drop(self, place: _T) -> None:
        """The connection has ended; no-op when it is gone already."""
        for crowd in self._crowds.values():
            crowd.drop(place)

    def _give_way(self) -> _T:
        shaking, strangers, known = self._crowds.values()
        # Else whoever ends the handshake and says nothing more would hold all other places,
        # and all who come after him would push out each other.
        is_kept = len(shaking) <= self._places_max // _HANDSHAKES_KEPT
        order = (strangers, shaking, known) if is_kept else (shaking, strangers, known)
        return next(crowd for crowd in order if len(crowd)).give_way()
