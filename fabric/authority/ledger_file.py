"""What the failures of the ledger's file mean."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from fabric.model.disk import disk_error
from fabric.model.errors import Reason, UnavailableError, sqlite_name


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
        failed(error)
        raise error from None
