"""When a topic needs a new epoch, and who needs a grant of a running one. Pure.

A new epoch: at the start, by age and block count, after a `reseal` refusal, when a
recipient is lost (revoked, suspended, un-named or approved no more at once; lapsed ones
in one batch per result lifetime), and under `from_join` when someone is newly named (in
batches of 5 s). A grant: for whoever should read and has no wrap for the key it has now.

Only an authority or an owner takes a recipient away at once. What a host can bring about
by how it attests is a lapse: everybody keeps an epoch for as long as the data, so nobody
may end one every few seconds by attesting with a key and without it in turn.

Named is not attested now. A host is named from the moment at which the policy made
it a consumer; whatever began since then it may have, also when it was away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum, unique

from fabric.model.errors import Reason
from fabric.model.limits import EPOCH_AGE_S_MAX, EPOCH_BLOCKS_MAX
from fabric.model.names import HostId

JOIN_BATCH_S = 5.0
_BLOCKS_SPARE = 1_000
_LAPSED = frozenset(
    {Reason.RESULT_EXPIRED, Reason.NOT_ATTESTED, Reason.SUITE_REFUSED, Reason.MALFORMED}
)
"""Approved all the same: it does not attest, or not with a key of the suite that takes a wrap."""
WAIT_S_MAX = 30.0
"""How long blocks go on under the old epoch while the new one is drawn up, seconds."""
_CAN_WAIT = frozenset({"age", "blocks", "lapsed", "joined"})
_LAGGING = frozenset(
    {Reason.RESULT_UNKNOWN, Reason.MEMBERS_STALE, Reason.NOT_READY, Reason.POLICY_NEWER}
)


@unique
class Why(StrEnum):
    """Cause of a new epoch; values are metric labels."""

    START = "start"
    AGE = "age"
    BLOCKS = "blocks"
    LOST = "lost"
    LAPSED = "lapsed"
    JOINED = "joined"
    RESEAL = "reseal"

    @property
    def can_wait(self) -> bool:
        """Whether blocks may go on under the old epoch while the new one is drawn up."""
        return self.value in _CAN_WAIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One kept epoch and whom it serves: (host, HPKE key thumbprint), wraps and grants alike."""

    number: int
    started: datetime
    served: frozenset[tuple[HostId, bytes]]

    @property
    def hosts(self) -> frozenset[HostId]:
        """Hosts with any wrap of the epoch."""
        return frozenset(host for host, _ in self.served)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Who should read now, and why others should not.

    Attributes:
        hosts: host to the thumbprint of its current HPKE key of the suite's kind.
        refused: every other host we know of, with the reason.
        retained: the dataset's history is `retained`.
        result_lifetime_s: of the level; lapses are gathered for that long.
        named: since when each consumer is named, attested or not.
    """

    hosts: Mapping[HostId, bytes]
    refused: Mapping[HostId, Reason]
    retained: bool
    result_lifetime_s: int
    named: Mapping[HostId, datetime] = field(default_factory=dict)


class EpochMachine:
    """Decides for one topic of one sender."""

    def __init__(self) -> None:
        self._lapsed_at: datetime | None = None
        self._joined_at: datetime | None = None
        self._due_at: datetime | None = None

    def due(self, epoch: Served | None, blocks: int, wanted: Wanted, now: datetime) -> Why | None:
        """The cause for a new epoch before the next block, or None.

        Args:
            epoch: the current one, None at the start.
            blocks: sealed in it so far, over all streams.
        """
        why = self._cause(epoch, blocks, wanted, now)
        if why is None:
            self._due_at = None
        return why

    def _cause(
        self, epoch: Served | None, blocks: int, wanted: Wanted, now: datetime
    ) -> Why | None:
        if epoch is None:
            return Why.START
        gone = {
            h: wanted.refused.get(h, Reason.NOT_ATTESTED) for h in epoch.hosts - {*wanted.hosts}
        }
        if any(reason not in _LAPSED | _LAGGING for reason in gone.values()):
            return Why.LOST  # before every cause that can wait
        if now - epoch.started >= timedelta(seconds=EPOCH_AGE_S_MAX):
            return Why.AGE
        if blocks >= EPOCH_BLOCKS_MAX - _BLOCKS_SPARE:
            return Why.BLOCKS
        lapsed = any(reason in _LAPSED for reason in gone.values())
        self._lapsed_at = self._since(self._lapsed_at, lapsed, now)
        if _over(self._lapsed_at, wanted.result_lifetime_s, now):
            return Why.LAPSED
        joined = not wanted.retained and any(
            since > epoch.started for since in wanted.named.values()
        )
        self._joined_at = self._since(self._joined_at, joined, now)
        return Why.JOINED if _over(self._joined_at, JOIN_BATCH_S, now) else None

    def can_wait(self, why: Why, blocks: int, now: datetime) -> bool:
        """Whether the next block may still go under the old epoch, though `why` ends it.

        A recipient that must not read on, or a block that was refused, cannot wait; age,
        count, lapses and joins can, for so long as drawing up the new epoch takes.
        """
        self._due_at = self._since(self._due_at, True, now)
        late = _over(self._due_at, WAIT_S_MAX, now)
        return why.can_wait and blocks < EPOCH_BLOCKS_MAX - 1 and not late

    def opened(self) -> None:
        """A new epoch stands: nobody has lapsed or joined since."""
        self._lapsed_at = self._joined_at = self._due_at = None

    @staticmethod
    def _since(before: datetime | None, holds: bool, now: datetime) -> datetime | None:
        """Since when it holds; a moment after `now` comes from a clock that was set right."""
        return min(before or now, now) if holds else None


def late(epochs: Sequence[Served], wanted: Wanted) -> dict[int, tuple[HostId, ...]]:
    """Per epoch number, the hosts that need a grant of it.

    Under `retained` everyone who may read gets every kept epoch; under `from_join` a
    host gets those since it was named last, and with new keys whatever had served it
    before. A custodian does not know since when a host is named, so of its hosts
    `named` says nothing and they get the latter alone.

    Args:
        epochs: the kept ones of one sender, oldest first.
    """
    found: dict[int, tuple[HostId, ...]] = {}
    hosts = sorted(wanted.hosts.items())
    for epoch in epochs:
        had = epoch.hosts
        missing = tuple(
            host
            for host, thumbprint in hosts
            if (host, thumbprint) not in epoch.served
            and (wanted.retained or host in had or _was_named(wanted, host, epoch))
        )
        if missing:
            found[epoch.number] = missing
    return found


def _was_named(wanted: Wanted, host: HostId, epoch: Served) -> bool:
    since = wanted.named.get(host)
    return since is not None and since <= epoch.started


def _over(since: datetime | None, seconds: float, now: datetime) -> bool:
    return since is not None and now - since >= timedelta(seconds=seconds)
