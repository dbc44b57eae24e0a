"""Which producer ids an identity writes with, so that it costs brokers a bounded memory.

A partition's leader keeps an entry for each producer id that wrote to it, as many as there
are, until `producer.id.expiration.ms` after the last use (a day, by default). One gateway
counts for itself, and anew after a restart. Pure state: time is an argument.
"""

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import TypeAlias

from fabric.admit.view import Place
from fabric.gateway.wire import NO_PRODUCER
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import PRODUCER_IDS_PER_IDENTITY_MAX

_KEPT = timedelta(days=1)
_FORGOTTEN_AT_ONCE_MAX = 2
"""Identities that one call forgets: more than it can add, so that those gone get fewer."""
_Use: TypeAlias = tuple[Place, int]


class Producers:
    """Partition and producer id of what each identity wrote within a day."""

    def __init__(self) -> None:
        # By the newest use of each, and so is what each of them holds; none holds nothing.
        self._last_used: OrderedDict[str, OrderedDict[_Use, datetime]] = OrderedDict()

    def use(self, identity: str, place: Place, producer_id: int, now: datetime) -> None:
        """Count one batch of an identity.

        Args:
            producer_id: NO_PRODUCER counts as nothing.

        Raises:
            DeniedError: OVERLOADED, the id is new and the identity uses as many as it may.
        """
        self._forget(now)
        if producer_id == NO_PRODUCER:
            return
        used = self._last_used.setdefault(identity, OrderedDict())
        while used and next(iter(used.values())) < now - _KEPT:
            used.popitem(last=False)
        use = (place, producer_id)
        if use not in used and len(used) >= PRODUCER_IDS_PER_IDENTITY_MAX:
            raise DeniedError(Reason.OVERLOADED, "identity uses too many producer ids in a day")
        used[use] = now
        used.move_to_end(use)
        self._last_used.move_to_end(identity)

    def _forget(self, now: datetime) -> None:
        """Drop some of the identities that have written nothing for longer than a day."""
        for _ in range(_FORGOTTEN_AT_ONCE_MAX):
            oldest = next(iter(self._last_used.values()), None)
            if oldest is None or next(reversed(oldest.values())) >= now - _KEPT:
                return
            self._last_used.popitem(last=False)
