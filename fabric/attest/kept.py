"""Verified results that a view of the members keeps, bounded for all hosts together. Pure.

The host with most results lets go the one of its own that ends first: a host that attests
all the time pushes out nobody else's.
"""

import hashlib
import heapq
from dataclasses import replace
from datetime import datetime

from fabric.attest.result import Result
from fabric.attest.shares import Shares
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import RESULTS_KEPT_MAX
from fabric.model.names import HostId


class KeptResults:
    """Results by id, without their heads: those are anchors, and a thousand of them weigh most."""

    def __init__(self) -> None:
        self._results: dict[bytes, tuple[Result, bytes]] = {}  # with a hash over its heads
        self._oldest: dict[HostId, list[tuple[datetime, bytes]]] = {}
        self._shares = Shares()
        self._forgotten: dict[HostId, datetime] = {}  # latest end of what was let go

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: Result) -> bool:
        """Keep a result; False when it is here already.

        Raises:
            PeerError: FORK, another result has this id.
        """
        entry = replace(result, heads=()), hashlib.sha256(b"".join(result.heads)).digest()
        known = self._results.setdefault(result.id, entry)
        if known is not entry:
            if known != entry:
                raise PeerError(Reason.FORK, "two results have one id")
            return False
        heapq.heappush(self._oldest.setdefault(result.host, []), (result.expires, result.id))
        self._shares.add(result.host)
        if self._shares.total > RESULTS_KEPT_MAX:
            self._let_go(self._shares.largest())
        return True

    def find(self, result_id: bytes) -> Result | None:
        """The result of this id, its heads left out; None when it is not here."""
        found = self._results.get(result_id)
        return found[0] if found is not None else None

    def may_have_forgotten(self, host: HostId, at: datetime) -> bool:
        """Whether a result of this host that ran at `at` may have been here and was let go."""
        latest = self._forgotten.get(host)
        return latest is not None and at < latest

    def _let_go(self, host: HostId) -> None:
        expires, ident = heapq.heappop(self._oldest[host])
        if not self._oldest[host]:
            del self._oldest[host]
        del self._results[ident]
        self._shares.drop(host)
        self._forgotten[host] = max(expires, self._forgotten.get(host, expires))
