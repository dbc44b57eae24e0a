"""Reasons and families: every reason has one class, every error one reason."""

import sqlite3

import pytest

from fabric.model import errors
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    FabricError,
    Malformed,
    PeerError,
    Reason,
    ReasonClass,
    UnavailableError,
    UsageError,
    class_of,
    sqlite_name,
)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_class_and_a_label_that_metrics_can_carry(reason: Reason) -> None:
    assert class_of(reason) in ReasonClass
    assert reason.value == reason.name.lower()


def test_no_reason_is_in_two_classes() -> None:
    groups = (errors._WAIT, errors._HOLD, errors._RESEAL)
    assert sum(len(group) for group in groups) == len(frozenset().union(*groups))


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (Reason.RESULT_UNKNOWN, ReasonClass.WAIT),
        (Reason.POLICY_NEWER, ReasonClass.WAIT),
        (Reason.SCHEMA_UNKNOWN, ReasonClass.HOLD),
        (Reason.HOST_SUSPENDED, ReasonClass.HOLD),
        (Reason.RESULT_EXPIRED, ReasonClass.RESEAL),
        (Reason.TOO_OLD, ReasonClass.RESEAL),
        (Reason.REPLAYED, ReasonClass.NEVER),
        (Reason.BAD_SIGNATURE, ReasonClass.NEVER),
        (Reason.INTERNAL, ReasonClass.NEVER),
    ],
)
def test_class_says_what_a_sender_does(reason: Reason, expected: ReasonClass) -> None:
    assert class_of(reason) is expected


def test_what_is_in_no_table_is_never() -> None:
    listed = errors._WAIT | errors._HOLD | errors._RESEAL
    assert {r for r in Reason if class_of(r) is ReasonClass.NEVER} == set(Reason) - listed


def test_four_families_do_not_overlap() -> None:
    families = (UsageError, PeerError, DeniedError, UnavailableError)
    for family in families:
        assert family.__mro__[1] is FabricError
    assert issubclass(ConfigInvalid, UsageError)
    assert issubclass(Malformed, PeerError)


def test_error_shows_reason_and_message() -> None:
    error = DeniedError(Reason.REPLAYED, "counter is lower")
    assert str(error) == "replayed: counter is lower"
    assert (error.reason, error.args) == (Reason.REPLAYED, ("counter is lower",))
    assert Malformed("x").reason is Reason.MALFORMED
    assert ConfigInvalid("x").reason is Reason.CONFIG_INVALID


def test_an_error_of_sqlite_is_named_and_not_quoted() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT secret FROM none")
    assert sqlite_name(caught.value) == "SQLITE_ERROR"
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT CAST(x'736563726574ff' AS TEXT)").fetchone()
    assert sqlite_name(caught.value) == "OperationalError"
    connection.close()
