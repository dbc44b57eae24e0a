"""Many changes become few: the last state of each key, ready to be written in bulk. Pure.

Correct only between barriers, and only as an attempt: a constraint over several rows may
want the changes one by one, which is what the applier falls back to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from fabric.model.change import Op, Row, Run
from fabric.model.columns import one_after_another, values_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some rows of one run, by their places in it, rising."""

    run: Run
    places: Sequence[int]

    def rows(self) -> Iterator[Row]:
        """The rows, in order."""
        rows = self.run.rows
        return (rows[place] for place in self.places)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is left to write, each key once.

    Attributes:
        partials: rows by the columns that they lack.
    """

    deletes: Sequence[Row] = ()
    upserts: Sequence[Row] = ()
    partials: Mapping[tuple[str, ...], Sequence[Row]] = field(default_factory=dict)


def whole(run: Run) -> Part:
    """All rows of a run."""
    return Part(run=run, places=range(len(run.rows)))


def count(parts: Sequence[Part]) -> int:
    """Number of changes."""
    return sum(len(part.places) for part in parts)


def halves(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Cut at least two changes into two halves, in order."""
    wanted = count(parts) // 2
    first: list[Part] = []
    second: list[Part] = []
    for part in parts:
        cut = min(wanted, len(part.places))
        wanted -= cut
        if cut:
            first.append(Part(run=part.run, places=part.places[:cut]))
        if cut < len(part.places):
            second.append(Part(run=part.run, places=part.places[cut:]))
    return first, second


def reduce(parts: Sequence[Part], key: Sequence[str]) -> Plan:
    """The last state of each key; partial rows are merged onto what came before them."""
    rows = _distinct(parts, key)
    if rows is not None:
        return Plan(upserts=rows)
    return _plan(_last_states(parts, itemgetter(*key)))


def _distinct(parts: Sequence[Part], key: Sequence[str]) -> Sequence[Row] | None:
    """The rows of all parts, when they are whole upserts and no key is there twice."""
    if any(part.run.op is not Op.UPSERT or part.run.absent for part in parts):
        return None
    if any(len(part.places) != len(part.run.rows) for part in parts):
        return None
    found = [part.run.rows for part in parts]
    rows = found[0] if len(found) == 1 else one_after_another(found)
    if rows is None:
        return None
    keys = set(zip(*(values_of(rows, name) for name in key), strict=True))
    return rows if len(keys) == len(rows) else None


def _last_states(
    parts: Sequence[Part], key_of: Callable[[Row], Any]
) -> dict[Any, tuple[Op, Row, tuple[str, ...]]]:
    states: dict[Any, tuple[Op, Row, tuple[str, ...]]] = {}
    for part in parts:
        op, absent = part.run.op, part.run.absent
        for row in part.rows():
            key = key_of(row)
            before = states.pop(key, None)
            if absent and before is not None and before[0] is Op.UPSERT:
                states[key] = _merged(before, row, absent)
            else:
                states[key] = (op, row, absent)
    return states


def _merged(
    before: tuple[Op, Row, tuple[str, ...]], row: Row, absent: tuple[str, ...]
) -> tuple[Op, Row, tuple[str, ...]]:
    _, old, lacking = before
    merged = {name: old[name] if name in absent else value for name, value in row.items()}
    return Op.UPSERT, merged, tuple(name for name in absent if name in lacking)


def _plan(states: dict[Any, tuple[Op, Row, tuple[str, ...]]]) -> Plan:
    deletes: list[Row] = []
    upserts: list[Row] = []
    partials: dict[tuple[str, ...], list[Row]] = {}
    for op, row, absent in states.values():
        if op is Op.DELETE:
            deletes.append(row)
        elif absent:
            partials.setdefault(absent, []).append(row)
        else:
            upserts.append(row)
    return Plan(deletes=deletes, upserts=upserts, partials=partials)
