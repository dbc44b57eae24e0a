"""How confidential a thing is: a level and a set of compartments, forming a lattice."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from fabric.model.errors import Malformed
from fabric.model.limits import NAMES_REMEMBERED
from fabric.model.names import part


@dataclass(frozen=True, slots=True)
class Levels:
    """The order of level names, lowest first. A policy may rename or add levels."""

    names: tuple[str, ...]

    def rank(self, level: str) -> int:
        """Place of `level`, 0 is the lowest; raises Malformed when unknown."""
        if level not in self.names:
            raise Malformed("level is not in the policy")
        return self.names.index(level)


@dataclass(frozen=True, slots=True)
class Label:
    """A level with compartments, written `secret+personal-data` (compartments sorted)."""

    level: str
    compartments: frozenset[str] = frozenset()

    @classmethod
    @lru_cache(NAMES_REMEMBERED)
    def parse(cls, text: str) -> Self:
        """Read the canonical text form; another order or a repeat is refused."""
        level, *compartments = text.split("+")
        label = cls(part(level), frozenset(part(c) for c in compartments))
        if str(label) != text:
            raise Malformed("label is not in canonical form")
        return label

    def __str__(self) -> str:
        return "+".join((self.level, *sorted(self.compartments)))


def dominates(levels: Levels, high: Label, low: Label) -> bool:
    """Whether whoever may have `high` may have `low` too."""
    return (
        levels.rank(high.level) >= levels.rank(low.level) and high.compartments >= low.compartments
    )


def join(levels: Levels, left: Label, right: Label) -> Label:
    """The lowest label that dominates both."""
    level = max(left.level, right.level, key=levels.rank)
    return Label(level, left.compartments | right.compartments)


def meet(levels: Levels, left: Label, right: Label) -> Label:
    """The highest label that both dominate."""
    level = min(left.level, right.level, key=levels.rank)
    return Label(level, left.compartments & right.compartments)
