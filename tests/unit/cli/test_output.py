"""What commands print: one form of a time, wherever it stands."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from fabric.cli import output

NOON = datetime(2026, 11, 27, 12, 0, 0, 250_999, tzinfo=UTC)
SAID = "2026-11-27T12:00:00.250+00:00"


@pytest.mark.parametrize(
    ("at", "said"),
    [
        (NOON, SAID),
        (NOON.astimezone(timezone(timedelta(hours=7))), SAID),
        (NOON.replace(microsecond=0), "2026-11-27T12:00:00.000+00:00"),
    ],
)
@pytest.mark.parametrize("form", output.Form)
def test_a_time_has_one_form_in_every_output(
    capsys: pytest.CaptureFixture[str], form: output.Form, at: datetime, said: str
) -> None:
    output.record(form, {"at": at})
    output.rows(form, [{"at": at}])
    if form is output.Form.TABLE:
        shown = capsys.readouterr().out.split()
        assert shown == ["at", said, "at", said]
    else:
        assert capsys.readouterr().out.count(f'"{said}"') == 2


def test_a_time_within_a_value_has_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    output.record(output.Form.TABLE, {"all": [NOON]})
    output.line({"all": {"at": NOON}})
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first.removeprefix("all")) == [SAID]
    assert json.loads(second) == {"all": {"at": SAID}}
