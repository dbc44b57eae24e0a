"""Every error of python-tuf becomes one of ours, with the reason that its attack has."""

import pytest
from tuf.api import exceptions
from tuf.api.serialization import DeserializationError

from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.policy.faults import translated

_CASES = [
    (exceptions.UnsignedMetadataError("x"), PeerError, Reason.BAD_SIGNATURE),
    (exceptions.BadVersionNumberError("x"), PeerError, Reason.REPLAYED),
    (exceptions.EqualVersionNumberError("x"), PeerError, Reason.REPLAYED),
    (exceptions.ExpiredMetadataError("x"), DeniedError, Reason.POLICY_EXPIRED),
    (exceptions.LengthOrHashMismatchError("x"), PeerError, Reason.BAD_SIGNATURE),
    (DeserializationError("x"), PeerError, Reason.MALFORMED),
    (exceptions.RepositoryError("x"), PeerError, Reason.POLICY_INVALID),
    (exceptions.DownloadLengthMismatchError("x"), PeerError, Reason.TOO_LARGE),
    (exceptions.SlowRetrievalError("x"), UnavailableError, Reason.AUTHORITY_UNAVAILABLE),
    (exceptions.DownloadHTTPError("x", 404), UnavailableError, Reason.AUTHORITY_UNAVAILABLE),
    (ValueError("x"), PeerError, Reason.MALFORMED),
    (KeyError("x"), PeerError, Reason.MALFORMED),
    (IndexError("x"), PeerError, Reason.MALFORMED),
    (OverflowError("x"), PeerError, Reason.MALFORMED),
    (RecursionError(), PeerError, Reason.MALFORMED),
    (RuntimeError(), PeerError, Reason.MALFORMED),
]


@pytest.mark.parametrize(("raised", "family", "reason"), _CASES, ids=lambda x: str(x)[:20])
def test_each_error_has_its_family_and_reason(
    raised: Exception, family: type[FabricError], reason: Reason
) -> None:
    with pytest.raises(FabricError) as caught, translated():
        raise raised
    assert type(caught.value) is family
    assert caught.value.reason is reason


def test_every_error_that_tuf_has_is_in_the_table() -> None:
    known = {
        kind
        for kind in vars(exceptions).values()
        if isinstance(kind, type)
        and issubclass(kind, exceptions.RepositoryError | exceptions.DownloadError)
    }
    assert known - {exceptions.DownloadError} == {
        type(raised) for raised, _, _ in _CASES if type(raised).__module__ == exceptions.__name__
    }


def test_our_own_errors_pass_as_they_are() -> None:
    own = PeerError(Reason.TOO_LARGE, "x")
    with pytest.raises(PeerError) as caught, translated():
        raise own
    assert caught.value is own
