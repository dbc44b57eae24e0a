"""The public Python API: an agent as an async context manager.

    async def main() -> None:
        async with fabric.Agent.from_config("agent.toml") as agent:
            async for change, position in agent.subscribe("secret.G01.residents"):
                ...
                await agent.ack(position)

    asyncio.run(main())

It is the host's agent, in the place of `fabric agent run`: while it is open it attests,
captures and applies what its configuration says. docs/api.md says what a change asks for.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fabric.agent.core import Core
from fabric.agent.subscription import Delivery, Position, Subscription
from fabric.agent.supervisor import end
from fabric.config import AgentConfig
from fabric.model.change import Change, Op, Row
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Reason, UnavailableError, UsageError
from fabric.model.limits import REQUEST_S_MAX, STOP_S_MAX
from fabric.model.names import Topic
from fabric.policy import decide
from fabric.ports import Tpm


class Agent:
    """One host's agent; make it with `from_config`, use it with one `async with`.

    Each method but `problems` raises UsageError outside it.
    """

    def __init__(self, config: AgentConfig, *, tpm: Tpm | None = None) -> None:
        """Prepare an agent; nothing runs yet.

        Args:
            tpm: used instead of the TPM that the configuration names.
        """
        self._core = Core(config, tpm=tpm)
        self._stack = contextlib.AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []
        self._subscribed: dict[Topic, Subscription] = {}
        self._was_entered = False
        self._is_open = False

    @classmethod
    def from_config(cls, path: str | Path) -> Self:
        """Read agent.toml; raises ConfigInvalid, which names the key and the remedy."""
        return cls(AgentConfig.load(Path(path)))

    async def __aenter__(self) -> Self:
        """Start every part in the background.

        Raises:
            UsageError: the policy or a setting is unfit, another agent runs here, or this
                one was entered before.
        """
        if self._was_entered:
            raise UsageError(Reason.INTERNAL, "an agent is entered once; make another")
        self._was_entered = True
        try:
            await self._core.open(self._stack)
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._core.start(self._spawn)
        except BaseException:
            await self._stack.aclose()
            raise
        self._is_open = True
        return self

    def _spawn(self, part: Coroutine[object, object, None]) -> asyncio.Task[None]:
        assert self._tasks is not None
        task = self._tasks.create_task(part)
        self._running.append(task)
        task.add_done_callback(self._running.remove)
        return task

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish blocks in flight, flush, and end every part within STOP_S_MAX."""
        for subscription in self._subscribed.values():
            subscription.close()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._core.stop()
        except TimeoutError:
            pass  # what was not acknowledged is sent again at the next start
        finally:
            await end(self._running)
            self._is_open = False
            await self._stack.aclose()

    def _check_open(self) -> None:
        if not self._is_open:
            raise UsageError(Reason.INTERNAL, "use the agent inside `async with`")

    @property
    def problems(self) -> Mapping[str, str]:
        """Parts that are not well, with the reason; empty when the agent is ready."""
        return self._core.board.problems

    async def wait_started(self) -> None:
        """Wait until the host is attested and its captures and applies have begun.

        Raises:
            UnavailableError: NOT_READY, the agent is closed before that.
        """
        self._check_open()
        await self._core.wait_started()

    async def subscribe(self, topic: str) -> AsyncGenerator[tuple[Change, Position]]:
        """Yield changes of a dataset, until the agent ends, each with its position.

        At least once: what is not acknowledged by `ack` comes again after a restart. One
        subscriber a topic: close it with contextlib.aclosing when you break out. A denial
        shows in `problems`; the iterator waits meanwhile. `Change` says what to do with one.

        Raises:
            Malformed: `topic` is no topic's name.
            DeniedError: TOPIC_UNKNOWN.
            UsageError: somebody subscribes to the topic already.
        """
        async with contextlib.aclosing(self.subscribe_blocks(topic)) as deliveries:
            async for delivery in deliveries:
                for change, position in delivery.changes():
                    yield change, position

    async def subscribe_blocks(self, topic: str) -> AsyncGenerator[Delivery]:
        """As `subscribe`, block by block: for those who move many rows.

        A block has up to 10,000 changes of one stream, in runs; its `position` acknowledges
        all of them. A block without a change says how far its source is.

        Raises:
            Malformed, DeniedError, UsageError: as `subscribe`.
        """
        self._check_open()
        name = Topic.parse(topic)
        with self._alone(name, Subscription(self._core.identity, name)) as subscription:
            try:
                host = await self._core.host()
            except UnavailableError:
                return  # the agent has ended, and so does whoever waits for a block
            decide.dataset_of(host.view.policy, topic)
            reading = self._spawn(self._core.subscribe(name, subscription))
            try:
                while (delivery := await subscription.next()) is not None:
                    yield delivery
            finally:
                with contextlib.suppress(TimeoutError):  # `__aexit__` waits for it once more
                    async with asyncio.timeout(STOP_S_MAX):
                        await end([reading])

    @contextlib.contextmanager
    def _alone(self, topic: Topic, subscription: Subscription) -> Iterator[Subscription]:
        """Two would share one position: what one acknowledges, the other would never get."""
        if topic in self._subscribed:
            raise UsageError(
                Reason.INTERNAL,
                f"{topic} has a subscriber; close that one first, with contextlib.aclosing",
            )
        self._subscribed[topic] = subscription
        try:
            yield subscription
        finally:
            del self._subscribed[topic]

    async def ack(self, position: Position) -> None:
        """Everything of the position's stream up to it is dealt with; durable.

        An older position than the last acknowledged one changes nothing.

        Raises:
            UnavailableError: the state file cannot be written: acknowledge again; NOT_READY,
                it is not open yet: no change has come, and `wait_started` waits for it.
        """
        self._check_open()
        identity = self._core.identity
        if not identity.is_open:
            raise UnavailableError(
                Reason.NOT_READY,
                "the agent has not opened its state file yet; acknowledge after `wait_started`",
            )
        await asyncio.to_thread(identity.state.save_position, position.stream, position.state)

    async def publish(self, topic: str, row: Row, *, op: Op = Op.UPSERT) -> ChangeSequence:
        """Send one change of a dataset that `outbox.topics` names; returns when it is stored.

        It waits in the agent's outbox until the platform has acknowledged it, and is in no
        source that could be read anew. Where readers may lack rows (`incomplete`: they joined
        late, the log was restored, or the agent's state file was lost), publish {} with
        op=Op.SNAPSHOT_BEGIN, every row there is, and {} with op=Op.SNAPSHOT_END. What readers
        have of this origin and did not get in between is removed at the end. docs/api.md says
        what an application does that keeps no rows.

        Args:
            row: whole row in Avro's physical values, None where a column is null; for
                DELETE the key columns, and no others; for the marks of a snapshot empty.

        Raises:
            UsageError: the topic is not in `outbox.topics`, or the row does not fit; fields
                that lack, that the dataset does not have or whose value is not of their type
                are named. TOO_LARGE, no block holds the row, not even alone.
            Malformed: `topic` is no topic's name.
            UnavailableError: the agent has not started, starts over, or the outbox is full.
        """
        self._check_open()
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                outbox = await self._core.outbox()
        except TimeoutError as exc:
            reason = next(iter(self._core.board.reasons().values()), None)
            raise UnavailableError(
                reason or Reason.NOT_READY, "the agent has not started yet"
            ) from exc
        return await outbox.put(Topic.parse(topic), op, row)
