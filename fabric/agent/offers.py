"""Which epochs are for us, by grants that nobody has verified yet. Pure.

A later grant by an epoch's sender can be all that says so, and is verified before a
reader passes over the epoch. Anybody can write one, for any start, so what it says is
kept no longer than the grant itself.
"""

from collections import Counter
from collections.abc import Container
from typing import TypeAlias

from fabric.seal.epoch import VerifiedStart
from fabric.seal.grant import OpenedGrant
from fabric.seal.record import Terms

_Said: TypeAlias = tuple[bytes, bytes, str]
"""Hash of a start, epoch id, sender: who says one start's hash with another's id is not asked."""


class Offers:
    """Counts the grants that say the same; as many as their keeper has room for."""

    def __init__(self) -> None:
        self._kept: Counter[_Said] = Counter()

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, started: VerifiedStart) -> bool:
        """Whether a grant that waits says that this epoch is for us."""
        return _said(started.hash, started.start.terms) in self._kept

    def add(self, kept: OpenedGrant) -> bool:
        """A grant waits to be verified; whether it is by its sender and for us.

        Args:
            kept: with our wrap alone, or with none.
        """
        is_offer = _is_offer(kept)
        if is_offer:
            self._kept[_said(kept.grant.start_hash, kept.grant.terms)] += 1
        return is_offer

    def drop(self, kept: OpenedGrant) -> None:
        """A grant that was added waits no more: it is good, or forgotten."""
        if not _is_offer(kept):
            return
        said = _said(kept.grant.start_hash, kept.grant.terms)
        self._kept[said] -= 1
        if not self._kept[said]:
            del self._kept[said]

    def among(self, start_hashes: Container[bytes]) -> set[bytes]:
        """Those of these starts that a grant names, by their hashes."""
        return {start_hash for start_hash, _, _ in self._kept if start_hash in start_hashes}


def _is_offer(kept: OpenedGrant) -> bool:
    return bool(kept.wraps) and kept.grant.terms.granter == kept.grant.terms.sender


def _said(start_hash: bytes, terms: Terms) -> _Said:
    return start_hash, terms.epoch_id, terms.sender
