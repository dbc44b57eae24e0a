"""The one way bytes are written: a strict, canonical subset of CBOR (RFC 8949).

Allowed: integers, byte strings, text strings, arrays, and maps with integer
keys in the order of RFC 8949 section 4.2.1. Everything else, and every second
encoding of an allowed value, is refused: what was decoded is encoded again and
compared, so that signed bytes and parsed bytes cannot differ. Which keys a map
may hold is for its reader to say. Spec: docs/format.md section 2.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cbor2

from fabric.model.errors import Malformed
from fabric.model.limits import CBOR_DEPTH_MAX, CBOR_ITEMS_DEFAULT, CBOR_ITEMS_MAX

Value: TypeAlias = "int | bytes | str | Sequence[Value] | Mapping[int, Value]"

_BYTES, _TEXT, _ARRAY, _MAP = 2, 3, 4, 5  # major types, RFC 8949 section 3.1
_INFO_BYTES = 24  # from here on the head has 1, 2, 4 or 8 bytes more
_INFO_MAX = 27  # above: reserved, or an indefinite length
_INT_MAX = 2**64 - 1
_INT_MIN = -(2**17)
_KEY_MAX = 2**16
_KEY_MIN = -(2**17)  # EAT's private claims lie below -65536


def encode(value: Value) -> bytes:
    """Write `value`; raises Malformed when it is outside the subset."""
    return cbor2.dumps(_ordered(value, CBOR_DEPTH_MAX))


def decode(data: bytes, *, items_max: int = CBOR_ITEMS_DEFAULT) -> Value:
    """Read exactly one value from `data`; raises Malformed for anything not canonical.

    Args:
        items_max: values that may stand in it, itself included, at most CBOR_ITEMS_MAX. Fifty
            thousand of one byte each cost a tenth of a second: no reader asks for more than
            what it reads can have.
    """
    _scan(data, min(items_max, CBOR_ITEMS_MAX))
    try:
        value: Value = cbor2.loads(data)
        again = encode(value)
    except Malformed:
        raise
    except Exception as exc:  # the decoder's own errors are many and unlisted
        raise Malformed("not CBOR") from exc
    if again != data:
        raise Malformed("CBOR is not canonical")
    return value


def _scan(data: bytes, items_max: int) -> None:
    """Refuse what is outside the subset before the decoder builds anything.

    cbor2 evaluates tags while it reads: a rational number of two long integers costs it
    seconds, a regular expression more. No tag and no simple value comes this far.
    """
    at, left, items = 0, 1, 0
    while left:
        if at >= len(data) or items == items_max:
            raise Malformed("CBOR is truncated or has too many items")
        major, info = data[at] >> 5, data[at] & 31
        if major > _MAP or info > _INFO_MAX:
            raise Malformed("CBOR type is not allowed")
        size = 0 if info < _INFO_BYTES else 1 << (info - _INFO_BYTES)
        value = int.from_bytes(data[at + 1 : at + 1 + size]) if size else info
        at += 1 + size
        items += 1
        left -= 1
        if major in (_BYTES, _TEXT):
            at += value
        elif major == _ARRAY:
            left += value
        elif major == _MAP:
            left += 2 * value
    if at != len(data):
        raise Malformed("CBOR has bytes after its end, or is truncated")


def _ordered(value: object, depth: int) -> Value:
    if depth == 0:
        raise Malformed("CBOR is nested too deep")
    # `type is` and not isinstance: bool is an int, and a subclass may lie.
    if type(value) is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise Malformed("CBOR integer is out of range")
        return value
    if type(value) is bytes or type(value) is str:
        return value
    if type(value) is list or type(value) is tuple:
        return [_ordered(item, depth - 1) for item in value]
    if type(value) is dict:
        return _ordered_map(value, depth - 1)
    raise Malformed("CBOR type is not allowed")


def _ordered_map(value: dict[object, object], depth: int) -> Value:
    ordered: dict[int, Value] = {}
    # cbor2's own canonical mode sorts by length first (RFC 7049), so the order is made here.
    for key in sorted(map(_key, value), key=_rank):
        ordered[key] = _ordered(value[key], depth)
    return ordered


def _rank(key: int) -> int:
    """Integers in the order of their bytes: 0, 1, 2 and so on, then -1, -2 and so on."""
    return key if key >= 0 else _INT_MAX - key


def _key(key: object) -> int:
    if type(key) is not int or not _KEY_MIN <= key <= _KEY_MAX:
        raise Malformed("CBOR map key must be a small integer")
    return key
