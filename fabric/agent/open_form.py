"""The open form of a change: one Kafka record, Confluent wire format, Avro `Change`. Pure.

Levels that are not sealed travel so that any Kafka tool can read them. A record
holds one change with its origin and sequence; duplicates are removed by
sequence, gaps are not promised.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Any

import fastavro

from fabric.model.block import Block
from fabric.model.change import MARKS, Change, Op, Run, changes_of, steps_of
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import DeniedError, FabricError, Malformed, Reason
from fabric.model.limits import OPEN_RECORD_BYTES_MAX, OPEN_VALUES_MAX
from fabric.model.names import Origin, Stream, Topic
from fabric.policy.types import Dataset

_MAGIC = b"\x00"
_FRAMING_BYTES = 5
_ORIGINS_MAX = 256
_NUMBER_MAX = 2**63 - 1


def encode(block: Block, dataset: Dataset) -> list[bytes]:
    """Every change of `block` as a record value, in order.

    Raises:
        Malformed: a row does not fit the schema.
        DeniedError: TOO_LARGE, one change is larger than a record may be, or has more values.
    """
    framing = _MAGIC + dataset.schema_id.to_bytes(4)
    origin = block.stream.origin
    return [
        _encode(change, dataset, framing)
        for run in block.runs
        for change in changes_of(run, block.generation, dataset.topic, origin)
    ]


def _encode(change: Change, dataset: Dataset, framing: bytes) -> bytes:
    out = BytesIO()
    out.write(framing)
    datum = {
        "origin": str(change.origin),
        "op": int(change.op),
        "generation": change.sequence.generation,
        "position": change.sequence.position,
        "ordinal": change.sequence.ordinal,
        "commit_us": change.commit_us,
        "absent": change.absent,
        "row": change.row if change.op is Op.UPSERT else None,
        "key": change.row if change.op is Op.DELETE else None,
    }
    try:
        fastavro.schemaless_writer(out, dataset.schema.change_codec, datum)
    except Exception:  # noqa: BLE001  # fastavro raises whatever the value raised, and quotes it
        raise Malformed("row does not fit the schema") from None
    if out.tell() > OPEN_RECORD_BYTES_MAX:
        raise DeniedError(
            Reason.TOO_LARGE,
            f"the change at {change.sequence.position} of {change.topic} is too large for an open"
            " record",
        )
    record = out.getvalue()
    if dataset.schema.open_count.most(len(record)) > OPEN_VALUES_MAX:
        dataset.schema.open_count.of(record, _FRAMING_BYTES)
    return record


def decode(value: bytes, dataset: Dataset) -> Change:
    """Undo `encode` for one record that anyone may have written.

    Raises:
        Malformed: not the wire format, or not exactly one sound Change.
        DeniedError: TOO_LARGE; SCHEMA_UNKNOWN; NOT_A_PRODUCER.
    """
    _count(value, dataset)
    return _decode(value, dataset)


def _count(value: bytes, dataset: Dataset) -> int:
    """How many values a decoder would make of a record."""
    if len(value) > OPEN_RECORD_BYTES_MAX:
        raise DeniedError(Reason.TOO_LARGE, "open record is too long")
    if value[:1] != _MAGIC or len(value) <= _FRAMING_BYTES:
        raise Malformed("record is not in Confluent's wire format")
    if int.from_bytes(value[1:_FRAMING_BYTES]) != dataset.schema_id:
        raise DeniedError(Reason.SCHEMA_UNKNOWN, "schema id is not the dataset's")
    return dataset.schema.open_count.of(value, _FRAMING_BYTES)


def _decode(value: bytes, dataset: Dataset) -> Change:
    buffer = BytesIO(value)
    buffer.seek(_FRAMING_BYTES)
    try:
        datum: Any = fastavro.schemaless_reader(buffer, dataset.schema.change_codec, None)
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("record is not Avro of its schema") from exc
    if buffer.read(1):
        raise Malformed("record has bytes after its end")
    return _change(datum, dataset)


_origin = lru_cache(maxsize=_ORIGINS_MAX)(Origin.parse)
"""Records of one stream repeat one origin."""


def _change(datum: Any, dataset: Dataset) -> Change:
    origin = _origin(datum["origin"])
    if origin not in dataset.producers:
        raise DeniedError(Reason.NOT_A_PRODUCER, "origin is not a producer of the dataset")
    numbers = (datum["generation"], datum["position"], datum["ordinal"])
    if not all(0 <= number <= _NUMBER_MAX for number in numbers) or datum["ordinal"] < 1:
        raise Malformed("sequence is out of range")
    try:
        op = Op(datum["op"])
    except ValueError as exc:
        raise Malformed("change has an unknown operation") from exc
    row, key = datum["row"], datum["key"]
    if (row is not None, key is not None) != (op is Op.UPSERT, op is Op.DELETE):
        raise Malformed("operation and row do not fit")
    return Change(
        topic=dataset.topic,
        origin=origin,
        op=op,
        sequence=ChangeSequence(*numbers),
        commit_us=datum["commit_us"],
        row=row if row is not None else key,
        absent=tuple(datum["absent"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A change and the offset it stood at."""

    change: Change
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Consecutive changes of one stream and generation, and the offset of the last."""

    block: Block
    offset: int


def try_decode(
    records: Iterable[tuple[int, bytes | None]], dataset: Dataset
) -> tuple[list[Placed], list[tuple[int, Reason]]]:
    """Decode (offset, value) pairs; what cannot be decoded comes back with its reason.

    At least one is taken, and no more once they have OPEN_VALUES_MAX values: who calls comes
    again with the rest when these have been applied.
    """
    good: list[Placed] = []
    bad: list[tuple[int, Reason]] = []
    values = 0
    for offset, value in records:
        try:
            if value is None:
                raise Malformed("record has no value")
            values += _count(value, dataset)
            good.append(Placed(change=_decode(value, dataset), offset=offset))
        except FabricError as exc:
            bad.append((offset, exc.reason))
            values += dataset.schema.open_count.most(len(value or b""))  # what it may have cost
        if values >= OPEN_VALUES_MAX:
            break
    return good, bad


def gather(changes: Sequence[Placed], topic: Topic, partition: int) -> Iterator[Gathered]:
    """Join changes into blocks: as long as the stream is one and sequences rise."""
    part: list[Placed] = []
    for item in changes:
        if part and not _goes_on(part[-1].change, item.change):
            yield _gathered(part, topic, partition)
            part = []
        part.append(item)
    if part:
        yield _gathered(part, topic, partition)


def _goes_on(last: Change, change: Change) -> bool:
    same = (last.origin, last.sequence.generation) == (change.origin, change.sequence.generation)
    return same and last.sequence < change.sequence


def _gathered(part: Sequence[Placed], topic: Topic, partition: int) -> Gathered:
    first, last = part[0].change, part[-1].change
    before = first.sequence._replace(ordinal=first.sequence.ordinal - 1)
    block = Block(
        stream=Stream(first.origin, topic, partition),
        after=before,
        upto=last.sequence,
        runs=tuple(_runs([item.change for item in part])),
    )
    return Gathered(block=block, offset=part[-1].offset)


def _runs(changes: Sequence[Change]) -> Iterator[Run]:
    at = 0
    while at < len(changes):
        end = at + 1
        while end < len(changes) and _same_run(changes[end - 1], changes[end]):
            end += 1
        first = changes[at]
        rows = [] if first.op in MARKS else [c.row for c in changes[at:end] if c.row is not None]
        yield Run(
            op=first.op,
            position=first.sequence.position,
            ordinal=first.sequence.ordinal,
            commit_us=first.commit_us,
            rows=rows,
            absent=first.absent,
            steps=steps_of([change.sequence.ordinal for change in changes[at:end]]),
        )
        at = end


def _same_run(last: Change, change: Change) -> bool:
    return (
        last.op is change.op
        and last.op not in MARKS
        and last.sequence.position == change.sequence.position
        and last.sequence.ordinal < change.sequence.ordinal
        and (last.commit_us, last.absent) == (change.commit_us, change.absent)
    )
