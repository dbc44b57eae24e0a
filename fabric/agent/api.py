"""The public Python API: an agent as an async context manager.

    async with fabric.Agent.from_config("agent.toml") as agent:
        async for change, position in agent.subscribe("secret.G01.residents"):
            ...
            await agent.ack(position)

While it is open it attests, captures and applies what its configuration says.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from fabric.agent.core import Core
from fabric.agent.subscription import Delivery, Position, Subscription
from fabric.agent.supervisor import end
from fabric.config import AgentConfig
from fabric.model.change import Change, Op, Row
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX, STOP_S_MAX
from fabric.model.names import Topic
from fabric.policy import decide
from fabric.ports import Tpm


class Agent:
    """One host's agent; make it with `from_config`, use it with `async with`."""

    def __init__(self, config: AgentConfig, *, tpm: Tpm | None = None) -> None:
        """Prepare an agent; nothing runs yet.

        Args:
            tpm: used instead of the TPM that the configuration names.
        """
        self._core = Core(config, tpm=tpm)
        self._stack = contextlib.AsyncExitStack()
        self._tasks: asyncio.TaskGroup | None = None
        self._running: list[asyncio.Task[None]] = []

    @classmethod
    def from_config(cls, path: str | Path) -> Self:
        """Read agent.toml; raises ConfigInvalid, which names the key and the remedy."""
        return cls(AgentConfig.load(Path(path)))

    async def __aenter__(self) -> Self:
        """Start every part in the background.

        Raises:
            UsageError: the policy or a setting is unfit, or another agent runs here.
        """
        try:
            await self._core.open(self._stack)
            self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
            self._core.start(self._spawn)
        except BaseException:
            await self._stack.aclose()
            raise
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
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._core.stop()
        except TimeoutError:
            pass  # what was not acknowledged is sent again at the next start
        finally:
            await end(self._running)
            await self._stack.aclose()

    @property
    def problems(self) -> Mapping[str, str]:
        """Parts that are not well, with the reason; empty when the agent is ready."""
        return self._core.board.problems

    async def wait_started(self) -> None:
        """Wait until the host is attested and its captures and applies have begun."""
        await self._core.started.wait()

    async def subscribe(self, topic: str) -> AsyncGenerator[tuple[Change, Position]]:
        """Yield changes of a dataset, for ever, each with its position.

        At least once: what is not acknowledged by `ack` comes again after a restart. One
        subscriber a topic. A denial shows in `problems`; the iterator waits meanwhile.

        Raises:
            Malformed: `topic` is no topic's name.
            DeniedError: TOPIC_UNKNOWN.
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
            Malformed, DeniedError: as `subscribe`.
        """
        name = Topic.parse(topic)
        host = await self._core.host()
        decide.dataset_of(host.view.policy, topic)
        subscription = Subscription(host.identity, name)
        reading = self._spawn(self._core.subscribe(name, subscription))
        try:
            while True:
                yield await subscription.next()
        finally:
            reading.cancel()

    async def ack(self, position: Position) -> None:
        """Everything of the position's stream up to it is dealt with; durable."""
        state = self._core.identity.state
        await asyncio.to_thread(state.save_position, position.stream, position.state)

    async def publish(self, topic: str, row: Row, *, op: Op = Op.UPSERT) -> ChangeSequence:
        """Send one change of a dataset that `outbox.topics` names; returns when it is stored.

        It waits in the agent's outbox until the platform has acknowledged it.

        Args:
            row: whole row in Avro's physical values, None where a column is null; for
                DELETE the key columns, and no others.

        Raises:
            UsageError: the topic is not in `outbox.topics`, or the row does not fit; fields
                that lack or that the dataset does not have are named.
            UnavailableError: the agent has not started, or the outbox is full.
        """
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                outbox = await self._core.outbox()
        except TimeoutError as exc:
            reason = next(iter(self._core.board.reasons().values()), None)
            raise UnavailableError(
                reason or Reason.NOT_READY, "the agent has not started yet"
            ) from exc
        return await outbox.put(Topic.parse(topic), op, row)
