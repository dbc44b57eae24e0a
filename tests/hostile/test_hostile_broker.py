"""Every edit of the table is noticed, named and audited, and changes no row."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from fabric.agent import lag_meter, reading, telemetry
from fabric.model import canonical
from tests.hostile.edits import DROPPED, EDITS, P0, Edit, parts_of, rebuild
from tests.hostile.story import DATA, Reading, Story
from tests.vectors import judge


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return asyncio.run(Story(tmp_path_factory.mktemp("story")).tell())


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every few seconds is looked at at once."""
    monkeypatch.setattr(lag_meter, "_LAG_S", 0.02)
    monkeypatch.setattr(reading, "_PAUSE_S", 0.02)
    monkeypatch.setattr(telemetry, "PAUSE_AUDIT_S", 0.0)


async def tried(story: Story, folder: Path, edit: Edit, known: int | None) -> Reading:
    """B reads the edited log; with `known`, after it has applied so many of each partition."""
    reader = Reading(story, folder)
    if known is not None:
        for place in DATA:
            reader.log.cut(place, known)
        assert await reader.read(lambda: reader.applied() == (known, known))
        reader.log.records.update({place: [*story.log.records[place]] for place in DATA})
    edit.do(reader, story)
    before = len(reader.audited())
    wanted, applied = (edit.event, edit.reason), edit.applied(story)

    def done() -> bool:
        if reader.applied() != applied:
            return False
        if edit.late_s:
            reader.clock.ahead = timedelta(seconds=edit.late_s)
        return not edit.event or wanted in reader.audited()[before:]

    is_done = await reader.read(done)
    assert is_done, f"{reader.applied()} applied of {applied}, said {set(reader.audited())}"
    return reader


def check(reader: Reading, edit: Edit) -> None:
    """The rows are the honest ones, as far as the target says it is, and no further."""
    assert reader.applied() == edit.applied(reader.story)
    assert reader.rows() == reader.story.rows(reader.highs())
    assert 6_666 not in reader.rows()


@pytest.mark.parametrize("name", [name for name, edit in EDITS.items() if edit.cold])
async def test_a_reader_that_begins_notices(name: str, story: Story, tmp_path: Path) -> None:
    check(await tried(story, tmp_path, EDITS[name], None), EDITS[name])


@pytest.mark.parametrize("name", [n for n, edit in EDITS.items() if edit.known is not None])
async def test_a_reader_in_the_midst_notices(name: str, story: Story, tmp_path: Path) -> None:
    check(await tried(story, tmp_path, EDITS[name], EDITS[name].known), EDITS[name])


async def test_the_honest_story_is_applied_whole_and_nothing_is_said(
    story: Story, tmp_path: Path
) -> None:
    """Without this the table would show nothing: a reader that refuses all passes it."""
    reader = Reading(story, tmp_path)
    assert await reader.read(lambda: reader.applied() == (story.count(0), story.count(1)))
    assert reader.rows() == story.rows(reader.highs())
    assert len(reader.rows()) > 80
    assert reader.audited() == []


@pytest.mark.parametrize("key", range(22))
async def test_no_field_of_a_header_can_be_changed(key: int, story: Story, tmp_path: Path) -> None:
    reader = Reading(story, tmp_path)
    header = judge.header_of(reader.log.records[P0][2].value or b"")
    other = judge.header_of(reader.log.records[P0][story.turn()].value or b"")
    value = header[key] if other[key] == header[key] else other[key]
    if value == header[key]:
        value = value + 1 if isinstance(value, int) else f"{value[:-1]}0"
    parts = parts_of(reader, 2)
    parts[0] = canonical.encode({judge.HEADER: {**header, key: value}})
    rebuild(reader, 2, parts)

    def done() -> bool:
        return DROPPED in {event for event, _ in reader.audited()} or any(
            event == "reader_paused" for event, _ in reader.audited()
        )

    assert await reader.read(done)
    assert reader.applied()[0] <= 2
    assert reader.rows() == story.rows(reader.highs())
