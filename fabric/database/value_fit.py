"""Whether a physical value fits its Avro type, at every depth.

fastavro takes some values that a reader would get back as others: in a block it writes an
integer of any size, any number as a boolean, and a float that is too large as infinity. Of a
union it writes the first branch that it thinks fit: bytes as an array of integers, an integer as
a float. Such a value fits no union here, if its bytes or its integer would come back as another,
also when a tuple names its branch: what is read from the outbox names none. Not looked at is
which of several arrays, maps or records of one union takes a value, with what rounding.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], None]
"""Raises ValueError, with no text, for a value that does not fit."""

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
_FLOAT = struct.Struct("<f")


def resolve(avro: Any, names: dict[str, Any]) -> Any:
    """Follow a name to its definition, and remember the definitions inside `avro`."""
    _remember(avro, "", names)
    while isinstance(avro, str) and avro in names:
        avro = names[avro]
    while isinstance(avro, dict) and isinstance(avro.get("type"), dict):
        avro = avro["type"]
    return avro


def _remember(avro: Any, space: str, names: dict[str, Any]) -> None:
    if isinstance(avro, list):
        for branch in avro:
            _remember(branch, space, names)
    if not isinstance(avro, dict):
        return
    if "name" in avro and avro.get("type") in ("record", "enum", "fixed"):
        space = avro.get("namespace", space)
        short = avro["name"].rpartition(".")[2]
        for name in (avro["name"], short, f"{space}.{short}"):
            names.setdefault(name, avro)
    for item in avro.get("fields", ()):
        _remember(item["type"], space, names)
    for inner in ("items", "values", "type"):
        if isinstance(avro.get(inner), dict | list):
            _remember(avro[inner], space, names)


def checker(avro: Any, names: dict[str, Any]) -> Check:
    """The check of one type, which `weigh` has passed.

    Args:
        names: definitions seen so far, as `resolve` keeps them.
    """
    avro = resolve(avro, names)
    if isinstance(avro, list):
        return _union([(_kind(resolve(it, names)), checker(it, names)) for it in avro])
    kind = _kind(avro)
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "fixed":
        return _fixed(int(avro["size"]))
    if kind == "enum":
        return _enum(frozenset(avro["symbols"]))
    if kind == "array":
        return _array(checker(avro["items"], names))
    if kind == "map":
        return _map(checker(avro["values"], names))
    return _record({field["name"]: checker(field["type"], names) for field in avro["fields"]})


def _kind(avro: Any) -> Any:
    """The kind of a resolved type that is no union."""
    return avro["type"] if isinstance(avro, dict) else avro


def whole(low: int, high: int) -> Check:
    """The check of an integer in `low..high`; a boolean is none."""

    def check(value: Any) -> None:
        if not _is_of(value, Integral) or not low <= value <= high:
            raise ValueError

    return check


def _is_of(value: Any, kind: type) -> bool:
    """Whether it is a number of this kind, of any library; to Python a boolean is one, too."""
    return isinstance(value, kind) and not isinstance(value, bool)


def single(value: Any) -> None:
    """Check a float: infinities and NaN are, a number that would become infinite is not."""
    if not _is_of(value, Real):
        raise ValueError
    try:
        _FLOAT.pack(value)
    except (OverflowError, struct.error):
        raise ValueError from None


def _double(value: Any) -> None:
    if not _is_of(value, Real):
        raise ValueError
    try:
        float(value)
    except OverflowError:
        raise ValueError from None


def _null(value: Any) -> None:
    if value is not None:
        raise ValueError


def _boolean(value: Any) -> None:
    if type(value) is not bool:
        raise ValueError


def _string(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate; its text quotes the value
        raise ValueError from None


def _bytes(value: Any) -> None:
    if not isinstance(value, bytes | bytearray):
        raise ValueError


_PLAIN: dict[str, Check] = {
    "null": _null,
    "boolean": _boolean,
    "int": whole(INT_MIN, INT_MAX),
    "long": whole(LONG_MIN, LONG_MAX),
    "float": single,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
}


def _fixed(size: int) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, bytes | bytearray) or len(value) != size:
            raise ValueError

    return check


def _enum(symbols: frozenset[str]) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, str) or value not in symbols:
            raise ValueError

    return check


def _array(item: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
            raise ValueError
        for element in value:
            item(element)

    return check


def _map(held: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise ValueError
        for key, element in value.items():
            _string(key)
            held(element)

    return check


def _record(parts: dict[str, Check]) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping) or not parts.keys() <= value.keys():
            raise ValueError
        for name, part in parts.items():
            part(value[name])

    return check


def _union(branches: list[tuple[Any, Check]]) -> Check:
    """The check of a union, whose branches are given with their kinds."""
    parts = [part for _, part in branches]
    is_several = sum(kind != "null" for kind, _ in branches) > 1

    def check(value: Any) -> None:
        if isinstance(value, tuple) and len(value) == 2:  # fastavro's way to name the branch
            name, value = value
            named = [part for kind, part in branches if kind == name]
            if named:
                _demand_one(named, value)
        _demand_one(parts, value)
        if is_several:
            _demand_kept(branches, value)

    return check


def _demand_one(parts: list[Check], value: Any) -> None:
    if not any(_fits(part, value) for part in parts):
        raise ValueError


def _fits(part: Check, value: Any) -> bool:
    try:
        part(value)
    except ValueError:
        return False
    return True


def _demand_kept(branches: list[tuple[Any, Check]], value: Any) -> None:
    """Refuse bytes and integers that one branch would keep, and that fastavro gives to another."""
    if isinstance(value, bytes | bytearray):
        loose = list(value)  # to fastavro bytes are a sequence, too
        for kind, part in branches:
            if kind in ("bytes", "fixed") and _fits(part, value):
                return
            if kind == "array" and _fits(part, loose):
                raise ValueError
    elif _is_of(value, Integral):
        fitting = [kind for kind, part in branches if _fits(part, value)]
        is_float = fitting[0] in ("float", "double")
        if is_float and not {"int", "long"}.isdisjoint(fitting):
            # Of the two it takes double, wherever that stands.
            back = float(value) if "double" in fitting else _FLOAT.unpack(_FLOAT.pack(value))[0]
            if back != value:
                raise ValueError
