import sqlite3
from pathlib import Path

import pytest

from fabric.database.digest import TableDigest, table_digest
from fabric.model.errors import UnavailableError, UsageError
from tests.contract.test_sqlite import SqliteSourceWorld
from tests.contract.worlds import NOTES_SCHEMA, PEOPLE_SCHEMA, person


async def test_the_digest_of_a_file_is_that_of_its_rows(tmp_path: Path) -> None:
    world = SqliteSourceWorld(tmp_path / "a.db")
    rows = [person(n) for n in range(50)]
    await world.insert(world.people, rows)
    expected = TableDigest(PEOPLE_SCHEMA)
    for row in rows:
        expected.add(row)
    for url in (str(world.file.path), f"sqlite:///{world.file.path}"):
        found = await table_digest("sqlite", url, "main.people", PEOPLE_SCHEMA)
        assert found == (50, expected.value)


async def test_text_and_integer_dates_are_equal(tmp_path: Path) -> None:
    found = []
    for kind, born, seen, balance in (
        ("TEXT", "1970-01-11", "1970-01-01 00:00:01", 12.5),
        ("INTEGER", 10, 1_000_000, "12.50"),
    ):
        path = tmp_path / f"{kind}.db"
        connection = sqlite3.connect(path)
        connection.execute(
            f"CREATE TABLE people (id, name, born {kind}, seen {kind}, active, score, photo,"
            " balance)"
        )
        values = (1, "x", born, seen, 1, 2, None, balance)
        connection.execute("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.commit()
        connection.close()
        found.append(await table_digest("sqlite", str(path), "people", PEOPLE_SCHEMA))
    assert found[0] == found[1]


async def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    world = SqliteSourceWorld(tmp_path / "a.db")
    url = str(world.file.path)
    with pytest.raises(UnavailableError):
        await table_digest("sqlite", url, "none", PEOPLE_SCHEMA)
    world.file.run("INSERT INTO notes VALUES ('a', 'many', NULL)")
    with pytest.raises(UsageError, match="column number"):
        await table_digest("sqlite", url, "notes", NOTES_SCHEMA)


async def test_text_that_is_no_utf_8_is_named_and_not_shown(tmp_path: Path) -> None:
    world = SqliteSourceWorld(tmp_path / "a.db")
    world.file.run("INSERT INTO notes VALUES ('a', 1, CAST(x'736563726574ff' AS TEXT))")
    with pytest.raises(UsageError, match="table notes: a value in column body") as caught:
        await table_digest("sqlite", str(world.file.path), "notes", NOTES_SCHEMA)
    assert "secret" not in str(caught.value)
