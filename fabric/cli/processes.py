"""`fabric agent run`, `fabric gateway run`, `fabric authority run`: the long-lived processes."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

agent = typer.Typer(help="The agent beside an agency's database.", no_args_is_help=True)
gateway = typer.Typer(help="The produce gateway.", no_args_is_help=True)
authority = typer.Typer(help="The authority: verifier and its register.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(help="TOML file", exists=True, dir_okay=False)]


def until_signalled(start: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a process until SIGTERM or SIGINT asks it to stop; a second signal ends it at once."""

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _ask, stop, loop, number)
        await start(stop)

    asyncio.run(body())


def _ask(stop: asyncio.Event, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    stop.set()
    loop.remove_signal_handler(number)


@agent.command("run")
def agent_run(config: Config) -> None:
    """Run every capture and apply of CONFIG until stopped."""
    from fabric.agent.run import run
    from fabric.config import AgentConfig

    loaded = AgentConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop))


@gateway.command("run")
def gateway_run(config: Config) -> None:
    """Serve producers until stopped."""
    from fabric.config import GatewayConfig
    from fabric.gateway.run import run

    loaded = GatewayConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop))


@authority.command("run")
def authority_run(config: Config) -> None:
    """Enrol, attest, suspend and revoke hosts until stopped."""
    from fabric.authority.run import run
    from fabric.config import AuthorityConfig

    loaded = AuthorityConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop))
