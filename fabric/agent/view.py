"""What this host knows of the world: policy, members, grants; and a bell for changes.

Filled by followers of the control topics and the policy repository. Bad records are
counted and passed over: whoever can write them can also withhold good ones, and
what is missing shows elsewhere.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from fabric.admit.view import View
from fabric.agent.grant_book import GrantBook
from fabric.agent.tick_machine import check_grants, check_rows
from fabric.attest.members import Members
from fabric.attest.notices import HEARTBEAT_KEY
from fabric.attest.result import Result
from fabric.kafka.follow import follow
from fabric.model.errors import FabricError, PeerError, Reason, UnavailableError, UsageError
from fabric.model.names import MEMBERS, RESULTS, HostId, Topic, grants_topic
from fabric.policy import decide
from fabric.policy.types import Dataset, Policy
from fabric.ports import Log, Record

_WATCH_S = 0.5
_POLICY_S = 60.0


class Bell:
    """Wakes everyone who waits, each time it rings."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake those who wait now."""
        for future in self._waiting:
            if not future.done():
                future.set_result(None)
        self._waiting.clear()

    async def wait(self, seconds: float) -> None:
        """Return at the next ring, or after `seconds`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            async with asyncio.timeout(seconds):
                await future
        except TimeoutError:
            return
        finally:
            self._waiting.discard(future)


class WorldView:
    """Policy, members and grants as of now, by one set of trust anchors.

    Args:
        rejected: called with topic and reason for every bad control record.
        latest: the latest time that a tick may bear now, by this host's own clock.

    Attributes:
        outdated: set once a policy with other trust anchors was shown: what this view
            has verified counts no more, and whoever made it makes another.
        policy_wanted: set while somebody waits for a newer policy; cleared by who looks.
    """

    def __init__(
        self,
        me: HostId,
        policy: Policy,
        *,
        rejected: Callable[[str, Reason], None],
        latest: Callable[[], datetime],
    ) -> None:
        self.me = me
        self.changed = Bell()
        self.changed_policy = Bell()
        self.version = 0
        self.outdated = asyncio.Event()
        self.policy_wanted = asyncio.Event()
        self._policy = policy
        self._members = Members(policy.trust)
        self._rejected = rejected
        self._latest = latest
        self._books: dict[Topic, GrantBook] = {}
        self._caught_up = {name: asyncio.Event() for name in (MEMBERS, RESULTS)}

    @property
    def policy(self) -> Policy:
        """The last good policy."""
        return self._policy

    @property
    def members(self) -> Members:
        """Who is attested."""
        return self._members

    @property
    def trust_domain(self) -> str:
        """Of every SPIFFE id here."""
        return self._policy.trust.trust_domain

    @property
    def door(self) -> View:
        """The view that admission wants."""
        return View(policy=self._policy, members=self._members)

    def take_policy(self, policy: Policy) -> None:
        """Take over a newer policy, or the same with a later end.

        One with other trust anchors is not for this view to take: it is `outdated` instead.

        Raises:
            UsageError: POLICY_INVALID, its version goes back.
        """
        if policy.version < self._policy.version:
            raise UsageError(Reason.POLICY_INVALID, "policy: version: must not go back")
        if not policy.trust.is_same_to_peers(self._policy.trust):
            self.outdated.set()
            return
        self._policy = policy
        self.changed_policy.ring()
        self._ring()

    def waits_for(self, *reasons: Reason) -> None:
        """Somebody cannot go on for these: a policy that others have is looked for soon."""
        if Reason.POLICY_NEWER in reasons:
            self.policy_wanted.set()

    def dataset(self, topic: Topic) -> Dataset | None:
        """The policy's word on a topic."""
        return self._policy.datasets.get(str(topic))

    def current(self, now: datetime) -> Result:
        """This host's own current result; raises DeniedError as Members.current."""
        return self._members.current(self.me, now)

    def check_rows(self, dataset: Dataset, now: datetime) -> None:
        """Raise DeniedError MEMBERS_STALE when this view is too old to move rows by."""
        check_rows(self._members.whole_at, now, self._lifetime_s(dataset))

    def check_grants(self, dataset: Dataset, now: datetime) -> None:
        """Raise DeniedError MEMBERS_STALE when this view is too old to give out keys by."""
        check_grants(self._members.whole_at, now, self._lifetime_s(dataset))

    def _lifetime_s(self, dataset: Dataset) -> int:
        return decide.rule_of(self._policy, dataset).result_lifetime_s

    def book(self, topic: Topic) -> GrantBook:
        """The grants of a topic; follow it with `follow_grants`."""
        found = self._books.get(topic)
        if found is None:
            name = grants_topic(topic)
            found = self._books[topic] = GrantBook(
                topic,
                self.trust_domain,
                self.me,
                rejected=lambda reason: self._rejected(name, reason),
            )
        return found

    async def until_changed(self, *datasets: Dataset) -> None:
        """Raise UnavailableError NOT_READY when the policy says something else of a dataset.

        Args:
            datasets: as whoever runs on them took them: what came since counts, too.
        """
        while all(self.dataset(dataset.topic) == dataset for dataset in datasets):
            await self.changed_policy.wait(_POLICY_S)
        raise UnavailableError(Reason.NOT_READY, "the dataset's policy changed; starting over")

    @property
    def is_read(self) -> bool:
        """Whether members and results were read to their ends and can still be read."""
        return all(event.is_set() for event in self._caught_up.values())

    async def wait_caught_up(self) -> None:
        """Wait until members and results were read to their ends."""
        for event in self._caught_up.values():
            await event.wait()

    async def follow(self, log: Log, show: Callable[[Reason | None, str], None]) -> None:
        """Follow members and results, for ever; `show` hears whether they can be read."""
        async with asyncio.TaskGroup() as tasks:
            for name, event in self._caught_up.items():
                tasks.create_task(follow(log, name, self._feed_members, event))
            tasks.create_task(self._watch(show))

    async def follow_grants(self, log: Log, topic: Topic) -> None:
        """Follow the grants of a topic, for ever."""
        await follow(log, grants_topic(topic), self._feeder(topic), asyncio.Event())

    async def _watch(self, show: Callable[[Reason | None, str], None]) -> None:
        was_whole = False
        while True:
            lagging = [name for name, event in self._caught_up.items() if not event.is_set()]
            was_whole = was_whole or not lagging
            why = Reason.BROKER_UNAVAILABLE if was_whole else Reason.NOT_READY
            show(why if lagging else None, f"reading {', '.join(lagging)}" if lagging else "")
            await asyncio.sleep(_WATCH_S)

    def take(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Take in one record of members or results, whoever handed it on."""
        try:
            if key is None or value is None:
                raise PeerError(Reason.MALFORMED, "control record has no key or no value")
            self._members.feed(topic, key, value, latest=self._latest())
        except FabricError as exc:
            self._rejected(topic, exc.reason)
            return
        if key != HEARTBEAT_KEY:
            self._ring()

    def _feed_members(self, record: Record) -> None:
        self.take(record.topic, record.key, record.value)

    def _feeder(self, topic: Topic) -> Callable[[Record], None]:
        book = self.book(topic)

        def feed(record: Record) -> None:
            try:
                if record.key is None or record.value is None:
                    raise PeerError(Reason.MALFORMED, "control record has no key or no value")
                book.feed(record.key, record.value, self._members)
            except FabricError as exc:
                self._rejected(record.topic, exc.reason)
                return
            self._ring()

        return feed

    def _ring(self) -> None:
        self.version += 1
        self.changed.ring()


__all__ = ["Bell", "WorldView"]
