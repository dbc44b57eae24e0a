"""Replication messages become runs of changes. Pure: messages in, items out.

Rows of one dataset that follow each other in a transaction with the same operation
form one run, cut at `RUN_ROWS_MAX` rows or `RUN_BYTES_MAX` bytes; pieces of a large
transaction leave before its commit. Other datasets' rows in between do not cut a run,
because no order is promised across datasets.
"""

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from fabric.database import postgresql_shape as shapes
from fabric.database import postgresql_wire as wire
from fabric.database.postgresql_shape import NOTHING_KNOWN, Known
from fabric.database.postgresql_token import GONE_KEYS_MAX
from fabric.database.postgresql_types import (
    Field,
    TypeInfo,
    Unfit,
    fields_of,
    reader_of,
    server_column,
)
from fabric.database.postgresql_window import Key, Window
from fabric.model.change import Op, Row, Run, Value
from fabric.model.errors import Malformed
from fabric.ports import Captured, SourceTable

RUN_ROWS_MAX = 1000
RUN_BYTES_MAX = 128 * 1024
"""Bytes of a run as the server sent them."""
_NO_COLUMN = "the table has no such column"
PREFIX = "fabric"
"""Prefix of our logical messages and of the replication origins of our sinks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A watermark of ours went by.

    Attributes:
        content: what `pg_logical_emit_message` was given, parsed.
        position: commit position of its transaction.
    """

    content: Mapping[str, Any]
    position: int
    commit_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A row got a new key and the log lacks columns of it; answer with `put` or `skip`."""

    table: SourceTable
    row: Row
    absent: tuple[str, ...]
    position: int

    def __repr__(self) -> str:  # the row is secret
        return f"Moved({self.table.table})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A transaction ended; `has_rows` says whether it changed a dataset."""

    position: int
    commit_us: int
    has_rows: bool


Item: TypeAlias = Captured | Mark | Moved | Committed

_Column: TypeAlias = tuple[int, str, Callable[[bytes], Value], Callable[[str], Value], bool]


class _Dataset:
    """One captured table: how its rows are read now, and the run that is open."""

    def __init__(self, table: SourceTable) -> None:
        self.table = table
        self.fields = fields_of(table.schema)
        self.columns: list[_Column] = []
        self.key: list[_Column] = []
        self.added: dict[str, None] = {}
        self.ordinal = 1
        self.op = Op.UPSERT
        self.absent: tuple[str, ...] = ()
        self.rows: list[Row] = []
        self.first = 1
        self.size = 0


class Changes:
    """Collects one stream of messages; `out` holds what is ready, in order.

    `foreign` holds, by topic, keys of rows that sinks of ours wrote; of very many some.

    Args:
        tables: captured tables by object id: what was renamed goes on, and another table
            under its name is another.
        types: every type of the server, by object id.
        known: what was seen when the source opened.
    """

    def __init__(
        self,
        tables: Mapping[int, SourceTable],
        types: Mapping[int, TypeInfo],
        known: Known = NOTHING_KNOWN,
    ) -> None:
        self.out: list[Item] = []
        self.window: Window | None = None
        self.runs = 0
        self.foreign: dict[str, set[Key]] = {}
        self._types = types
        self._known = known
        self._datasets = {oid: _Dataset(table) for oid, table in tables.items()}
        self._by_topic = {str(d.table.topic): d for d in self._datasets.values()}
        self._relations: dict[int, _Dataset | None] = {}
        self._begin: wire.Begin | None = None
        self._is_foreign = False
        self._hidden = False
        self._has_rows = False

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction has begun and not ended."""
        return self._begin is not None

    def feed(self, message: wire.Message, size: int) -> None:
        """Take one message of `size` bytes.

        Raises:
            DeniedError: SCHEMA_MISMATCH, a row or a table does not fit its dataset.
            UnavailableError: the table's types must be looked up again.
            Malformed: messages come in an impossible order.
        """
        match message:
            case wire.Insert(oid=oid, new=new):
                if (dataset := self._dataset(oid)) is not None:
                    row, absent = self._row(dataset, new)
                    self._changed(dataset, row, bool(absent))
                    self._add(dataset, Op.UPSERT, row, size=size, absent=absent)
            case wire.Update():
                if (dataset := self._dataset(message.oid)) is not None:
                    self._update(dataset, message, size)
            case wire.Delete(oid=oid, old=old):
                if (dataset := self._dataset(oid)) is not None:
                    row = self._key_row(dataset, old)
                    self._changed(dataset, row, False)
                    self._add(dataset, Op.DELETE, row, size=size)
            case _:
                self._rare(message)

    def _rare(self, message: wire.Message) -> None:
        match message:
            case wire.Begin():
                if self._begin is not None:
                    raise Malformed("a transaction begins inside another")
                self._begin = message
                self._is_foreign = self._has_rows = False
                self._hidden = self.window is not None and not self.window.saw(message.xid)
            case wire.Commit():
                self._commit()
            case wire.OriginName(name=name):
                self._is_foreign = name.startswith(PREFIX)
            case wire.Relation():
                self._relate(message)
            case wire.Truncate(oids=oids):
                for dataset in map(self._dataset, oids):
                    if dataset is not None:
                        self._truncate(dataset)
            case wire.LogicalMessage(transactional=True, prefix=prefix, content=content):
                if prefix == PREFIX:
                    self._mark(content)
            case _:
                return

    def _dataset(self, oid: int) -> _Dataset | None:
        if self._begin is None:
            raise Malformed("a row stands outside a transaction")
        try:
            return self._relations[oid]
        except KeyError as exc:
            raise Malformed("a row comes before its table's shape") from exc

    def _commit(self) -> None:
        if self._begin is None:
            raise Malformed("a transaction ends that never began")
        for dataset in self._by_topic.values():
            self._flush(dataset)
            dataset.ordinal = 1
        self.out.append(
            Committed(
                position=self._begin.lsn,
                commit_us=self._begin.commit_us,
                has_rows=self._has_rows,
            )
        )
        self._begin = None
        self._hidden = False

    def _mark(self, content: bytes) -> None:
        assert self._begin is not None
        try:
            parsed = json.loads(content)
        except ValueError:
            return  # an application's message under our prefix
        if isinstance(parsed, dict):
            self.out.append(
                Mark(
                    content=parsed,
                    position=self._begin.lsn,
                    commit_us=self._begin.commit_us,
                )
            )

    def _relate(self, relation: wire.Relation) -> None:
        dataset = self._datasets.get(relation.oid)
        self._relations[relation.oid] = dataset
        if dataset is None:
            return
        self._flush(dataset)
        places = {column.name: place for place, column in enumerate(relation.columns)}
        columns = []
        dataset.added = {}
        for field in dataset.fields:
            if (place := places.get(field.name)) is not None:
                columns.append(self._column(dataset, field, relation, place))
            elif (
                field.nullable
                and self._is_old
                and shapes.is_added(self._known, relation, field.name)
            ):
                dataset.added[field.name] = None
            else:
                why = "the table had no such column" if self._is_old else _NO_COLUMN
                raise shapes.mismatch(dataset.table, field.name, why, is_old=self._is_old)
        dataset.columns = columns
        dataset.key = [column for column in columns if column[1] in dataset.table.schema.key]
        shapes.check_identity(dataset.table, relation)

    @property
    def _is_old(self) -> bool:
        """Whether the transaction was over when the source looked at its tables and types.

        Nobody changes a table under a transaction that has written to it.
        """
        return self._begin is not None and self._begin.lsn < self._known.before

    def _column(
        self, dataset: _Dataset, field: Field, relation: wire.Relation, place: int
    ) -> _Column:
        told = relation.columns[place]
        if told.type_oid not in self._types:
            if self._is_old:
                raise shapes.type_gone(dataset.table, field.name)
            raise shapes.type_new(f"table {dataset.table.table}")
        column = server_column(told.name, told.type_oid, told.typmod, self._types)
        try:
            reader = reader_of(field, column)
        except Unfit as exc:
            raise shapes.mismatch(dataset.table, field.name, str(exc), is_old=self._is_old) from exc
        text_only = partial(shapes.text_only, dataset.table, field.name, self._is_old)
        binary = reader.binary or text_only
        return place, field.name, binary, reader.text, field.nullable

    def _row(
        self, dataset: _Dataset, raws: Sequence[wire.Raw], old: Sequence[wire.Raw] | None = None
    ) -> tuple[Row, tuple[str, ...]]:
        """A whole row, and the columns that the log does not hold."""
        row: Row = {**dataset.added}
        absent: tuple[str, ...] = ()
        name = ""
        try:
            for place, name, binary, text, nullable in dataset.columns:
                raw = raws[place]
                if raw is wire.UNCHANGED and old is not None:
                    raw = old[place]
                if type(raw) is bytes:
                    row[name] = binary(raw)
                elif type(raw) is str:
                    row[name] = text(raw)
                elif raw is wire.UNCHANGED:
                    row[name] = None
                    absent = (*absent, name)
                elif nullable:
                    row[name] = None
                else:
                    raise Unfit("it is null and the schema does not allow that")
        except (ValueError, OverflowError, struct.error, IndexError) as exc:
            raise shapes.mismatch(dataset.table, name, shapes.why(exc)) from None
        return row, absent

    def _key_row(self, dataset: _Dataset, raws: Sequence[wire.Raw]) -> Row:
        name = ""
        row: Row = {}
        try:
            for place, name, binary, text, _ in dataset.key:
                raw = raws[place]
                if type(raw) is bytes:
                    row[name] = binary(raw)
                elif type(raw) is str:
                    row[name] = text(raw)
                else:
                    raise Unfit("the log does not hold the old key")
        except (ValueError, OverflowError, struct.error, IndexError) as exc:
            raise shapes.mismatch(dataset.table, name, shapes.why(exc)) from None
        return row

    def _update(self, dataset: _Dataset, message: wire.Update, size: int) -> None:
        full = message.old if message.old_is_full else None
        row, absent = self._row(dataset, message.new, full)
        self._changed(dataset, row, bool(absent))
        if message.old is not None:
            old = self._key_row(dataset, message.old)
            if any(old[name] != row[name] for name in old):
                self._changed(dataset, old, False)
                self._add(dataset, Op.DELETE, old, size=size)
                if absent and not self._is_foreign:
                    # A reader has no row under the new key to take the columns from.
                    self._flush(dataset)
                    assert self._begin is not None
                    at = self._begin.lsn
                    moved = Moved(table=dataset.table, row=row, absent=absent, position=at)
                    self.out.append(moved)
                    return
        self._add(dataset, Op.UPSERT, row, size=size, absent=absent)

    def put(self, table: SourceTable, row: Row) -> None:
        """Answer Moved with the row as it is now."""
        self._add(self._by_topic[str(table.topic)], Op.UPSERT, row, size=0)

    def skip(self, table: SourceTable) -> None:
        """Answer Moved: the row is gone, a later change will say so; its ordinal stays its own."""
        dataset = self._by_topic[str(table.topic)]
        self._flush(dataset)
        dataset.ordinal += 1

    def _changed(self, dataset: _Dataset, row: Row, is_partial: bool) -> None:
        """Tell the open snapshot window of a change that its chunk did not see."""
        window = self.window
        if self._hidden and window is not None and window.topic == dataset.table.topic:
            key: Key = tuple(row[name] for name in dataset.table.schema.key)
            window.touch(key, is_partial or self._is_foreign)

    def _add(
        self, dataset: _Dataset, op: Op, row: Row, *, size: int, absent: tuple[str, ...] = ()
    ) -> None:
        if self._is_foreign:
            keys = self.foreign.setdefault(str(dataset.table.topic), set())
            if op is Op.UPSERT and len(keys) <= GONE_KEYS_MAX:
                keys.add(tuple(row[name] for name in dataset.table.schema.key))
            return
        if dataset.rows and (dataset.op is not op or dataset.absent != absent):
            self._flush(dataset)
        if not dataset.rows:
            dataset.op, dataset.absent, dataset.first = op, absent, dataset.ordinal
        dataset.rows.append(row)
        dataset.ordinal += 1
        dataset.size += size
        if len(dataset.rows) >= RUN_ROWS_MAX or dataset.size >= RUN_BYTES_MAX:
            self._flush(dataset)

    def _truncate(self, dataset: _Dataset) -> None:
        window = self.window
        if self._hidden and window is not None and window.topic == dataset.table.topic:
            window.clear()
        if self._is_foreign:
            return
        self._flush(dataset)
        dataset.op, dataset.absent, dataset.first = Op.TRUNCATE, (), dataset.ordinal
        dataset.ordinal += 1
        self._emit(dataset)

    def _flush(self, dataset: _Dataset) -> None:
        if dataset.rows:
            self._emit(dataset)

    def _emit(self, dataset: _Dataset) -> None:
        assert self._begin is not None
        run = Run(
            op=dataset.op,
            position=self._begin.lsn,
            ordinal=dataset.first,
            commit_us=self._begin.commit_us,
            rows=dataset.rows,
            absent=dataset.absent,
        )
        dataset.rows, dataset.size = [], 0
        self._has_rows = True
        self.runs += 1
        self.out.append(Captured(topic=dataset.table.topic, run=run))
