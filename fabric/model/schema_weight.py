"""How much work one datum of a schema can make: every schema we take has a bound.

Named types may be used again, so a small text can stand for a huge or endless
type; items of zero bytes make a decoder run without end on a few bytes. Both
are refused before the first datum is decoded.
"""

import re
from dataclasses import dataclass
from typing import Any

from fabric.model.errors import Malformed

_DEPTH_MAX = 16
_NODES_MAX = 10_000
"""Fields, branches and items of a datum's type, named types counted at each use."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,126}")
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weight:
    """Of one type: whether its datum can be zero bytes long, its size, its depth."""

    is_empty: bool
    nodes: int = 1
    depth: int = 1


def weigh(parsed: Any) -> int:
    """Check a schema that fastavro has parsed, so that names stand in full.

    Returns:
        Its nodes: fields, branches and items of a datum's type, named types counted at each
        use. One byte of a datum stands for no more values than that.

    Raises:
        Malformed: it is recursive, too deep or too large, has items of zero bytes, a
            field twice, a name outside Avro's grammar or that Avro keeps for itself, a fixed
            type of no size, or a type that we do not know.
    """
    return _Scale().weigh(parsed, frozenset(), _DEPTH_MAX).nodes


def is_empty(parsed: Any, known: dict[str, bool]) -> bool:
    """Whether a datum of this type is always zero bytes long.

    Args:
        parsed: a type that fastavro has parsed and `weigh` has passed.
        known: named types seen so far; those that stand in here are added.
    """
    if isinstance(parsed, list):
        for branch in parsed:
            is_empty(branch, known)
        return False
    if isinstance(parsed, str):
        return known.get(parsed, parsed == "null")
    kind = parsed["type"]
    if kind == "record":
        parts = [is_empty(field["type"], known) for field in parsed["fields"]]
        return known.setdefault(parsed["name"], all(parts))
    if kind in ("enum", "fixed"):
        return known.setdefault(parsed["name"], kind == "fixed" and parsed["size"] < 1)
    if kind in ("array", "map"):
        is_empty(parsed["items" if kind == "array" else "values"], known)
        return False
    return is_empty(kind, known)


class _Scale:
    def __init__(self) -> None:
        self._known: dict[str, _Weight] = {}

    def weigh(self, schema: Any, inside: frozenset[str], depth: int) -> _Weight:
        """Weight of one type; `inside` names the records that we are in."""
        if depth == 0:
            raise Malformed("schema is nested too deep")
        if isinstance(schema, str):
            return self._named(schema, inside)
        if isinstance(schema, list):
            # The branch's index is a byte, so a union is never empty.
            return _sum([self.weigh(s, inside, depth - 1) for s in schema], is_empty=False)
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self.weigh(kind, inside, depth)
        if kind == "record":
            return self._record(schema, inside, depth)
        if kind in ("array", "map"):
            items = self.weigh(schema["items" if kind == "array" else "values"], inside, depth - 1)
            if items.is_empty:
                raise Malformed("schema holds an array or map of nothing, such as nulls")
            return _sum([items], is_empty=False)
        if kind in ("enum", "fixed"):
            weight = _Weight(is_empty=kind == "fixed" and not _size(schema))
            self._name(schema["name"], weight)
            return weight
        return self._named(kind, inside)

    def _record(self, schema: Any, inside: frozenset[str], depth: int) -> _Weight:
        names = [item["name"] for item in schema["fields"]]
        if not all(isinstance(name, str) and _NAME.fullmatch(name) for name in names):
            raise Malformed("field name must be 1 to 127 of A-Z, a-z, 0-9 and _, no digit first")
        if len(set(names)) != len(names):
            raise Malformed("schema has a field twice")
        within = inside | {schema["name"]}
        parts = [self.weigh(item["type"], within, depth - 1) for item in schema["fields"]]
        weight = _sum(parts, is_empty=all(part.is_empty for part in parts))
        self._name(schema["name"], weight)
        return weight

    def _name(self, name: str, weight: _Weight) -> None:
        if name.rpartition(".")[2] in _PRIMITIVES:
            raise Malformed("schema gives a type the name of one of Avro's own")
        self._known[name] = weight

    def _named(self, name: str, inside: frozenset[str]) -> _Weight:
        if name in _PRIMITIVES:
            return _Weight(is_empty=name == "null")
        if name in inside:
            raise Malformed("schema is recursive")
        if name not in self._known:
            raise Malformed("schema has a type that is not known")
        return self._known[name]


def _size(schema: Any) -> int:
    size = schema["size"]
    if type(size) is not int or size < 0:
        raise Malformed("schema has a fixed type whose size is no number of bytes")
    return size


def _sum(parts: list[_Weight], *, is_empty: bool) -> _Weight:
    weight = _Weight(
        is_empty=is_empty,
        nodes=1 + sum(part.nodes for part in parts),
        depth=1 + max((part.depth for part in parts), default=0),
    )
    if weight.nodes > _NODES_MAX or weight.depth > _DEPTH_MAX:
        raise Malformed("schema is too large or nested too deep")
    return weight
