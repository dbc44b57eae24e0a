"""How a command reaches the platform and the databases: as the host of an agent.toml."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from fabric.config import AgentConfig, AuthorityConfig, GatewayConfig
from fabric.model.errors import ConfigInvalid, DeniedError, PeerError, Reason, UnavailableError
from fabric.model.names import Topic
from fabric.policy.types import Policy
from fabric.ports import ChangeSink, Log, Target
from fabric.tls import certificate_end

T = TypeVar("T")
Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="agent.toml of this host", exists=True, dir_okay=False),
]


File = Annotated[
    Path | None, typer.Argument(metavar="CONFIG", help="TOML file", exists=True, dir_okay=False)
]
Option = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="the same, as an option", exists=True, dir_okay=False),
]


def one_file(file: Path | None, option: Path | None, example: str) -> Path:
    """The file of a command that takes it as argument and as option; raises ConfigInvalid."""
    if file is not None and option is not None and file != option:
        raise ConfigInvalid(f"{file} and --config {option} are two files; name one")
    found = file or option
    if found is None:
        raise ConfigInvalid(f"this needs a file; name it: {example}, or --config {example}")
    return found


def as_host(config: Path | None) -> AgentConfig:
    """The agent's configuration; raises ConfigInvalid when none was named."""
    if config is None:
        raise ConfigInvalid("this needs an agent; name its file with --config agent.toml")
    return AgentConfig.load(config)


def named(option: str, parse: Callable[[str], T], text: str) -> T:
    """A name of the command line; raises ConfigInvalid with the option or argument it is from."""
    try:
        return parse(text)
    except PeerError as exc:
        raise ConfigInvalid(f"{option}: {exc.args[0]}") from exc


def svid(config: AgentConfig) -> tuple[Path, Path]:
    """The host's certificate and key, which its agent keeps.

    Raises:
        DeniedError: NOT_ATTESTED, the agent has not attested yet, or not again in time.
        ConfigInvalid: the file is no certificate.
    """
    certificate = config.agent.folder / "svid.pem"
    if not certificate.exists():
        raise DeniedError(
            Reason.NOT_ATTESTED,
            f"{certificate} is missing; start the agent, its log says why it is refused",
        )
    end = certificate_end(certificate)
    if end <= datetime.now(UTC):  # peers would refuse it, and seem to be at fault
        raise DeniedError(
            Reason.NOT_ATTESTED,
            f"the certificate ended at {end:%Y-%m-%d %H:%M:%S} UTC and this host has no newer one;"
            " start the agent, its log says why it is refused",
        )
    return certificate, config.agent.folder / "svid.key"


@contextlib.asynccontextmanager
async def log_of(config: AgentConfig) -> AsyncIterator[Log]:
    """The platform's log as this host may read it."""
    from fabric.kafka.log import KafkaLog
    from fabric.tls import client_context

    # The library tells its log what the error says better.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    context = client_context(*svid(config), config.tls.ca)
    log = KafkaLog(config.broker.bootstrap, (), lambda: context, client_id="fabric-cli")
    try:
        yield log
    finally:
        await log.close()


def policy_of(config: AgentConfig | GatewayConfig | AuthorityConfig) -> Policy:
    """The policy that the process last took; the repository's when it has taken none yet.

    Asking the repository runs a loop of its own: where one runs already, call this in a thread.

    Raises:
        FabricError: neither can be had.
    """
    from fabric.repository.client import fetch_once, last_good

    try:
        return last_good(config.policy)
    except UnavailableError:
        return fetch_once(config.policy, config.tls.ca)


@contextlib.asynccontextmanager
async def sinks_of(path: Path | None) -> AsyncIterator[Sequence[tuple[frozenset[str], ChangeSink]]]:
    """Every target of the agent, opened, with the topics it holds."""
    from fabric.database.registry import open_sink

    config = as_host(path)
    policy = await asyncio.to_thread(policy_of, config)
    async with contextlib.AsyncExitStack() as stack:
        opened: list[tuple[frozenset[str], ChangeSink]] = []
        for part in config.apply:
            sink = open_sink(part.kind, part.url)
            stack.push_async_callback(sink.close)
            targets = [target_of(policy, topic, table) for topic, table in part.tables.items()]
            await sink.open(targets)
            opened.append((frozenset(str(topic) for topic in part.tables), sink))
        yield opened


def target_of(policy: Policy, topic: Topic, table: str) -> Target:
    """One dataset as a sink must write it; raises DeniedError TOPIC_UNKNOWN."""
    from fabric.policy.decide import dataset_of

    dataset = dataset_of(policy, str(topic))
    return Target(
        topic=topic,
        table=table,
        schema=dataset.schema,
        quarantine=dataset.on_unappliable == "quarantine",
        partitions=dataset.partitions,
        salt=dataset.salt,
    )
