"""One topic's epochs at their sender: open them, keep them, grant them to late comers.

The order of effects: the secret is in the state file before the epoch start is
sent, and all of the start is acknowledged before anyone seals under the epoch.
Wrapping a secret for a thousand hosts takes a while, so where nothing presses it is
done beside the stream, and the next block waits for signature and log alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeAlias

from fabric.agent.epoch_machine import EpochMachine, Served, Wanted, Why, late
from fabric.agent.granting import Asked, append, keep_from, send_grants
from fabric.agent.host import Host
from fabric.agent.pace import Pace
from fabric.agent.recipients import choose, named
from fabric.agent.refusal_machine import pause_s
from fabric.agent.shelf import Kept, Shelf
from fabric.attest.keys import PublicKey
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RECIPIENTS_MAX
from fabric.model.names import HostId, Stream, Topic
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.seal.envelope import NO_PREVIOUS
from fabric.seal.epoch import (
    EpochDraft,
    EpochStart,
    Head,
    Started,
    Wrapped,
    sign_start,
    start_key,
    verify_start,
    wrap_start,
)
from fabric.seal.sealing import SealingEpoch
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of
from fabric.store.state import StoredEpoch

_OPEN_TRIES_MAX = 5
_SWEEP_AGAIN_S = 5.0
_Chosen: TypeAlias = tuple[Wanted, Mapping[HostId, PublicKey]]


@dataclass(slots=True)
class Epoch:
    """The current epoch: how to seal in it, whom it serves, how much was sealed."""

    sealing: SealingEpoch
    served: Served
    start: EpochStart
    blocks: int = 0
    _counters: dict[Stream, int] = field(default_factory=dict)

    def counter(self, stream: Stream) -> int:
        """Counter of the stream's next block in this epoch."""
        return self._counters.get(stream, 0)

    def previous(self, stream: Stream, last: Head | None) -> bytes:
        """Hash of the envelope that the stream's next block follows.

        The first block of an epoch follows the head that its start names. A block of
        another stream may have been acknowledged since, and readers hold this one
        against the start.
        """
        head = last
        if self.counter(stream) == 0:
            head = self.start.head_of(stream.origin, stream.partition)
        return NO_PREVIOUS if head is None else head.hash

    def sealed(self, stream: Stream) -> None:
        """One more block of the stream was acknowledged."""
        self._counters[stream] = self.counter(stream) + 1
        self.blocks += 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """An epoch that is not opened yet: everything that costs is done."""

    draft: EpochDraft
    secret: EpochSecret
    wrapped: Wrapped
    hosts: Mapping[HostId, bytes]


class Epochs:
    """The epochs of one topic.

    Args:
        heads: the topic's acknowledged heads, at the moment of asking.
        streams: how many streams the topic has here; one without a head begins anew.
    """

    def __init__(
        self, host: Host, topic: Topic, *, heads: Callable[[], Sequence[Head]], streams: int
    ) -> None:
        self._host = host
        self._topic = topic
        self._heads = heads
        self._streams = streams
        self._machine = EpochMachine()
        self._lock = asyncio.Lock()
        self._current: Epoch | None = None
        self._asked: Why | None = None
        self._cause = ""
        self._drawn: _Drawn | None = None
        self._shelf: Shelf | None = None
        self._pace: Pace | None = None
        self._named: Mapping[HostId, datetime] = {}
        self._chosen: tuple[tuple[int, int, Dataset], _Chosen] | None = None
        self._swept: object = None
        self._sweep_at_s = 0.0

    @property
    def current(self) -> Epoch | None:
        """The epoch that blocks are sealed in."""
        return self._current

    def ask(self, why: Why, cause: str = "") -> None:
        """Demand a new epoch before the next block; `cause` is for people."""
        self._asked, self._cause = why, cause

    async def ready(self, dataset: Dataset, result: Result) -> Epoch:
        """The epoch for the next block; a new one, acknowledged, when one is due.

        Raises:
            FabricError: the start was refused, is not acknowledged yet, or comes too soon.
        """
        async with self._lock:
            for attempt in range(_OPEN_TRIES_MAX):
                try:
                    return await self._ready(dataset, result)
                except DeniedError as exc:
                    # Revoked meanwhile: whom the start may serve has changed, so it is made anew.
                    if exc.reason is not Reason.TOO_OLD:
                        raise
                await self._host.view.changed.wait(pause_s(attempt))
            return await self._ready(dataset, result)

    async def _ready(self, dataset: Dataset, result: Result) -> Epoch:
        wanted, keys = await self._choose(dataset)
        self._check_dataset(dataset)
        why, current = self._due(wanted), self._current
        if why is None and current is not None:
            return current
        why = why or Why.START
        drawn = self._drawn if self._fits(dataset, wanted) else None
        if current is not None and drawn is None and self._can_wait(why, current):
            return current
        assert self._pace is not None
        self._pace.check(why, self._host.clock.now(), self._cause)
        said = (result.id, Asked.of(self._host.view, dataset))
        self._pace.check_refused(said, self._host.clock.now())
        if drawn is None:
            self._host.view.check_grants(dataset, self._host.clock.now())
            drawn = await self._draw(dataset, wanted, keys)
            wanted, _ = await self._choose(dataset)
            self._check_dataset(dataset)
            # Whoever came since is granted later; who may read no more must not be in it.
            is_fit = drawn.hosts.items() <= wanted.hosts.items()
            if not (is_fit and self._is_as_asked(drawn, dataset)):
                raise DeniedError(Reason.TOO_OLD, "recipients changed while the epoch was drawn up")
        # Nothing may be awaited from here until the start's numbers are read.
        self._host.view.check_grants(dataset, self._host.clock.now())
        try:
            opened = await self._open(drawn, result, why)
        except DeniedError as exc:
            self._pace.refused(said, self._host.clock.now(), exc)
            raise
        await self._check_lost(dataset)
        return opened

    async def _check_lost(self, dataset: Dataset) -> None:
        """A start may be long on its way: nobody seals under it for whom was lost meanwhile."""
        wanted, _ = await self._choose(dataset)
        self._check_dataset(dataset)
        due = self._due(wanted)
        if due is not None and not due.can_wait:
            raise DeniedError(Reason.TOO_OLD, "a recipient was lost while the start was sent")

    def _check_dataset(self, dataset: Dataset) -> None:
        if self._host.view.dataset(self._topic) != dataset:
            raise UnavailableError(Reason.NOT_READY, "the dataset's policy changed; asking anew")

    def _due(self, wanted: Wanted) -> Why | None:
        current = self._current
        served, blocks = (current.served, current.blocks) if current else (None, 0)
        due = self._machine.due(served, blocks, wanted, self._host.clock.now())
        if due is not None and not due.can_wait:
            return due
        return self._asked or due

    def _can_wait(self, why: Why, current: Epoch) -> bool:
        return self._machine.can_wait(why, current.blocks, self._host.clock.now())

    # Choosing

    async def _choose(self, dataset: Dataset) -> _Chosen:
        """As `choose`; asked anew when the view changed, and every second, as results end."""
        view, now = self._host.view, self._host.clock.now()
        stamp = (view.version, int(now.timestamp()), dataset)
        if self._chosen is None or self._chosen[0] != stamp:
            await self._name(dataset, now)
            wanted, keys = choose(view.policy, dataset, view.members, me=view.me, now=now)
            self._host.telemetry.chosen(self._topic, dataset.suite, wanted)
            view.waits_for(*wanted.refused.values())
            self._chosen = (stamp, (replace(wanted, named=self._named), keys))
        return self._chosen[1]

    async def _name(self, dataset: Dataset, now: datetime) -> None:
        """Keep since when each consumer is named; it outlives us, as being named does."""
        state = self._host.identity.state
        if self._shelf is None:
            self._pace = await asyncio.to_thread(Pace, state, self._topic)
            self._shelf = await asyncio.to_thread(Shelf, state, self._topic)
            self._named = await asyncio.to_thread(state.named, self._topic)
        hosts = named(self._host.view.policy, dataset, self._host.view.members)
        if hosts != self._named.keys():
            now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # as starts say it
            self._named = {host: self._named.get(host, now) for host in hosts}
            await asyncio.to_thread(state.save_named, self._topic, self._named)

    # Opening

    async def prepare(self, dataset: Dataset) -> None:
        """Draw up the next epoch beside the stream, when one is due and can wait."""
        wanted, keys = await self._choose(dataset)
        why, current = self._due(wanted), self._current
        if current is None or why is None or self._fits(dataset, wanted):
            return
        if self._can_wait(why, current):
            self._drawn = await self._draw(dataset, wanted, keys)

    def _fits(self, dataset: Dataset, wanted: Wanted) -> bool:
        """Whether the drawn epoch is still the one that policy and members ask for."""
        drawn = self._drawn
        if drawn is None or self._shelf is None:
            return False
        return drawn.hosts == wanted.hosts and self._is_as_asked(drawn, dataset)

    def _is_as_asked(self, drawn: _Drawn, dataset: Dataset) -> bool:
        assert self._shelf is not None
        draft, version = drawn.draft, self._host.view.policy.version
        number = self._shelf.next_number(draft.started)
        said = (draft.number, draft.label, draft.suite, draft.history, draft.policy_version)
        asked = (number, dataset.label, dataset.suite, dataset.history, version)
        return said == asked

    async def _draw(
        self, dataset: Dataset, wanted: Wanted, keys: Mapping[HostId, PublicKey]
    ) -> _Drawn:
        view, now = self._host.view, self._host.clock.now()
        assert self._shelf is not None
        if view.me not in keys:  # a sender grants to itself; lost meanwhile, it opens nothing
            why = wanted.refused.get(view.me, Reason.NOT_ATTESTED)
            raise DeniedError(why, "this host may not open an epoch")
        draft = EpochDraft(
            trust_domain=view.trust_domain,
            sender=view.me,
            topic=self._topic,
            label=dataset.label,
            suite=dataset.suite,
            number=self._shelf.next_number(now),
            result_id=bytes(16),
            policy_version=view.policy.version,
            revocation_number=view.members.revocation_number,
            heads=(),
            chain_reset=False,
            history=dataset.history,
            started=now,
        )
        secret = EpochSecret.generate()
        first = [view.me, *(host for host in sorted(keys) if host != view.me)]
        pairs = [(host, keys[host]) for host in first[:RECIPIENTS_MAX]]
        wrapped = await asyncio.to_thread(wrap_start, draft, secret, pairs)
        return _Drawn(draft=draft, secret=secret, wrapped=wrapped, hosts=dict(wanted.hosts))

    async def _open(self, drawn: _Drawn, result: Result, why: Why) -> Epoch:
        self._drawn = None
        heads = tuple(self._heads())
        draft = replace(
            drawn.draft,
            result_id=result.id,
            revocation_number=self._host.view.members.revocation_number,
            heads=heads,
            chain_reset=len(heads) < self._streams,
            started=self._host.clock.now(),
        )
        signers = self._host.identity.keyring.signers(result, suite_of(draft.suite))
        started = await asyncio.to_thread(sign_start, draft, drawn.wrapped, signers=signers)
        stored = StoredEpoch(
            topic=self._topic,
            number=draft.number,
            started=draft.started,
            start=started.value,
            secret=drawn.secret.private_bytes(),
        )
        assert self._shelf is not None
        await asyncio.to_thread(self._shelf.add, stored)
        await append(self._host, self._topic, start_key(started.start), started.values)
        self._current = _epoch(started, drawn.secret)
        self._asked, self._cause = None, ""
        self._machine.opened()
        self._host.telemetry.epoch_opened(self._topic, why, draft.number, draft.started)
        self._host.telemetry.granted(self._topic, len(self._current.served.hosts))
        self._host.telemetry.epoch_serves(self._topic, len(self._current.served.hosts))
        assert self._pace is not None
        await asyncio.to_thread(self._pace.began, why, draft.started)
        return self._current

    # Granting

    async def grant_late(self, dataset: Dataset, result: Result) -> int:
        """Grant kept epochs to whoever should have them and does not; number of wraps sent."""
        asked = Asked.of(self._host.view, dataset)
        chosen = await self._choose(dataset)
        assert self._shelf is not None
        await self._erase(dataset)
        number = self._shelf.next_number(result.issued)
        state = (chosen[0].hosts, chosen[0].named, dataset, number)
        asked_s = self._host.clock.monotonic()
        if state == self._swept or asked_s < self._sweep_at_s:
            return 0
        sent, whole = 0, True
        # Readers take no block of another label than the dataset's, so nobody needs its epoch.
        mine = [kept for kept in self._shelf if kept.opened.start.label == dataset.label]
        for suite in sorted({kept.suite for kept in mine}):
            of_suite = [kept for kept in mine if kept.suite == suite]
            is_current = suite == dataset.suite
            wanted, keys = chosen if is_current else self._choose_for(dataset, suite, result)
            missing = late([kept.as_served() for kept in of_suite], wanted)
            for kept in of_suite:
                hosts = {h: keys[h] for h in missing.get(kept.number, ()) if h != self._me}
                done = await self._grant(kept, result, hosts, asked) if hosts else 0
                sent, whole = sent + done, whole and done == len(hosts)
        self._swept = state if whole else None
        if not whole:  # refused, or not acknowledged: wraps are not made anew every second
            self._sweep_at_s = asked_s + _SWEEP_AGAIN_S
        return sent

    @property
    def _me(self) -> HostId:
        return self._host.view.me

    def _choose_for(self, dataset: Dataset, suite: str, result: Result) -> _Chosen:
        """Recipients of an epoch whose suite is no longer the dataset's; none, if it is refused."""
        view, now = self._host.view, self._host.clock.now()
        why = decide.grant(view.policy, dataset, standing(result), suite=suite, now=now)
        if why is not None:
            return Wanted(hosts={}, refused={}, retained=False, result_lifetime_s=0), {}
        wanted, keys = choose(view.policy, dataset, view.members, me=view.me, now=now, suite=suite)
        self._host.telemetry.chosen(self._topic, suite, wanted)
        return replace(wanted, named=self._named), keys

    async def _grant(
        self, kept: Kept, result: Result, keys: Mapping[HostId, PublicKey], asked: Asked
    ) -> int:
        assert self._shelf is not None
        try:
            then = self._host.view.members.result(kept.opened.start.result_id)
        except DeniedError:  # our result of then is not in the view (yet): look again later
            return 0
        started = verify_start(kept.opened, then, self._host.view.trust_domain)
        secret = await asyncio.to_thread(self._shelf.secret_of, kept.number)
        if secret is None:
            return 0
        pairs = await send_grants(
            self._host, result, started, secret=EpochSecret(secret), keys=keys, asked=asked
        )
        await asyncio.to_thread(self._shelf.granted, kept, pairs)
        current = self._current
        if current is not None and current.served.number == kept.number:
            # Whoever is granted can be lost, too.
            current.served = kept.as_served()
            self._host.telemetry.epoch_serves(self._topic, len(current.served.hosts))
        return len(pairs)

    async def _erase(self, dataset: Dataset) -> None:
        """Epochs whose data the log no longer keeps need no secrets."""
        assert self._shelf is not None
        before = keep_from(dataset, self._host.clock.now())
        if self._shelf.expired(before):
            await asyncio.to_thread(self._shelf.erase, before)


def _epoch(started: Started, secret: EpochSecret) -> Epoch:
    start = started.start
    pairs = frozenset((recipient.host, recipient.thumbprint) for recipient in start.recipients)
    return Epoch(
        sealing=SealingEpoch.of(start, started.hash, secret),
        served=Served(number=start.number, started=start.started, served=pairs),
        start=start,
    )
