"""Anchors: heads that the authority carried, as proof of when envelopes existed. Pure.

A result names the heads that its host told with its quote; a notice those of the
host's last request. An envelope whose hash is carried, and every one before it in
its chain, was sealed before the carrier was signed: nobody can make another one
up later, not even the host's own keys with a broker's help. Spec: design section 3.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fabric.attest.shares import Shares
from fabric.model.limits import ANCHORS_MAX
from fabric.model.names import HostId

_NONE: Mapping[bytes, "Anchor"] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Who carried a head.

    Attributes:
        host: whose head it is.
        noticed: when the notice was given that carried it; None when a result did.
    """

    host: HostId
    noticed: datetime | None

    def covers(self, host: HostId, expires: datetime) -> bool:
        """Whether it vouches for an envelope of `host` under a result that ends at `expires`.

        A result rests on a good quote, so its heads are the honest host's, however old.
        Heads of a notice may come from a host that has changed: they show only that the
        envelope existed then, which is worth something while its result ran.
        """
        return self.host == host and (self.noticed is None or self.noticed < expires)


class Anchors:
    """Carried heads by host and hash; the host with most lets go those carried longest ago."""

    def __init__(self) -> None:
        self._found: dict[HostId, OrderedDict[bytes, Anchor]] = {}
        self._shares = Shares()

    def __len__(self) -> int:
        return self._shares.total

    def add(self, host: HostId, heads: Iterable[bytes], *, noticed: datetime | None) -> None:
        """Take in the heads of one result or notice; a result's word outweighs a notice's."""
        anchor = Anchor(host=host, noticed=noticed)
        mine = self._found.setdefault(host, OrderedDict())
        for head in heads:
            known = mine.get(head)
            if known is None:
                self._shares.add(host)
            if known is None or (noticed is None and known.noticed is not None):
                mine[head] = anchor
            # A quiet stream's head is carried again and again, and is not the oldest for that.
            mine.move_to_end(head)
        while self._shares.total > ANCHORS_MAX:
            self._let_go(self._shares.largest())

    def find(self, host: HostId, digest: bytes) -> Anchor | None:
        """What carried this envelope's hash as a head of its sender's; nobody else's counts."""
        return self._found.get(host, _NONE).get(digest)

    def carried(self, host: HostId) -> tuple[bytes, ...]:
        """The heads of a host that a result carried."""
        mine = self._found.get(host, _NONE)
        return tuple(head for head, anchor in mine.items() if anchor.noticed is None)

    def _let_go(self, host: HostId) -> None:
        self._found[host].popitem(last=False)
        self._shares.drop(host)
