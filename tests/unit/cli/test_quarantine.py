"""`fabric quarantine` on a real SQLite target that refused two changes of one key."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from fabric.cli.access import sinks_of
from fabric.model.change import Op
from fabric.model.names import Origin, Stream
from tests.contract.sink_suite import Feed
from tests.fakes.agent_page import APPLYING, SECRET, write_config

ORIGIN = Origin("G01", "registry", "registry")


def resident(ident: int, name: str) -> dict[str, object]:
    return {"id": ident, "name": name, "phone": None}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = write_config(tmp_path)
    asyncio.run(_fill(path))
    return path


async def _fill(path: Path) -> None:
    async with sinks_of(path):
        pass  # makes the tables
    _execute(
        path,
        "CREATE TRIGGER no BEFORE INSERT ON residents WHEN NEW.name = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    async with sinks_of(path) as [(_, sink)]:
        feed = Feed(sink, Stream(ORIGIN, SECRET, 0))
        rows = [resident(1, "good"), resident(2, "bad"), resident(2, "later")]
        await feed.apply(*((Op.UPSERT, [row]) for row in rows))


def _execute(path: Path, statement: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path.parent / "b.db") as connection:
        return connection.execute(statement).fetchall()


def test_the_list_shows_what_waits_and_no_row(fabric, config) -> None:
    done = fabric("quarantine", "list", "-c", config, "-o", "json")
    assert done.code == 0
    assert [item["topic"] for item in done.json] == [str(SECRET)] * 2
    assert {*done.json[0]} == {"id", "topic", "partition", "offset", "reason"}


def test_the_list_of_another_dataset_is_empty(fabric, config) -> None:
    done = fabric("quarantine", "list", "-c", config, "--topic", "public.G01.wards")
    assert (done.code, done.out, done.err) == (0, "", "quarantine is empty\n")


def test_show_prints_the_row(fabric, config) -> None:
    done = fabric("quarantine", "show", "1", "-c", config, "-o", "json")
    assert done.json["row"] == resident(2, "bad")
    assert done.json["operation"] == "UPSERT"


def test_show_of_what_is_not_there_says_where_to_look(fabric, config) -> None:
    done = fabric("quarantine", "show", "99", "-c", config)
    assert done.code == 2
    assert "fabric quarantine list" in done.err


def test_retry_applies_a_key_in_order_once_its_cause_is_gone(fabric, config) -> None:
    _execute(config, "DROP TRIGGER no")
    done = fabric("quarantine", "retry", "1", "-c", config)
    assert (done.code, done.err) == (0, "2 changes applied\n")
    assert _execute(config, "SELECT name FROM residents WHERE id = 2") == [("later",)]
    assert fabric("quarantine", "list", "-c", config).err == "quarantine is empty\n"


def test_a_retry_that_cannot_apply_its_change_exits_1_and_says_why(fabric, config) -> None:
    done = fabric("quarantine", "retry", "1", "-c", config)
    assert (done.code, done.out) == (1, "")
    applied, why = done.err.splitlines()
    assert applied == "0 changes applied"
    assert why.startswith(f"fabric: apply_failed: change 1 of {SECRET} still cannot be applied: ")
    assert "drop the change" in why


def test_a_retry_that_a_later_change_ends_exits_1_and_names_that_one(fabric, config) -> None:
    _execute(config, "DROP TRIGGER no")
    _execute(
        config,
        "CREATE TRIGGER never BEFORE INSERT ON residents WHEN NEW.name = 'later'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    _execute(
        config,
        "CREATE TRIGGER neither BEFORE UPDATE ON residents WHEN NEW.name = 'later'"
        " BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    done = fabric("quarantine", "retry", "1", "-c", config)
    assert done.code == 1
    assert "1 changes applied" in done.err
    assert "change 2 of" in done.err


@pytest.mark.parametrize("topic", ["secret.G09.nothing", "nothing"])
@pytest.mark.parametrize("command", [("list",), ("show", "1"), ("retry", "1")])
def test_a_topic_that_is_not_applied_here_is_refused_with_those_that_are(
    fabric, config, command, topic
) -> None:
    done = fabric("quarantine", *command, "-c", config, "--topic", topic)
    assert (done.code, done.out) == (2, "")
    assert f"--topic: {topic} is not applied here" in done.err
    assert str(SECRET) in done.err


def test_a_host_that_applies_nothing_has_no_quarantine(fabric, tmp_path) -> None:
    done = fabric("quarantine", "list", "-c", write_config(tmp_path, ""))
    assert done.code == 2
    assert "applies nothing" in done.err


def test_drop_asks_first(fabric, config, monkeypatch) -> None:
    monkeypatch.setattr("typer.confirm", _refuse)
    assert fabric("quarantine", "drop", "1", "-c", config).code == 1
    assert len(fabric("quarantine", "list", "-c", config, "-o", "json").json) == 2


def _refuse(text: str, *, abort: bool) -> None:
    import typer

    assert "incomplete" in text
    raise typer.Abort


def test_drop_forgets_one_change(fabric, config, monkeypatch) -> None:
    monkeypatch.setattr("typer.confirm", lambda text, *, abort: None)
    done = fabric("quarantine", "drop", "1", "-c", config)
    assert done.code == 0
    assert "incomplete" in done.err
    left = fabric("quarantine", "list", "-c", config, "-o", "json").json
    assert [item["id"] for item in left] == [2]


def test_one_of_several_targets_must_be_chosen(fabric, tmp_path) -> None:
    second = APPLYING.replace("b.db", "c.db").replace('"secret.G01', '#"secret.G01')
    config = write_config(tmp_path, APPLYING + second)
    done = fabric("quarantine", "show", "1", "-c", config)
    assert done.code == 2
    assert "--topic" in done.err
