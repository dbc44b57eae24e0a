"""The ledger's file: where it is, and what its failures mean."""

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from fabric.model.disk import disk_error
from fabric.model.errors import Reason, UnavailableError, sqlite_name

_log = logging.getLogger(__name__)
LEDGER = "ledger.db"
AUDIT_FILE = "audit.jsonl"
"""Beside the ledger, and made after it: where it is, the authority has run."""
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")


def check_file(path: Path) -> None:
    """See that a ledger which the authority had is still there, before one is made at `path`.

    One that is gone is made anew, which whoever has no backup needs, and that is logged: later
    notices come from the log, enrolments and counters do not. An empty one nobody wished for.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, it is empty, and was not.
        OSError: nobody may look.
    """
    if not path.with_name(AUDIT_FILE).exists():
        return
    if not path.exists():
        _log.error("%s is gone and is made anew: its hosts must enrol again", path)
    elif not path.stat().st_size:
        raise damaged("it is empty")


def damaged(why: str) -> UnavailableError:
    """The ledger's file is not one any more."""
    return UnavailableError(
        Reason.DATABASE_UNAVAILABLE,
        f"authority's ledger is damaged ({why}); stop the authority, put the newest backup in its"
        " place",
    )


@contextlib.contextmanager
def mapped(
    path: Path, failed: Callable[[UnavailableError], None] = lambda _error: None
) -> Iterator[None]:
    """Say what SQLite's and the system's failures mean for a ledger at `path`.

    Args:
        failed: told the error that is raised.

    Raises:
        UnavailableError: OVERLOADED, the disk is full or fails; else DATABASE_UNAVAILABLE.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as exc:
        why = (exc.strerror if isinstance(exc, OSError) else None) or sqlite_name(exc)
        error = disk_error(exc, path.parent) or UnavailableError(
            Reason.DATABASE_UNAVAILABLE, f"authority's ledger cannot be used ({why})"
        )
        if why.startswith(_DAMAGED):
            error = damaged(why)
        failed(error)
        raise error from None
