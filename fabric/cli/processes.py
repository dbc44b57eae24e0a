"""`fabric agent|gateway|authority ...`: the long-lived processes, and what is asked of them."""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fabric.cli import output
from fabric.cli.access import File, Option, one_file
from fabric.model.errors import ConfigInvalid
from fabric.model.names import HostId

agent = typer.Typer(help="The agent beside an agency's database.", no_args_is_help=True)
gateway = typer.Typer(help="The produce gateway.", no_args_is_help=True)
authority = typer.Typer(help="The authority: verifier and its register.", no_args_is_help=True)

Config = Annotated[Path, typer.Argument(help="TOML file", exists=True, dir_okay=False)]
HostName = Annotated[str, typer.Argument(help="agency/system/host")]
ScopeName = Annotated[
    str, typer.Argument(help="agency/system/host, or agency/system or agency for all hosts of it")
]
Why = Annotated[str, typer.Option("--why", help="for the audit log")]


_FILES_WANTED = 16_384


def _allow_files() -> None:
    """Raise the soft limit of open files: a shell's usual 1,024 is fewer than connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(_FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def until_signalled(start: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run a process until SIGTERM or SIGINT asks it to stop; a second signal ends it at once."""
    import uvloop

    async def body() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, stop, loop, number)
        await start(stop)

    _allow_files()
    # What was imported stays for good: no collection need ever look at it again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


def _stop(stop: asyncio.Event, loop: asyncio.AbstractEventLoop, number: signal.Signals) -> None:
    stop.set()
    loop.remove_signal_handler(number)


@agent.command("run")
def agent_run(config: Config) -> None:
    """Run every capture and apply of CONFIG until stopped."""
    from fabric.agent.run import run
    from fabric.config import AgentConfig

    loaded = AgentConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop))


@agent.command("drain")
def agent_drain(
    config: Config,
    within: Annotated[float, typer.Option(min=0, help="give up after so many seconds")] = 1_800,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Wait until results carry all that this host has sent: its approval may end then. 10 if late.

    Drained means: no snapshot runs, the platform has acknowledged every change that was committed
    at the sources when the command began, and published results carry the last block of each
    stream. Let nothing more be written to the sources before; the agent goes on running meanwhile.
    """
    from fabric.cli.drain import drain
    from fabric.config import AgentConfig

    found = asyncio.run(drain(AgentConfig.load(config), config, within))
    output.record(form, found)
    if not found["drained"]:
        raise typer.Exit(output.UNHEALTHY)
    typer.echo("drained: once its readers are in step the approval may be withdrawn", err=True)


@gateway.command("run")
def gateway_run(config: Config) -> None:
    """Serve producers until stopped."""
    from fabric.config import GatewayConfig
    from fabric.gateway.run import run

    loaded = GatewayConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop))


@gateway.command("doctor")
def gateway_doctor(
    file: File = None, config: Option = None, form: output.Output = output.Form.TABLE
) -> None:
    """Check everything that this gateway needs, changing nothing; exit 10 when a check fails."""
    from fabric.cli.doctor_gateway import examine

    examine(one_file(file, config, "gateway.toml"), form)


def _ask(config: Path, verb: str, *arguments: object) -> Any:
    """One question to a running authority, with the admin certificate of its file."""
    from fabric.authority import admin
    from fabric.config import AuthorityConfig

    ask = getattr(admin, verb)
    return asyncio.run(ask(AuthorityConfig.load(config), *arguments))


def _scope(text: str) -> Any:
    from fabric.authority.admin_messages import Scope
    from fabric.cli.access import named

    return named("WHO", Scope.parse, text)


@authority.command("enrolments")
def authority_enrolments(config: Config, form: output.Output = output.Form.TABLE) -> None:
    """List enrolled hosts with the key names that their approvals need."""
    output.rows(form, _ask(config, "list_enrolments"), empty="no host has enrolled")


@authority.command("hosts")
def authority_hosts(config: Config, form: output.Output = output.Form.TABLE) -> None:
    """List hosts with their state now."""
    output.rows(form, _ask(config, "list_hosts"), empty="no host has attested")


@authority.command("suspend")
def authority_suspend(
    config: Config, who: ScopeName, why: Why, form: output.Output = output.Form.TABLE
) -> None:
    """Suspend hosts until approvals with greater numbers."""
    output.rows(form, _ask(config, "suspend", _scope(who), why), empty="no host")


@authority.command("revoke")
def authority_revoke(
    config: Config, who: ScopeName, why: Why, form: output.Output = output.Form.TABLE
) -> None:
    """Revoke hosts' approvals for good; each gets a notice with a number of its own."""
    output.rows(form, _ask(config, "revoke", _scope(who), why), empty="no host")


@authority.command("forget")
def authority_forget(config: Config, host: HostName, why: Why) -> None:
    """Delete a host's enrolment, so that another TPM may enrol under its name."""
    from fabric.cli.access import named

    output.record(output.Form.TABLE, _ask(config, "forget", named("HOST", HostId.parse, host), why))


@authority.command("key")
def authority_key(
    path: Annotated[Path, typer.Argument(help="new file; its owner alone will read it")],
) -> None:
    """Make the authority's signing keys; prints `verifier.keys` for the policy's policy.yaml."""
    import yaml

    from fabric.authority.pki import encode_verifier_keys, make_verifier_keys

    keys = make_verifier_keys()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(encode_verifier_keys(keys))
    except OSError as exc:
        raise ConfigInvalid(f"{path}: cannot be made ({exc.strerror}); choose a new name") from exc
    public = [{"alg": int(key.public.alg), "public": key.public.data.hex()} for key in keys]
    typer.echo(yaml.safe_dump({"keys": public}, sort_keys=False, width=10_000), nl=False)


@authority.command("doctor")
def authority_doctor(
    file: File = None, config: Option = None, form: output.Output = output.Form.TABLE
) -> None:
    """Check everything that the authority needs, changing nothing; exit 10 when a check fails."""
    from fabric.cli.doctor_authority import examine

    examine(one_file(file, config, "authority.toml"), form)


@authority.command("run")
def authority_run(
    config: Config,
    clock_is_right: Annotated[
        bool,
        typer.Option(
            "--clock-is-right", help="go by this machine's clock, though the ledger's time is later"
        ),
    ] = False,
) -> None:
    """Enrol, attest, suspend and revoke hosts until stopped."""
    from fabric.authority.run import run
    from fabric.config import AuthorityConfig

    loaded = AuthorityConfig.load(config)
    until_signalled(lambda stop: run(loaded, stop=stop, forgets_time=clock_is_right))
