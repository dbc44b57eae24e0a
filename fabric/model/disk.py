"""What a full or failing disk is called, wherever it is met.

Nothing here touches a file: an adapter gives the error that it has caught. The phrases are
looked for by remedies (fabric.cli.remedies), also in what a running process says of itself.
"""

import errno

from fabric.model.errors import Reason, UnavailableError, sqlite_name

NO_ROOM = "no room on the disk"
IO_ERROR = "input/output error on the disk"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def disk_error(exc: Exception, folder: object) -> UnavailableError | None:
    """OVERLOADED for an error of a full or failing disk; None for one that means anything else.

    SQLite gives no errno: it tells a full disk apart, and nothing else, so that a used up
    quota is an input/output error there.

    Args:
        exc: an OSError or sqlite3.Error.
        folder: its path, where it was met; named in the message.
    """
    name = sqlite_name(exc)
    number = exc.errno if isinstance(exc, OSError) else None
    if number in _FULL or name == "SQLITE_FULL":
        return UnavailableError(Reason.OVERLOADED, f"{NO_ROOM} of {folder}; make room")
    if number == errno.EIO or name.startswith("SQLITE_IOERR"):
        what = errno.errorcode[number] if number is not None else name
        return UnavailableError(
            Reason.OVERLOADED, f"{IO_ERROR} of {folder} ({what}); see the kernel's log"
        )
    return None
