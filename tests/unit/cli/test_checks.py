"""fabric.cli.checks: side by side, in order, each with an end."""

import asyncio
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer

from fabric.cli import output
from fabric.cli.checks import Check, Once, examine, run_doctor
from fabric.cli.remedies import remedy_of
from fabric.database.finding import Finding, ill, well
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError


async def fine() -> str:
    return "well"


async def bad() -> str:
    raise DeniedError(Reason.STATE_REFUSED, "PCR digest is not one of the approved")


async def both() -> Sequence[Finding]:
    return [well("server", "is there"), ill("slot", Reason.SOURCE_UNFIT, "gone", "make it")]


async def broken() -> str:
    raise ValueError("postgresql://registry:hunter2@db")


def test_findings_keep_the_order_of_the_checks_and_carry_cause_and_remedy() -> None:
    found = asyncio.run(examine([("one", fine), ("two", bad), ("three", both)]))
    assert [item["check"] for item in found] == ["one", "two", "three server", "three slot"]
    assert [item["ok"] for item in found] == [True, False, True, False]
    assert str(found[1]["seen"]).startswith("state_refused: PCR digest")
    assert found[1]["remedy"] == remedy_of(Reason.STATE_REFUSED)
    assert found[3]["remedy"] == "make it"


def test_a_check_that_is_broken_hides_no_other_and_tells_no_secret() -> None:
    found = asyncio.run(examine([("one", broken), ("two", fine)]))
    assert [item["ok"] for item in found] == [False, True]
    assert "ValueError" in str(found[0]["seen"])
    assert "hunter2" not in str(found)


def test_a_check_that_hangs_ends_at_its_deadline_and_does_not_hold_doctor_back() -> None:
    release = threading.Event()

    async def hangs() -> str:
        await asyncio.to_thread(release.wait, 60)
        return "late"

    began = time.monotonic()
    found = asyncio.run(examine([("one", hangs), ("two", fine)], deadline_s=0.1))
    assert time.monotonic() - began < 5
    assert [item["ok"] for item in found] == [False, True]
    assert "no answer" in str(found[0]["seen"])
    release.set()


def test_a_deadline_inside_a_check_is_not_told_as_the_checks_own() -> None:
    async def gives_up() -> str:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        return "late"

    [found] = asyncio.run(examine([("one", gives_up)]))
    assert found["seen"] == "not_ready: no answer in time"


async def test_what_several_checks_need_is_asked_once_and_its_error_told_to_all() -> None:
    asked = []

    def ask() -> str:
        asked.append(1)
        raise UnavailableError(Reason.NOT_READY, "no policy")

    once = Once(ask)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="no policy"):
            await once.get()
    assert len(asked) == 1
    assert await Once(lambda: 7).get() == 7


def exit_of(checks: Sequence[Check], form: output.Form = output.Form.TABLE) -> int:
    with pytest.raises(typer.Exit) as caught:
        run_doctor(form, Path("a.toml"), str, lambda _: checks)
    return caught.value.exit_code


@pytest.mark.parametrize(("checks", "code"), [([], 0), ([("a", fine)], 0), ([("a", bad)], 10)])
def test_one_failed_check_is_enough(checks: Sequence[Check], code: int) -> None:
    assert exit_of([("first", fine), *checks]) == code


def test_people_read_a_line_a_check_and_the_remedy_below(capsys) -> None:
    exit_of([("one", fine), ("second", bad)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "config", "a.toml"]
    assert lines[1].split() == ["ok", "one", "well"]
    assert lines[2].startswith("FAIL  second  state_refused: ")
    assert lines[3].strip() == f"-> {remedy_of(Reason.STATE_REFUSED)}"
    assert len(lines) == 4


def test_a_file_that_does_not_load_is_the_one_finding_and_exit_2(capsys) -> None:
    def load(path: Path) -> None:
        raise ConfigInvalid(f"{path}: policy.colour is unknown; remove it")

    with pytest.raises(typer.Exit) as caught:
        run_doctor(output.Form.TABLE, Path("a.toml"), load, lambda _: [("one", fine)])
    assert caught.value.exit_code == 2
    out = capsys.readouterr().out
    assert out.startswith("FAIL  config  config_invalid: a.toml: policy.colour")
    assert "one" not in out.split()
