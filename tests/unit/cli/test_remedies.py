"""Remedies: one for every reason, short enough for a line."""

import errno
from pathlib import Path

from fabric.cli.remedies import _BY_WORDS, REMEDIES, remedy_of
from fabric.model.disk import disk_error
from fabric.model.errors import Reason, ReasonClass, class_of


def test_every_reason_has_a_remedy() -> None:
    assert {*REMEDIES} == {*Reason}


def test_a_remedy_is_one_short_sentence_that_a_line_can_hold() -> None:
    for reason, text in [*REMEDIES.items(), *_BY_WORDS.items()]:
        assert text[0].islower(), reason
        assert not text.endswith("."), reason
        assert len(text) < 170, reason


def test_what_somebody_must_do_is_never_nothing() -> None:
    for reason in Reason:
        if class_of(reason) is ReasonClass.HOLD:
            assert not remedy_of(reason).startswith("nothing"), reason


def test_a_full_or_failing_disk_has_a_remedy_of_its_own() -> None:
    for number, word in ((errno.ENOSPC, "make room"), (errno.EIO, "kernel's log")):
        error = disk_error(OSError(number, "x"), Path("state"))
        assert error is not None
        assert word in remedy_of(error.reason, str(error))
    assert remedy_of(Reason.OVERLOADED, "outbox is full").startswith("wait")
