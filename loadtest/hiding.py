"""A gateway, or a host that speaks all the time, on a broker that can hide the members topic.

    python -m loadtest.hiding gateway CONFIG SWITCH
    python -m loadtest.hiding host CONFIG SWITCH TOPIC

While the file SWITCH exists this process gets nothing of the members topic, as from a
broker that holds it back; everything else it gets. A host publishes one note every
few milliseconds and does what its agent does with what comes back.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import fabric
import fabric.agent.core
import fabric.gateway.run
from fabric.cli.processes import until_signalled
from fabric.config import GatewayConfig
from fabric.kafka.log import KafkaLog
from fabric.model.errors import FabricError
from fabric.model.names import MEMBERS
from fabric.ports import Record

_LOOK_S = 0.01
_EVERY_S = 0.02
_ROWS = 1_000


def hide_behind(switch: Path) -> None:
    """Make every log of this process one that can hide the members topic."""

    is_on = switch.exists

    class HidingLog(KafkaLog):
        async def read(
            self, topic: str, partition: int, offset: int
        ) -> AsyncIterator[Sequence[Record]]:
            async for batch in super().read(topic, partition, offset):
                while topic == MEMBERS and is_on():  # noqa: ASYNC110  # another process does it
                    await asyncio.sleep(_LOOK_S)
                yield batch

    for module in (fabric.agent.core, fabric.gateway.run):
        assert "KafkaLog" in vars(module)
        vars(module)["KafkaLog"] = HidingLog


async def speak(config: str, topic: str, stop: asyncio.Event) -> None:
    """Publish notes until `stop`; what is refused waits in the agent's outbox."""
    async with fabric.Agent.from_config(config) as agent:
        for number in itertools.count():
            if stop.is_set():
                return
            try:
                await agent.publish(topic, {"id": number % _ROWS, "text": f"note {number}"})
            except FabricError:
                await asyncio.sleep(_LOOK_S * 10)
            await asyncio.sleep(_EVERY_S)


def main(kind: str, config: str, switch: str, *topic: str) -> None:
    """Run one process until it is asked to stop."""
    hide_behind(Path(switch))
    if kind == "gateway":
        loaded = GatewayConfig.load(Path(config))
        until_signalled(lambda stop: fabric.gateway.run.run(loaded, stop=stop))
    else:
        until_signalled(lambda stop: speak(config, topic[0], stop))


if __name__ == "__main__":
    main(*sys.argv[1:])
