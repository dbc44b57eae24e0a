"""Run an agent until it is asked to stop: what `fabric agent run` does."""

import asyncio
import logging

from fabric.agent.api import Agent
from fabric.config import AgentConfig


async def run(config: AgentConfig, *, stop: asyncio.Event | None = None) -> None:
    """Run every capture and apply of `config`.

    Args:
        stop: ends the agent when set: blocks in flight are finished, within STOP_S_MAX.

    Raises:
        UsageError: policy or settings are unfit; exit code 2.
    """
    # aiokafka logs each failed try; what matters of them is raised, and shown once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    async with Agent(config):
        await (stop or asyncio.Event()).wait()
