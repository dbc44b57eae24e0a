"""Verified results that a view of the members keeps, bounded for all hosts together. Pure.

The host with most results lets go the one of its own that ends first: a host that attests
all the time pushes out nobody else's. So does the host whose keys weigh most.

A result weighs 0.7 kB in memory, and its keys 4 kB (hybrid) to 10 kB (of every kind), which
results of one host share: 100,000 of 1,000 hosts are 82 MB, of 10,000 hosts 159 MB. Where every
result has keys of its own, RESULT_KEYS_KIB_MAX bounds all of them to 0.3 GB.
"""

import hashlib
import heapq
import sys
from dataclasses import replace
from datetime import datetime

from fabric.attest.result import Result
from fabric.attest.shared_keys import SharedKeys
from fabric.attest.shares import Shares
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import RESULT_KEYS_KIB_MAX, RESULTS_KEPT_MAX
from fabric.model.names import HostId


class KeptResults:
    """Results by id, without their heads: those are anchors, and a thousand of them weigh most."""

    def __init__(self) -> None:
        self._results: dict[bytes, tuple[Result, bytes]] = {}  # with a hash over its heads
        self._oldest: dict[HostId, list[tuple[datetime, bytes]]] = {}
        self._shares = Shares()
        self._keys = SharedKeys()
        self._forgotten: dict[HostId, datetime] = {}  # latest end of what was let go

    def __len__(self) -> int:
        return len(self._results)

    def add(self, result: Result) -> bool:
        """Keep a result; False when it is here already.

        Raises:
            PeerError: FORK, another result has this id.
        """
        bare, heads = replace(result, heads=()), hashlib.sha256(b"".join(result.heads)).digest()
        known = self._results.get(result.id)
        if known is not None:
            if known != (bare, heads):
                raise PeerError(Reason.FORK, "two results have one id")
            return False
        keys, evidence = self._keys.take(result.host, result.keys), sys.intern(result.evidence)
        self._results[result.id] = replace(bare, keys=keys, evidence=evidence), heads
        heapq.heappush(self._oldest.setdefault(result.host, []), (result.expires, result.id))
        self._shares.add(result.host)
        if self._shares.total > RESULTS_KEPT_MAX:
            self._let_go(self._shares.largest())
        while self._keys.kib > RESULT_KEYS_KIB_MAX:
            self._let_go(self._keys.largest())
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
        self._keys.drop(host, self._results.pop(ident)[0].keys)
        self._shares.drop(host)
        self._forgotten[host] = max(expires, self._forgotten.get(host, expires))
