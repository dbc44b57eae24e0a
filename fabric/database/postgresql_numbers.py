"""PostgreSQL's binary numbers, dates and times, and Avro's: integers in between, never floats.

Pure. Every function raises ValueError (or a subclass) for a value that the other side
cannot hold; the message never quotes it.
"""

import struct
from collections.abc import Callable

from fabric.database.postgresql_wire import MICROS_2000

DAYS_2000 = 10_957
"""2000-01-01 in days since 1970."""
_INT32_MAX, _INT32_MIN = 2**31 - 1, -(2**31)
_INT64_MAX, _INT64_MIN = 2**63 - 1, -(2**63)
_DATE = struct.Struct(">i")
_MICROS = struct.Struct(">q")
_NUMERIC = struct.Struct(">hhHH")
_NEGATIVE, _POSITIVE = 0x4000, 0x0000
_GROUP = 10_000


def unscaled_bytes(unscaled: int, size: int | None = None) -> bytes:
    """Avro's bytes of a decimal: two's complement, big-endian, least length or `size` bytes."""
    return unscaled.to_bytes(size or unscaled.bit_length() // 8 + 1, "big", signed=True)


def date_days(raw: bytes) -> int:
    """Days since 1970; infinities are the largest and smallest 32-bit integers."""
    days: int = _DATE.unpack(raw)[0]
    if days in (_INT32_MAX, _INT32_MIN):
        return days
    return _within(days + DAYS_2000, _INT32_MIN, _INT32_MAX)


def days_date(days: int) -> bytes:
    """The inverse of `date_days`."""
    if days in (_INT32_MAX, _INT32_MIN):
        return _DATE.pack(days)
    return _packed(_DATE, days - DAYS_2000)


def stamp_micros(raw: bytes) -> int:
    """Microseconds since 1970; infinities are the largest and smallest 64-bit integers."""
    micros: int = _MICROS.unpack(raw)[0]
    if micros in (_INT64_MAX, _INT64_MIN):
        return micros
    return _within(micros + MICROS_2000, _INT64_MIN, _INT64_MAX)


def micros_stamp(micros: int) -> bytes:
    """The inverse of `stamp_micros`."""
    if micros in (_INT64_MAX, _INT64_MIN):
        return _MICROS.pack(micros)
    return _packed(_MICROS, micros - MICROS_2000)


def time_micros(raw: bytes) -> int:
    """Microseconds since midnight; 24:00:00 is a time."""
    micros: int = _MICROS.unpack(raw)[0]
    return micros


def micros_time(micros: int) -> bytes:
    """The inverse of `time_micros`; the server checks the range."""
    return _packed(_MICROS, micros)


def _within(value: int, low: int, high: int) -> int:
    """`value` if it lies strictly between the infinities."""
    if not low < value < high:
        raise ValueError("date or time is outside what Avro can hold")
    return value


def _packed(form: struct.Struct, value: int) -> bytes:
    try:
        return form.pack(value)
    except (struct.error, TypeError) as exc:
        raise ValueError("date or time is outside what the column can hold") from exc


def checked(unscaled: int, precision: int, size: int | None) -> bytes:
    """An unscaled decimal as Avro bytes, if it has at most `precision` digits."""
    if abs(unscaled) >= 10**precision:
        raise ValueError("decimal has more digits than the schema declares")
    try:
        return unscaled_bytes(unscaled, size)
    except OverflowError as exc:
        raise ValueError("decimal does not fit the schema's fixed size") from exc


def numeric_reader(precision: int, scale: int, size: int | None) -> Callable[[bytes], bytes]:
    """Read a binary numeric as Avro bytes; no digit may be lost, NaN has no place."""

    def read(raw: bytes) -> bytes:
        count, weight, sign, _ = _NUMERIC.unpack_from(raw)
        if sign not in (_POSITIVE, _NEGATIVE):
            raise ValueError("not a finite decimal")
        number = 0
        for place in range(8, 8 + 2 * count, 2):
            number = number * _GROUP + (raw[place] << 8 | raw[place + 1])
        power = (weight - count + 1) * 4 + scale
        if power >= 0:
            number *= 10**power
        else:
            number, rest = divmod(number, 10**-power)
            if rest:
                raise ValueError("decimal has more fraction digits than the schema declares")
        return checked(-number if sign else number, precision, size)

    return read


def numeric_writer(scale: int) -> Callable[[bytes], bytes]:
    """Write Avro bytes as a binary numeric with `scale` fraction digits."""
    shift = 10 ** (-scale % 4)
    fraction = (scale + 3) // 4

    def write(value: bytes) -> bytes:
        unscaled = int.from_bytes(value, "big", signed=True)
        rest = abs(unscaled) * shift
        groups: list[int] = []
        while rest:
            rest, group = divmod(rest, _GROUP)
            groups.append(group)
        sign = _NEGATIVE if unscaled < 0 else _POSITIVE
        try:
            head = _NUMERIC.pack(len(groups), len(groups) - fraction - 1, sign, scale)
        except struct.error as exc:
            raise ValueError("decimal has too many digits") from exc
        return head + b"".join(group.to_bytes(2, "big") for group in reversed(groups))

    return write
