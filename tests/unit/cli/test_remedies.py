"""Remedies: one for every reason, short enough for a line."""

from fabric.cli.remedies import REMEDIES, remedy_of
from fabric.model.errors import Reason, ReasonClass, class_of


def test_every_reason_has_a_remedy() -> None:
    assert {*REMEDIES} == {*Reason}


def test_a_remedy_is_one_short_sentence_that_a_line_can_hold() -> None:
    for reason, text in REMEDIES.items():
        assert text[0].islower(), reason
        assert not text.endswith("."), reason
        assert len(text) < 170, reason


def test_what_somebody_must_do_is_never_nothing() -> None:
    for reason in Reason:
        if class_of(reason) is ReasonClass.HOLD:
            assert not remedy_of(reason).startswith("nothing"), reason
