"""One topic's epochs at their sender: open them, keep them, grant them to late comers.

The order of effects: the secret is in the state file before the epoch start is
sent, and the start is acknowledged before anyone seals under the epoch.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TypeAlias

from fabric.agent.epoch_machine import EpochMachine, Served, Wanted, Why, late
from fabric.agent.host import Host
from fabric.agent.recipients import choose
from fabric.agent.refusal_machine import pause_s
from fabric.attest.keys import PublicKey
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, Reason, UnavailableError
from fabric.model.limits import RECIPIENTS_PER_RECORD_MAX
from fabric.model.names import HostId, Stream, Topic, grants_topic
from fabric.policy.types import Dataset
from fabric.seal.epoch import (
    EpochDraft,
    Head,
    Started,
    parse_start,
    start_epoch,
    start_key,
    verify_start,
)
from fabric.seal.grant import GrantDraft, grant, grant_key
from fabric.seal.sealing import SealingEpoch
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of
from fabric.store.state import StoredEpoch

_APPEND_TRIES_MAX = 30
_Chosen: TypeAlias = tuple[Wanted, Mapping[HostId, PublicKey]]


@dataclass(slots=True)
class Epoch:
    """The current epoch: how to seal in it, whom it serves, how much was sealed."""

    sealing: SealingEpoch
    served: Served
    blocks: int = 0
    _counters: dict[Stream, int] = field(default_factory=dict)

    def counter(self, stream: Stream) -> int:
        """Counter of the stream's next block in this epoch."""
        return self._counters.get(stream, 0)

    def sealed(self, stream: Stream) -> None:
        """One more block of the stream was acknowledged."""
        self._counters[stream] = self.counter(stream) + 1
        self.blocks += 1


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
        self._chosen: tuple[tuple[int, int], _Chosen] | None = None

    @property
    def current(self) -> Epoch | None:
        """The epoch that blocks are sealed in."""
        return self._current

    def ask(self, why: Why) -> None:
        """Demand a new epoch before the next block."""
        self._asked = why

    async def ready(self, dataset: Dataset, result: Result) -> Epoch:
        """The epoch for the next block; a new one, acknowledged, when one is due.

        Raises:
            FabricError: the start was refused, or is not acknowledged yet.
        """
        async with self._lock:
            wanted, keys = self._choose(dataset)
            current = self._current
            served, blocks = (current.served, current.blocks) if current else (None, 0)
            due = self._machine.due(served, blocks, wanted, self._host.clock.now())
            why = self._asked or due
            if why is None and current is not None:
                return current
            self._host.view.check_grants(dataset, self._host.clock.now())
            return await self._open(dataset, result, keys, why or Why.START)

    def _choose(self, dataset: Dataset) -> _Chosen:
        """As `choose`; asked anew when the view changed, and every second, as results end."""
        view, now = self._host.view, self._host.clock.now()
        stamp = (view.version, int(now.timestamp()))
        if self._chosen is None or self._chosen[0] != stamp:
            self._chosen = (stamp, self._choose_for(dataset, dataset.suite))
        return self._chosen[1]

    def _choose_for(self, dataset: Dataset, suite: str) -> _Chosen:
        view, now = self._host.view, self._host.clock.now()
        return choose(view.policy, dataset, view.members, me=view.me, now=now, suite=suite)

    # Opening

    async def _open(
        self, dataset: Dataset, result: Result, keys: Mapping[HostId, PublicKey], why: Why
    ) -> Epoch:
        secret = EpochSecret.generate()
        started, stored = await asyncio.to_thread(
            self._draw_up, dataset, result, keys=keys, secret=secret
        )
        await asyncio.to_thread(self._host.identity.state.save_epoch, stored)
        await self._append(start_key(started.start), started.value)
        pairs = {(recipient.host, recipient.thumbprint) for recipient in started.start.recipients}
        self._current = Epoch(
            sealing=SealingEpoch.of(started.start, started.hash, secret),
            served=Served(
                number=started.start.number,
                suite=started.start.suite,
                started=started.start.started,
                served=frozenset(pairs),
            ),
        )
        self._asked = None
        self._machine.opened()
        start = started.start
        self._host.telemetry.epoch_opened(self._topic, why, start.number, start.started)
        self._host.telemetry.epoch_serves(self._topic, len(self._current.served.hosts))
        return self._current

    def _draw_up(
        self,
        dataset: Dataset,
        result: Result,
        *,
        keys: Mapping[HostId, PublicKey],
        secret: EpochSecret,
    ) -> tuple[Started, StoredEpoch]:
        view, now = self._host.view, self._host.clock.now()
        heads = tuple(self._heads())
        kept = self._host.identity.state.epochs(self._topic)
        # A lost state file lost the numbers too: seconds are above any number ever counted.
        number = kept[-1].number + 1 if kept else int(now.timestamp())
        draft = EpochDraft(
            trust_domain=view.trust_domain,
            sender=view.me,
            topic=self._topic,
            label=dataset.label,
            suite=dataset.suite,
            number=number,
            result_id=result.id,
            policy_version=view.policy.version,
            revocation_number=view.members.revocation_number,
            heads=heads,
            chain_reset=len(heads) < self._streams,
            history=dataset.history,
            started=now,
        )
        first = [view.me, *(host for host in sorted(keys) if host != view.me)]
        named = [(host, keys[host]) for host in first[:RECIPIENTS_PER_RECORD_MAX] if host in keys]
        signers = self._host.identity.keyring.signers(result, suite_of(dataset.suite))
        started = start_epoch(draft, secret, named, signers=signers)
        stored = StoredEpoch(
            topic=self._topic,
            number=number,
            started=now,
            start=started.value,
            secret=secret.private_bytes(),
        )
        return started, stored

    async def _append(self, key: bytes, value: bytes) -> None:
        """Send the same bytes until they are acknowledged; a final refusal is the caller's."""
        for attempt in range(_APPEND_TRIES_MAX):
            try:
                await self._host.log.append(grants_topic(self._topic), 0, [(key, value)])
                return
            except UnavailableError as exc:
                self._host.telemetry.held(self._topic, exc.reason, str(exc.args[0]))
                await self._host.view.changed.wait(pause_s(attempt))
        raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "epoch start is not acknowledged")

    # Granting

    async def grant_late(self, dataset: Dataset, result: Result) -> int:
        """Grant kept epochs to whoever should have them and does not; number of wraps sent."""
        kept = await asyncio.to_thread(self._host.identity.state.epochs, self._topic)
        served = await asyncio.to_thread(lambda: [self._served(stored) for stored in kept])
        # A dataset may have moved between suites: each epoch is wrapped to keys of its own.
        chosen = {
            suite: self._choose_for(dataset, suite) for suite in {item.suite for item in served}
        }
        missing = {suite: late(served, wanted) for suite, (wanted, _) in chosen.items()}
        sent = 0
        for stored, item in zip(kept, served, strict=True):
            keys = chosen[item.suite][1]
            hosts = missing[item.suite].get(item.number, ())
            for at in range(0, len(hosts), RECIPIENTS_PER_RECORD_MAX):
                part = hosts[at : at + RECIPIENTS_PER_RECORD_MAX]
                sent += await self._grant(stored, result, {host: keys[host] for host in part})
        await self._forget(dataset)
        return sent

    def _served(self, stored: StoredEpoch) -> Served:
        start = parse_start(stored.start).start
        pairs = {(recipient.host, recipient.thumbprint) for recipient in start.recipients}
        for host, thumbprint in self._host.identity.state.granted(start.id):
            pairs.add((HostId.parse(host), thumbprint))
        return Served(
            number=stored.number,
            suite=start.suite,
            started=stored.started,
            served=frozenset(pairs),
        )

    async def _grant(
        self, stored: StoredEpoch, result: Result, keys: Mapping[HostId, PublicKey]
    ) -> int:
        opened = parse_start(stored.start)
        try:
            named = self._host.view.members.result(opened.start.result_id)
        except DeniedError:  # our result of then is not in the view (yet): look again later
            return 0
        started = verify_start(opened, named, self._host.view.trust_domain)
        draft = GrantDraft(
            granter=self._host.view.me,
            result_id=result.id,
            policy_version=self._host.view.policy.version,
            revocation_number=self._host.view.members.revocation_number,
            granted=self._host.clock.now(),
        )
        signers = self._host.identity.keyring.signers(result, suite_of(started.start.suite))
        value = await asyncio.to_thread(
            grant,
            draft,
            started,
            EpochSecret(stored.secret),
            recipients=[*keys.items()],
            signers=signers,
        )
        await self._append(grant_key(self._host.view.me, started.start.id), value)
        pairs = [(host, key.thumbprint) for host, key in keys.items()]
        await asyncio.to_thread(
            self._host.identity.state.save_granted,
            started.start.id,
            [(str(host), thumbprint) for host, thumbprint in pairs],
        )
        current = self._current
        if current is not None and current.served.number == stored.number:
            # Whoever is granted can be lost, too.
            current.served = replace(current.served, served=current.served.served | {*pairs})
            self._host.telemetry.epoch_serves(self._topic, len(current.served.hosts))
        return len(pairs)

    async def _forget(self, dataset: Dataset) -> None:
        """Epochs whose data the log no longer keeps need no secrets."""
        before = self._host.clock.now() - timedelta(seconds=dataset.retention_s)
        await asyncio.to_thread(self._host.identity.state.drop_epochs, self._topic, before)
