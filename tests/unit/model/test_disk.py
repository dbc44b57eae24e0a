"""A full or failing disk has one name, whoever meets it."""

import contextlib
import errno
import sqlite3
from pathlib import Path

import pytest

from fabric.model.disk import IO_ERROR, NO_ROOM, disk_error
from fabric.model.errors import Reason

FOLDER = Path("/var/lib/fabric")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_its_folder(number: int) -> None:
    found = disk_error(OSError(number, "words of the system"), FOLDER)
    assert found is not None
    assert found.reason is Reason.OVERLOADED
    assert str(found.args[0]) == f"{NO_ROOM} of /var/lib/fabric; make room"


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "db")) as db:
        db.execute("PRAGMA max_page_count = 2")
        db.execute("CREATE TABLE t (x BLOB)")
        with pytest.raises(sqlite3.OperationalError) as caught:
            db.execute("INSERT INTO t VALUES (zeroblob(100000))")
    found = disk_error(caught.value, FOLDER)
    assert found is not None
    assert NO_ROOM in found.args[0]


def test_a_failing_disk_is_said_to_fail() -> None:
    found = disk_error(OSError(errno.EIO, "words"), FOLDER)
    assert found is not None
    assert found.args[0] == f"{IO_ERROR} of /var/lib/fabric (EIO); see the kernel's log"
    of_sqlite = sqlite3.OperationalError("disk I/O error")
    of_sqlite.sqlite_errorname = "SQLITE_IOERR_WRITE"
    found = disk_error(of_sqlite, FOLDER)
    assert found is not None
    assert "(SQLITE_IOERR_WRITE)" in found.args[0]


@pytest.mark.parametrize(
    "exc", [OSError(errno.EACCES, "words"), OSError("words"), sqlite3.DatabaseError("words")]
)
def test_other_errors_are_none_of_the_disks(exc: Exception) -> None:
    assert disk_error(exc, FOLDER) is None
