"""Many changes become few: the last state of each key, ready to be written in bulk. Pure.

Correct only between barriers, and only as an attempt: a constraint over several rows may
want the changes one by one, which is what the applier falls back to.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from fabric.model.change import Op, Row, Run


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

    deletes: list[Row] = field(default_factory=list)
    upserts: list[Row] = field(default_factory=list)
    partials: dict[tuple[str, ...], list[Row]] = field(default_factory=dict)


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
    if len(parts) == 1 and parts[0].run.op is Op.UPSERT and not parts[0].run.absent:
        rows = list(parts[0].rows())
        key_of = itemgetter(*key)
        if len({key_of(row) for row in rows}) == len(rows):
            return Plan(upserts=rows)
    return _plan(_last_states(parts, itemgetter(*key)))


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
    plan = Plan()
    for op, row, absent in states.values():
        if op is Op.DELETE:
            plan.deletes.append(row)
        elif absent:
            plan.partials.setdefault(absent, []).append(row)
        else:
            plan.upserts.append(row)
    return plan
