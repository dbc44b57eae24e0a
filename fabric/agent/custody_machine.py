"""When a custodian grants in a sender's place, and what. Pure.

A sender is away when it has not been attested for a while, or the policy has not let it
grant; and an epoch is orphaned when a later start of its sender says `chain reset`,
because a sender that lost its state file has lost the epoch's secret too, though it is
attested. Several custodians take turns: each waits a little longer than the one before
it, and grants only what nobody has granted, so that most of the time one of them does
the work.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.agent.epoch_machine import Served, Wanted, late
from fabric.model.limits import CUSTODY_AFTER_S
from fabric.model.names import HostId

TURN_S = 30.0
"""How much longer each custodian waits than the one before it, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One epoch that a custodian can open, and whom it serves by every good grant.

    Attributes:
        chain_reset: its start says that its sender knew no heads.
    """

    sender: HostId
    served: Served
    chain_reset: bool


class CustodyMachine:
    """Decides for one topic of one custodian.

    Args:
        after_s: how long a sender is away before the custodian acts for it, seconds.
    """

    def __init__(self, after_s: float = CUSTODY_AFTER_S) -> None:
        self._after_s = after_s
        self._gone_at: dict[HostId, datetime] = {}
        self._seen_at: dict[tuple[HostId, int], datetime] = {}

    def due(
        self,
        held: Sequence[Held],
        wanted: Wanted,
        *,
        here: Mapping[HostId, bool],
        turn: int,
        now: datetime,
    ) -> list[tuple[HostId, int, tuple[HostId, ...]]]:
        """What to grant now: (sender, epoch number, hosts), oldest first for each sender.

        Args:
            held: oldest first.
            here: of each sender, whether it is attested and may grant now.
            turn: how many custodians come before this one.
        """
        for sender, is_here in here.items():
            if is_here:
                self._gone_at.pop(sender, None)
            else:
                self._gone_at.setdefault(sender, now)
        patience = timedelta(seconds=self._after_s + turn * TURN_S)
        found = []
        for sender in sorted({item.sender for item in held}):
            mine = [item for item in held if item.sender == sender]
            missing = late([item.served for item in mine], wanted)
            free = self._free(sender, mine, patience, now)
            found += [
                (sender, number, hosts) for number, hosts in missing.items() if number in free
            ]
        return found

    def _free(
        self, sender: HostId, mine: Sequence[Held], patience: timedelta, now: datetime
    ) -> frozenset[int]:
        """Numbers of the sender's epochs that are for a custodian to grant."""
        gone = self._gone_at.get(sender)
        if gone is not None and now - gone >= patience:
            return frozenset(item.served.number for item in mine)
        resets = [item.served.number for item in mine if item.chain_reset]
        orphans = {n for item in mine if (n := item.served.number) < max(resets, default=0)}
        for number in orphans:
            self._seen_at.setdefault((sender, number), now)
        return frozenset(n for n in orphans if now - self._seen_at[sender, n] >= patience)
