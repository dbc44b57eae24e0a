"""Why this host has no attestation: what its running agent says of it, else what its files tell.

Without one the broker closes every topic and no peer takes the certificate. To call that a
broker's fault, or a lack of rights, would send the operator to the wrong place.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fabric.cli.access import svid
from fabric.cli.figures import problem_of
from fabric.cli.output import Unattested, is_of_attestation
from fabric.cli.page import read_page
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.names import MEMBERS
from fabric.ports import Log

PART = "attestation"
"""The agent's part that keeps it attested."""


async def explain(config: AgentConfig, path: Path, error: DeniedError) -> None:
    """Say the cause in the place of what follows from it, when the running agent knows it.

    Args:
        path: the agent.toml, for the agent's pages.
        error: what this host saw by itself.

    Raises:
        Unattested: with the agent's reason, whatever keeps it from a result.
    """
    if not is_of_attestation(error.reason):
        return
    try:
        page = await read_page(config, path)
    except FabricError:
        return
    wrong = page.parts.get(PART)
    if not wrong:
        return
    reason = Reason(problem_of(PART, wrong).reason)
    if reason is Reason.NOT_READY:  # it has only begun
        return
    words = wrong.partition(": ")[2] or "no more than that"
    raise Unattested(reason, f"this host is not attested; its agent says: {words}") from error


@contextlib.asynccontextmanager
async def explained(config: AgentConfig, path: Path) -> AsyncIterator[None]:
    """Let what is denied inside say why this host is not attested, when that is the cause."""
    try:
        yield
    except DeniedError as exc:
        await explain(config, path, exc)
        raise


async def papers(config: AgentConfig, path: Path) -> tuple[Path, Path]:
    """The host's certificate and key; raises DeniedError with why there are none."""
    async with explained(config, path):
        return svid(config)


async def check_open(log: Log) -> None:
    """Look whether the broker takes us for attested at all.

    Raises:
        DeniedError: NOT_ATTESTED, it closes to us what is open to every attested host.
        UnavailableError: BROKER_UNAVAILABLE.
    """
    try:
        await log.bounds(MEMBERS, 0)
    except DeniedError as exc:
        raise closed(exc) from exc


def closed(error: DeniedError) -> DeniedError:
    """What it means when the members topic is not given to us."""
    if error.reason is not Reason.NOT_A_CONSUMER:
        return DeniedError(error.reason, str(error.args[0]))
    return DeniedError(
        Reason.NOT_ATTESTED,
        f"{MEMBERS} is closed to this host, as to each that is suspended, revoked or not approved",
    )
