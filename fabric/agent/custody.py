"""Keep one topic's epochs for those who come later, where policy names this host a custodian.

Nothing is stored for it: starts and grants stand in the grants topic, and this host's
HPKE keys, old ones included, open them again. Policy may name or un-name this host at
any time, so the part runs on every host that reads the topic and mostly sleeps.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from fabric.agent.custody_machine import CustodyMachine, Held
from fabric.agent.epoch_machine import Served
from fabric.agent.granting import Asked, keep_from, send_grants
from fabric.agent.host import Host
from fabric.agent.recipients import choose
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.limits import CUSTODY_AFTER_S
from fabric.model.names import HostId, Topic
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.seal.epoch import VerifiedStart
from fabric.seal.secret import EpochSecret

LOOK_S = 5.0
"""How often a custodian looks, seconds."""


class Custody:
    """The custody of one topic by this host.

    Args:
        after_s: how long a sender is away before we act for it, seconds.
    """

    def __init__(self, host: Host, topic: Topic, *, after_s: float = CUSTODY_AFTER_S) -> None:
        self._host = host
        self._topic = topic
        self._book = host.view.book(topic)
        self._machine = CustodyMachine(after_s)

    async def run(self) -> None:
        """Look every few seconds, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> int:
        """Grant what is due; number of wraps that were acknowledged."""
        view, now = self._host.view, self._host.clock.now()
        dataset = view.dataset(self._topic)
        if dataset is None or not decide.is_custodian(dataset, view.me):
            return 0
        self._host.telemetry.may_grant(self._topic)
        try:
            result = view.current(now)
            view.check_grants(dataset, now)
            asked = Asked.of(view, dataset)
        except DeniedError:
            return 0  # attesting and publishing show why
        starts = self._starts(dataset, result, now)
        sent = 0
        for suite in sorted({item.start.suite for item in starts}):
            mine = [item for item in starts if item.start.suite == suite]
            sent += await self._grant(asked, result, mine)
        return sent

    def _starts(self, dataset: Dataset, result: Result, now: datetime) -> list[VerifiedStart]:
        """Epochs of others that readers still take blocks of and that we may grant."""
        view, before, me = self._host.view, keep_from(dataset, now), standing(result)
        return [
            item
            for item in self._book.starts(view.members)
            if item.start.sender != view.me
            and item.start.label == dataset.label
            and item.start.started >= before
            and decide.custody(view.policy, dataset, me, suite=item.start.suite, now=now) is None
        ]

    async def _grant(self, asked: Asked, result: Result, starts: Sequence[VerifiedStart]) -> int:
        """Grant epochs of one suite."""
        view, suite = self._host.view, starts[0].start.suite
        dataset, now = asked.dataset, self._host.clock.now()
        wanted, keys = choose(view.policy, dataset, view.members, me=None, now=now, suite=suite)
        self._host.telemetry.chosen(self._topic, suite, wanted)
        view.waits_for(*wanted.refused.values())
        due = self._machine.due(
            [self._held(item) for item in starts],
            wanted,
            here={
                item.start.sender: self._is_here(dataset, item.start.sender, suite)
                for item in starts
            },
            turn=self._turn(dataset, suite),
            now=now,
        )
        by_place = {(item.start.sender, item.start.number): item for item in starts}
        sent = 0
        for sender, number, hosts in due:
            started = by_place[sender, number]
            secret = self._secret(started)
            if secret is not None:
                chosen = {host: keys[host] for host in hosts}
                pairs = await send_grants(
                    self._host, result, started, secret=secret, keys=chosen, asked=asked
                )
                sent += len(pairs)
        return sent

    def _held(self, item: VerifiedStart) -> Held:
        start = item.start
        served = self._book.served(item, self._host.view.door)
        return Held(
            sender=start.sender,
            served=Served(number=start.number, started=start.started, served=served),
            chain_reset=start.chain_reset,
        )

    def _secret(self, started: VerifiedStart) -> EpochSecret | None:
        """The epoch's secret, unless nobody has granted it to this host."""
        try:
            keys = self._host.identity.keyring.hpke
            return self._book.secret(started, keys, self._host.view.door)
        except (DeniedError, PeerError):
            return None

    def _turn(self, dataset: Dataset, suite: str) -> int:
        """How many custodians that may grant come before this one, by name."""
        view = self._host.view
        others = (host for host in view.members.hosts if decide.is_custodian(dataset, host))
        return sum(
            str(host) < str(view.me) and self._is_here(dataset, host, suite, custodian=True)
            for host in others
        )

    def _is_here(
        self, dataset: Dataset, host: HostId, suite: str, *, custodian: bool = False
    ) -> bool:
        """Whether a host is attested and may grant: one that only attests is waited for in vain.

        What is only late to reach us, its result or the policy of it, counts for it.
        """
        view, now = self._host.view, self._host.clock.now()
        try:
            result = view.members.current(host, now)
        except DeniedError as exc:
            return exc.reason is Reason.RESULT_UNKNOWN
        ask = decide.custody if custodian else decide.grant
        why = ask(view.policy, dataset, standing(result), suite=suite, now=now)
        return why is None or why is Reason.POLICY_NEWER
