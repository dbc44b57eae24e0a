"""Whether a physical value fits its Avro type, at every depth.

fastavro takes some values that a reader would get back as others: in a block it writes an
integer of any size, any number as a boolean, and a float that is too large as infinity. Of a
union it writes the first branch that it thinks fit, or of several records the one with the most
fields: bytes as an array of integers, an integer as a float, also within arrays, maps and
records. Such a value fits no union here, if another branch would keep it as it is. A tuple that
names a branch changes nothing in that: what is read from the outbox names none, and is written
into a block by that rule.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], None]
"""Raises ValueError, with no text, for a value that does not fit."""
_Question: TypeAlias = Callable[[Any], bool]

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
    return _type_of(avro, names).check


@dataclass(frozen=True, slots=True, kw_only=True)
class _Type:
    """One type.

    Attributes:
        name: of a named type, without its namespace; else its kind.
        check: raises for a value that does not fit.
        is_taken: whether fastavro would write a value as a branch of this type.
        is_kept: whether a value that fits comes back as it is.
        fields: names, of a record; else None.
    """

    name: str
    check: Check
    is_taken: _Question
    is_kept: _Question
    fields: frozenset[str] | None = None


def _type_of(avro: Any, names: dict[str, Any]) -> _Type:
    avro = resolve(avro, names)
    if isinstance(avro, list):
        return _union([_type_of(branch, names) for branch in avro])
    kind = avro["type"] if isinstance(avro, dict) else avro
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind == "array":
        return _array(_type_of(avro["items"], names))
    if kind == "map":
        return _map(_type_of(avro["values"], names))
    name = str(avro["name"]).rpartition(".")[2]
    if kind == "fixed":
        return _plain(name, _fixed(int(avro["size"])))
    if kind == "enum":
        return _plain(name, _enum(frozenset(avro["symbols"])))
    parts = {field["name"]: _type_of(field["type"], names) for field in avro["fields"]}
    return _record(name, parts)


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


def _fits(check: Check, value: Any) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


def _plain(
    name: str, check: Check, is_kept: _Question = lambda _: True, is_taken: _Question | None = None
) -> _Type:
    taken = is_taken or (lambda value: _fits(check, value))
    return _Type(name=name, check=check, is_taken=taken, is_kept=is_kept)


def _is_kept_single(value: Any) -> bool:
    return _is_same(_FLOAT.unpack(_FLOAT.pack(value))[0], value)


def _is_kept_double(value: Any) -> bool:
    return _is_same(float(value), value)


def _is_same(back: float, value: Any) -> bool:
    return bool(back == value or value != value)  # NaN


def _is_number(value: Any) -> bool:
    return _is_of(value, Real)


_PLAIN: dict[str, _Type] = {
    "null": _plain("null", _null),
    "boolean": _plain("boolean", _boolean),
    "int": _plain("int", whole(INT_MIN, INT_MAX)),
    "long": _plain("long", whole(LONG_MIN, LONG_MAX)),
    "float": _plain("float", single, _is_kept_single, _is_number),
    "double": _plain("double", _double, _is_kept_double, _is_number),
    "string": _plain("string", _string, is_taken=lambda value: isinstance(value, str)),
    "bytes": _plain("bytes", _bytes),
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


def _array(item: _Type) -> _Type:
    def check(value: Any) -> None:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
            raise ValueError
        for element in value:
            item.check(element)

    def is_taken(value: Any) -> bool:
        # To fastavro bytes are a sequence, too.
        is_one = isinstance(value, Sequence) and not isinstance(value, str)
        return is_one and all(map(item.is_taken, value))

    return _plain("array", check, lambda value: all(map(item.is_kept, value)), is_taken)


def _map(held: _Type) -> _Type:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise ValueError
        for key, element in value.items():
            _string(key)
            held.check(element)

    def is_taken(value: Any) -> bool:
        is_one = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        return is_one and all(map(held.is_taken, value.values()))

    return _plain("map", check, lambda value: all(map(held.is_kept, value.values())), is_taken)


def _record(name: str, parts: Mapping[str, _Type]) -> _Type:
    def check(value: Any) -> None:
        if not isinstance(value, Mapping) or parts.keys() != value.keys():
            raise ValueError
        for field, part in parts.items():
            part.check(value[field])

    def is_taken(value: Any) -> bool:
        # Of a field that lacks fastavro asks whether it may be null; more than the fields may be.
        is_one = isinstance(value, Mapping)
        return is_one and all(part.is_taken(value.get(field)) for field, part in parts.items())

    def is_kept(value: Any) -> bool:
        return all(part.is_kept(value[field]) for field, part in parts.items())

    fields = frozenset(parts)
    return _Type(name=name, check=check, is_taken=is_taken, is_kept=is_kept, fields=fields)


def _union(branches: Sequence[_Type]) -> _Type:
    def check(value: Any) -> None:
        name, value = _called(value)
        named = [each for each in branches if each.name == name and _fits(each.check, value)]
        if not named and any(each.name == name for each in branches):
            raise ValueError
        for branch in (_written(branches, value), *named):
            branch.check(value)
            if not branch.is_kept(value) and any(_keeps(each, value) for each in branches):
                raise ValueError

    def is_taken(value: Any) -> bool:
        _, value = _called(value)
        return any(branch.is_taken(value) for branch in branches)

    def is_kept(value: Any) -> bool:
        _, value = _called(value)
        return _written(branches, value).is_kept(value)

    return _plain("union", check, is_kept, is_taken)


def _called(value: Any) -> tuple[str | None, Any]:
    """A value and the branch that it names, without a namespace; a pair is fastavro's way to."""
    if not isinstance(value, tuple) or len(value) != 2:
        return None, value
    name, value = value
    if not isinstance(name, str):
        raise ValueError
    return name.rpartition(".")[2], value


def _keeps(branch: _Type, value: Any) -> bool:
    return _fits(branch.check, value) and branch.is_kept(value)


def _written(branches: Sequence[_Type], value: Any) -> _Type:
    """The branch that fastavro writes; raises ValueError when it takes none."""
    found: _Type | None = None
    shared = -1
    for branch in branches:
        if not branch.is_taken(value):
            continue
        if branch.name == "float":
            # It prefers double, wherever that stands after it, and then looks at nothing else.
            after = branches[branches.index(branch) + 1 :]
            return next((each for each in after if each.name == "double"), branch)
        if branch.fields is None:
            return branch
        if len(branch.fields & value.keys()) > shared:
            found, shared = branch, len(branch.fields & value.keys())
    if found is None:
        raise ValueError
    return found
