"""The contract suites on the fakes, so that other tests may trust them."""

from collections.abc import Sequence

import pytest

from fabric.model.change import Row
from fabric.ports import SourceTable, Target
from tests.contract.sink_suite import SinkSuite
from tests.contract.source_suite import SourceSuite
from tests.contract.worlds import NOTES, NOTES_SCHEMA, PEOPLE, PEOPLE_SCHEMA, POISON
from tests.fakes.source import MemoryDatabase, MemorySource
from tests.fakes.table import MemorySink, MemoryStore


class MemorySourceWorld:
    truncates = True

    def __init__(self) -> None:
        self.people = SourceTable(table="people", topic=PEOPLE, schema=PEOPLE_SCHEMA)
        self.notes = SourceTable(table="notes", topic=NOTES, schema=NOTES_SCHEMA)
        self._database = MemoryDatabase([self.people, self.notes])

    def source(self) -> MemorySource:
        return MemorySource(self._database)

    async def insert(self, table: SourceTable, rows: Sequence[Row]) -> None:
        self._database.upsert(table, rows)

    async def update(self, table: SourceTable, key: Row, row: Row) -> None:
        if any(key[name] != row[name] for name in key):
            self._database.delete(table, [key])
        self._database.upsert(table, [row])

    async def delete(self, table: SourceTable, keys: Sequence[Row]) -> None:
        self._database.delete(table, keys)

    async def truncate(self, table: SourceTable) -> None:
        self._database.truncate(table)

    async def rows(self, table: SourceTable) -> list[Row]:
        return [dict(row) for row in self._database.held(table).values()]

    async def forget(self) -> None:
        self._database.forget()


class TestMemorySource(SourceSuite):
    @pytest.fixture
    def world(self) -> MemorySourceWorld:
        return MemorySourceWorld()


class MemorySinkWorld:
    def __init__(self) -> None:
        self._store = MemoryStore()

    def sink(self) -> MemorySink:
        return MemorySink(self._store)

    async def rows(self, target: Target) -> list[Row]:
        return [dict(row) for row in self._store.rows(target.topic).values()]

    async def insert(self, target: Target, rows: Sequence[Row]) -> None:
        for row in rows:
            key = tuple(row[name] for name in target.schema.key)
            self._store.rows(target.topic)[key] = dict(row)

    async def spoil(self, target: Target) -> None:
        self._store.refuses = lambda row: row.get("name") == POISON

    async def heal(self, target: Target) -> None:
        self._store.refuses = lambda row: False


class TestMemorySink(SinkSuite):
    @pytest.fixture
    def world(self) -> MemorySinkWorld:
        return MemorySinkWorld()
