"""Each failure of the ledger's file by its name, told to who remembers it."""

import errno
import sqlite3
from pathlib import Path

import pytest

from fabric.authority.ledger_file import mapped
from fabric.model.errors import DeniedError, Reason, UnavailableError

PATH = Path("/var/lib/fabric/ledger.db")


@pytest.mark.parametrize(
    ("exc", "said"),
    [
        (
            OSError(errno.ENOSPC, "x"),
            "overloaded: no room on the disk of /var/lib/fabric; make room",
        ),
        (
            OSError(errno.EACCES, "Permission denied"),
            "database_unavailable: authority's ledger cannot be used (Permission denied)",
        ),
        (
            sqlite3.OperationalError("words of SQLite"),
            "database_unavailable: authority's ledger cannot be used (OperationalError)",
        ),
    ],
)
def test_a_failure_is_named_and_told(exc: Exception, said: str) -> None:
    told: list[UnavailableError] = []
    with pytest.raises(UnavailableError) as caught, mapped(PATH, told.append):
        raise exc
    assert str(caught.value) == said
    assert told == [caught.value]


def test_what_is_no_failure_of_the_file_passes() -> None:
    told: list[UnavailableError] = []
    with pytest.raises(DeniedError), mapped(PATH, told.append):
        raise DeniedError(Reason.ENROLMENT_CONFLICT, "x")
    assert not told
