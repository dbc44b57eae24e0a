"""Where a fault came about, without what it was about."""

from fabric.model.errors import DeniedError, Reason
from fabric.trace import trace


def _caught(work: object) -> BaseException:
    try:
        work()  # type: ignore[operator]
    except BaseException as exc:
        return exc
    raise AssertionError


def _parsed() -> None:
    int("secret")


def _wrapped() -> None:
    try:
        _parsed()
    except ValueError as exc:
        raise KeyError("secret") from exc


def _group() -> None:
    raise ExceptionGroup("secret", [_caught(_wrapped), DeniedError(Reason.GAP, "a gap")])


def _deep(left: int) -> None:
    if left:
        _deep(left - 1)
    _parsed()


def test_types_and_places_are_told_and_no_text() -> None:
    told = trace(_caught(_wrapped))
    assert "secret" not in told
    first, *rest = told.splitlines()
    assert first == "KeyError"
    assert any(line.startswith("  test_trace.py:") and line.endswith(" _wrapped") for line in rest)
    assert "from ValueError" in rest
    assert rest[-1].endswith(" _parsed")


def test_members_of_a_group_are_told_each_and_our_own_text_with_them() -> None:
    told = trace(_caught(_group))
    assert "secret" not in told
    assert "ExceptionGroup" in told
    assert "member KeyError" in told
    assert "member DeniedError: gap: a gap" in told


def test_what_is_deep_or_wide_or_goes_in_a_circle_is_cut() -> None:
    assert len(trace(_caught(lambda: _deep(500))).splitlines()) < 100
    wide = ExceptionGroup("x", [ValueError()] * 500)
    assert len(trace(wide).splitlines()) < 100
    circle = KeyError()
    circle.__cause__ = ValueError()
    circle.__cause__.__cause__ = circle
    assert len(trace(circle).splitlines()) < 100


def test_a_cause_that_was_hidden_stays_hidden() -> None:
    def hides() -> None:
        try:
            _parsed()
        except ValueError:
            raise KeyError from None

    assert "ValueError" not in trace(_caught(hides))
