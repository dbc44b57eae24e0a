"""How commands print: a table for people or JSON for programs, errors to standard error."""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
    UsageError,
)

Fields = Mapping[str, object]

OK, ERROR, USAGE, UNHEALTHY, DENIED, NOT_ATTESTED = 0, 1, 2, 10, 11, 12


class Form(StrEnum):
    """Output forms."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


Output = Annotated[Form, typer.Option("-o", "--output", help="table, json or jsonl")]

_NOT_ATTESTED = frozenset(
    {
        Reason.NOT_ATTESTED,
        Reason.NOT_ENROLLED,
        Reason.NOT_APPROVED,
        Reason.APPROVAL_EXPIRED,
        Reason.STATE_REFUSED,
        Reason.HOST_SUSPENDED,
        Reason.HOST_REVOKED,
        Reason.RESULT_EXPIRED,
        Reason.EVIDENCE_REFUSED,
    }
)


class Unattested(DeniedError):
    """This host has no result that holds; the reason is why, be it a TPM or an authority away."""


def is_of_attestation(reason: Reason) -> bool:
    """Whether a reason says that a host is not attested."""
    return reason in _NOT_ATTESTED


def exit_code(error: FabricError) -> int:
    """The documented exit code of an error."""
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, Unattested) or is_of_attestation(error.reason):
        return NOT_ATTESTED
    if isinstance(error, DeniedError) and error.reason is not Reason.APPLY_FAILED:
        return DENIED  # what a target's own table refuses, no policy denies
    if isinstance(error, PeerError | UnavailableError):
        return ERROR
    return ERROR


def moment(at: datetime) -> str:
    """A time as every command prints it: ISO 8601, UTC, milliseconds.

    Args:
        at: aware.
    """
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def rows(form: Form, items: Sequence[Fields], *, empty: str = "nothing to show") -> None:
    """Print a list of records."""
    if form is Form.JSON:
        _json(list(items))
    elif form is Form.JSONL:
        for item in items:
            line(item)
    elif not items:
        typer.echo(empty, err=True)
    else:
        _table(items)


def _table(items: Sequence[Fields]) -> None:
    from rich.console import Console  # late: a process that runs for months prints no tables
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in items[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for item in items:
        table.add_row(*(_text(value) for value in item.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def record(form: Form, item: Fields) -> None:
    """Print one record, a field a line."""
    if form is Form.TABLE:
        width = max((len(name) for name in item), default=0)
        for name, value in item.items():
            typer.echo(f"{name.replace('_', ' '):<{width}}  {_text(value)}")
    elif form is Form.JSON:
        _json(dict(item))
    else:
        line(item)


def line(item: Fields) -> None:
    """Print one record as a line of JSON, at once."""
    typer.echo(json.dumps(item, ensure_ascii=False, default=_plain))
    sys.stdout.flush()


def _json(value: object) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=_plain))


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, str | datetime):
        return _plain(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: object) -> str:
    return moment(value) if isinstance(value, datetime) else str(value)
