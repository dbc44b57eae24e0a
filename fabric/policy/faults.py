"""What python-tuf raises, as our errors: each attack on a policy's way has its Reason.

`replayed` an older file in place of the current one (rollback, mix-and-match);
`policy_expired` a role whose time is over (freeze); `bad_signature` too few of the
right signatures, or bytes that were not signed; `too_large` endless data;
`malformed` no metadata at all; `policy_invalid` anything else a repository can be.
"""

import contextlib
from collections.abc import Iterator

from tuf.api import exceptions
from tuf.api.serialization import DeserializationError

from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError

_REPOSITORY: tuple[tuple[type[Exception], Reason, str], ...] = (
    (exceptions.UnsignedMetadataError, Reason.BAD_SIGNATURE, "lacks signatures it needs"),
    (exceptions.BadVersionNumberError, Reason.REPLAYED, "has an older file in it"),
    (exceptions.LengthOrHashMismatchError, Reason.BAD_SIGNATURE, "has a file nobody signed"),
    (DeserializationError, Reason.MALFORMED, "has a file that is no metadata"),
)


_SHAPES = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
"""What Python raises of bytes that have another shape than the code believes."""


def translate(exc: Exception) -> FabricError:
    """Our error for one of python-tuf's."""
    if isinstance(exc, exceptions.ExpiredMetadataError):
        return DeniedError(Reason.POLICY_EXPIRED, f"policy repository has expired: {exc}")
    if isinstance(exc, exceptions.DownloadLengthMismatchError):
        return PeerError(Reason.TOO_LARGE, f"policy repository sends too much: {exc}")
    if isinstance(exc, exceptions.DownloadError):
        return UnavailableError(
            Reason.AUTHORITY_UNAVAILABLE, f"policy repository does not answer: {exc}"
        )
    for kind, reason, what in _REPOSITORY:
        if isinstance(exc, kind):
            return PeerError(reason, f"policy repository {what}: {exc}")
    return PeerError(Reason.POLICY_INVALID, f"policy repository is not right: {exc}")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Whatever python-tuf makes of foreign bytes leaves the block as one of our errors."""
    try:
        yield
    except (exceptions.RepositoryError, exceptions.DownloadError) as exc:
        raise translate(exc) from exc
    except _SHAPES as exc:
        raise PeerError(
            Reason.MALFORMED,
            f"policy repository has a file of a wrong shape ({type(exc).__name__})",
        ) from exc
