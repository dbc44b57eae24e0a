"""What an examination of a database is told and what it finds; nothing here touches one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fabric.model.errors import FabricError, Reason
from fabric.model.names import Topic
from fabric.ports import SourceTable, StreamState

MADE = "not there yet; the agent makes it when it starts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One capture as its host has it.

    Attributes:
        tables: what the policy knows of its tables.
        slot, publication: PostgreSQL's.
        resume: where it stood last, None when it has never run.
        agent: process of the host's agent, None when it does not run.
    """

    tables: Sequence[SourceTable]
    slot: str
    publication: str
    resume: str | None
    agent: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one agent has to do with one database, by the URL of its settings.

    Attributes:
        captures, targets: `[[capture]]` and `[[apply]]` that name it.
        tables: of those targets together.
        is_running: whether the agent runs, and may hold its connections already.
    """

    captures: int
    targets: int
    tables: int
    is_running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One part that was looked at.

    Attributes:
        part: what it is, for example `slot fabric_registry`.
        seen: how it is, or what is wrong with it; no row, no secret.
        reason: why it is ill; None when it is well.
        remedy: what to do, when there is more to say than of every case of the reason.
    """

    part: str
    seen: str
    reason: Reason | None = None
    remedy: str = ""


def well(part: str, seen: str) -> Finding:
    """A part that is as it must be."""
    return Finding(part=part, seen=seen)


def ill(part: str, reason: Reason, seen: str, remedy: str = "") -> Finding:
    """A part that is not."""
    return Finding(part=part, seen=seen, reason=reason, remedy=remedy)


def failed(part: str, exc: FabricError) -> Finding:
    """A part whose examination ended with an error, which says what is wrong."""
    return Finding(part=part, seen=str(exc.args[0]), reason=exc.reason)


def parked(count: int) -> Finding:
    """A target's quarantine."""
    if not count:
        return well("quarantine", "0 changes in quarantine")
    return ill(
        "quarantine",
        Reason.APPLY_FAILED,
        f"{count} changes in quarantine",
        "fabric quarantine list says why; correct that, then fabric quarantine retry or drop",
    )


def whole(topic: Topic, states: Collection[StreamState]) -> Finding:
    """Whether a target may lack rows of a dataset, by the states of its streams there."""
    part, lacks = f"dataset {topic}", [state for state in states if state.incomplete]
    if not lacks:
        return well(part, "no row is known to lack")
    if all(state.in_snapshot for state in lacks):
        return ill(
            part,
            Reason.NOT_READY,
            "rows may lack: a snapshot has begun and its end has not come",
            "wait for it; if it does not go on, fabric status at the source says why",
        )
    return ill(
        part,
        Reason.NOT_READY,
        "rows may lack, and no snapshot runs that would bring them: a new generation or a late"
        " start had none, or a change was dropped by hand",
        "have its source read anew, or the application publish anew between SNAPSHOT_BEGIN and"
        " SNAPSHOT_END: docs/runbooks/DatasetIncomplete.md, step 3",
    )
