"""A target in memory and a ChangeSink on it: the port's second implementation."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

from fabric.model.block import Block
from fabric.model.change import Change, Op, Row, changes_of
from fabric.model.errors import DeniedError, Reason, UnavailableError, UsageError
from fabric.model.names import Origin, Stream, Topic
from fabric.model.partition import key_bytes, partition_of
from fabric.model.schema import RowSchema
from fabric.ports import Applied, Parked, StreamState, Target

_Key = tuple[object, ...]


@dataclass
class _Held:
    """Everything that a transaction may change."""

    tables: dict[str, dict[_Key, Row]] = field(default_factory=dict)
    owners: dict[str, dict[_Key, Origin]] = field(default_factory=dict)
    states: dict[Stream, StreamState] = field(default_factory=dict)
    seen: dict[Stream, set[_Key]] = field(default_factory=dict)
    parked: dict[int, tuple[Parked, Stream]] = field(default_factory=dict)
    shapes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    last_id: int = 0


@dataclass
class MemoryStore:
    """A database in memory; outlives the sinks that write it.

    Attributes:
        refuses: rows that the table's constraints refuse.
    """

    held: _Held = field(default_factory=_Held)
    refuses: Callable[[Row], bool] = lambda row: False

    def rows(self, topic: Topic) -> dict[_Key, Row]:
        """Rows of one dataset by key."""
        return self.held.tables.setdefault(str(topic), {})


class MemorySink:
    """Applies change by change; a block is all or nothing."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._targets: dict[Topic, Target] = {}

    async def open(self, targets: Sequence[Target]) -> None:
        """Note the shapes; a wider schema than the table's, or another table later, is unfit."""
        for target in targets:
            filled = {stream.topic for stream in self._store.held.states}
            if target.table not in self._store.held.shapes and target.topic in filled:
                raise UsageError(Reason.TARGET_UNFIT, f"table {target.table}: it is gone")
            shape = self._store.held.shapes.setdefault(target.table, target.schema.fields)
            for name in target.schema.fields:
                if name not in shape:
                    raise UsageError(Reason.TARGET_UNFIT, f"column {name} is missing; add it")
            self._targets[target.topic] = target

    async def state(self, stream: Stream) -> StreamState | None:
        """The stored state of one stream."""
        return self._store.held.states.get(stream)

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream of the topic."""
        return {s: state for s, state in self._store.held.states.items() if s.topic == topic}

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Apply a block or nothing of it."""
        target = self._targets.get(block.stream.topic)
        if target is None:
            raise UsageError(Reason.TOPIC_UNKNOWN, "no such target")
        stored = self._store.held.states.get(block.stream)
        same = (
            expected
            if expected is None or stored is None
            else replace(expected, incomplete=stored.incomplete)
        )
        if stored != same:
            raise UnavailableError(Reason.OVERLOADED, "another writer moved the stream")
        before = deepcopy(self._store.held)
        try:
            return self._apply(block, target, new, bool(stored and stored.incomplete))
        except BaseException:
            self._store.held = before
            raise

    def _apply(self, block: Block, target: Target, new: StreamState, was: bool) -> Applied:
        held, stream = self._store.held, block.stream
        incomplete = was or new.incomplete
        if stream in held.states and held.states[stream].high.generation < block.generation:
            held.seen.pop(stream, None)
        counts = [0, 0]
        for run in block.runs:
            for change in changes_of(run, block.generation, stream.topic, stream.origin):
                if change.op is Op.SNAPSHOT_BEGIN:
                    incomplete = True
                elif change.op is Op.SNAPSHOT_END and stream in held.seen:
                    incomplete = False
                reason = self._refusal(change, target, stream)
                if reason is None:
                    self._one(change, target, stream)
                elif target.quarantine:
                    self._park(change, (stream, new.offset - 1), reason, target.schema)
                else:
                    raise DeniedError(Reason.APPLY_FAILED, reason)
                counts[reason is not None] += 1
        in_snapshot = stream in held.seen
        held.states[stream] = replace(new, incomplete=incomplete, in_snapshot=in_snapshot)
        return Applied(state=held.states[stream], applied=counts[0], quarantined=counts[1])

    def _refusal(self, change: Change, target: Target, stream: Stream) -> str | None:
        if change.row is None:
            return None
        key = key_bytes(target.schema, change.row)
        if any(s == stream and p.key == key for p, s in self._store.held.parked.values()):
            return "an earlier change of this key is in quarantine"
        return "the table refuses the row" if self._is_refused(change) else None

    def _is_refused(self, change: Change) -> bool:
        return change.op is Op.UPSERT and self._store.refuses(change.row or {})

    def _park(
        self, change: Change, place: tuple[Stream, int], reason: str, schema: RowSchema
    ) -> None:
        held, (stream, offset) = self._store.held, place
        held.last_id += 1
        parked = Parked(
            id=held.last_id,
            topic=stream.topic,
            partition=stream.partition,
            offset=offset,
            reason=reason,
            key=key_bytes(schema, change.row or {}),
            change=change,
        )
        held.parked[parked.id] = (parked, stream)
        self._see(change, stream, schema)

    def _see(self, change: Change, stream: Stream, schema: RowSchema) -> None:
        if change.op is Op.UPSERT and change.row is not None:
            key = tuple(change.row[name] for name in schema.key)
            self._store.held.seen.get(stream, set()).add(key)

    def _one(self, change: Change, target: Target, stream: Stream) -> None:
        held, rows = self._store.held, self._store.rows(stream.topic)
        owners = held.owners.setdefault(str(stream.topic), {})
        if change.row is not None:
            key = tuple(change.row[name] for name in target.schema.key)
            self._see(change, stream, target.schema)
            if change.op is Op.UPSERT:
                kept = {name: rows.get(key, {}).get(name) for name in change.absent}
                rows[key] = {**change.row, **kept}
                owners[key] = stream.origin
            else:
                rows.pop(key, None)
                owners.pop(key, None)
        elif change.op is Op.TRUNCATE:
            self._remove(target, stream, set())
            if stream in held.seen:
                held.seen[stream] = set()
            for ident in [i for i, (_, s) in held.parked.items() if s == stream]:
                del held.parked[ident]
        elif change.op is Op.SNAPSHOT_BEGIN:
            held.seen[stream] = set()
        elif change.op is Op.SNAPSHOT_END and stream in held.seen:
            self._remove(target, stream, held.seen.pop(stream))

    def _remove(self, target: Target, stream: Stream, kept: set[_Key]) -> None:
        rows = self._store.rows(stream.topic)
        owners = self._store.held.owners.setdefault(str(stream.topic), {})
        for key, row in list(rows.items()):
            place = partition_of(key_bytes(target.schema, row), target.salt, target.partitions)
            own = owners.get(key, stream.origin) == stream.origin
            if own and place == stream.partition and key not in kept:
                del rows[key]
                owners.pop(key, None)

    async def quarantined(self, topic: Topic | None) -> Sequence[Parked]:
        """List quarantine, oldest first, without rows."""
        return [
            replace(parked, change=None)
            for _, (parked, _) in sorted(self._store.held.parked.items())
            if topic is None or parked.topic == topic
        ]

    async def parked(self, ident: int) -> Parked | None:
        """One parked change with its row."""
        found = self._store.held.parked.get(ident)
        return found[0] if found else None

    async def retry(self, ident: int) -> int:
        """Apply the parked changes of this one's key until one fails."""
        one, stream = self._found(ident)
        done = 0
        for each, (parked, other) in sorted(self._store.held.parked.items()):
            if other != stream or parked.key != one.key or parked.change is None:
                continue
            if self._is_refused(parked.change):
                break
            del self._store.held.parked[each]
            self._one(parked.change, self._targets[stream.topic], stream)
            done += 1
        return done

    async def drop(self, ident: int) -> None:
        """Forget a parked change; its stream becomes incomplete."""
        _, stream = self._found(ident)
        held = self._store.held
        del held.parked[ident]
        held.states[stream] = replace(held.states[stream], incomplete=True)

    def _found(self, ident: int) -> tuple[Parked, Stream]:
        found = self._store.held.parked.get(ident)
        if found is None:
            raise UsageError(Reason.CONFIG_INVALID, "no such change in quarantine")
        return found

    async def close(self) -> None:
        """Nothing to give back."""
