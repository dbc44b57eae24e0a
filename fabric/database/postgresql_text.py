"""PostgreSQL's text forms (DateStyle ISO, TimeZone UTC, bytea hex) as Avro physical values.

Pure; the way for types that have no binary form or none that we read. Every function
raises ValueError for text it does not know and for values Avro cannot hold.
"""

import re
from collections.abc import Callable
from datetime import date

from fabric.database.postgresql_numbers import checked
from fabric.model.change import Value

_INT32_MAX, _INT32_MIN = 2**31 - 1, -(2**31)
_INT64_MAX, _INT64_MIN = 2**63 - 1, -(2**63)
_DAY_US = 86_400_000_000
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097
"""The calendar repeats after 400 years."""
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_DATE = re.compile(r"(\d{4,7})-(\d\d)-(\d\d)( BC)?")
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?")
_STAMP = re.compile(r"(\d{4,7}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,6})?)(\+00)?( BC)?")
_NUMERIC = re.compile(r"(-?)(\d*)(?:\.(\d*))?")


def read_boolean(text: str) -> bool:
    """`t` or `f`."""
    if text not in ("t", "f"):
        raise ValueError("not a boolean")
    return text == "t"


def read_bytes(text: str) -> bytes:
    """`\\x` and hexadecimal digits."""
    if not text.startswith("\\x"):
        raise ValueError("bytes are not in hexadecimal form")
    return bytes.fromhex(text[2:])


def read_date(text: str) -> int:
    """Days since 1970; see postgresql_numbers.date_days for infinities."""
    if text == "infinity":
        return _INT32_MAX
    if text == "-infinity":
        return _INT32_MIN
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError("date does not parse")
    year = 1 - int(match[1]) if match[4] else int(match[1])
    cycles, year = divmod(year - 1, _CYCLE_YEARS)
    days = date(year + 1, int(match[2]), int(match[3])).toordinal() - _EPOCH_ORDINAL
    return days + cycles * _CYCLE_DAYS


def read_time(text: str) -> int:
    """Microseconds since midnight."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("time does not parse")
    seconds = (int(match[1]) * 60 + int(match[2])) * 60 + int(match[3])
    return seconds * 1_000_000 + int((match[4] or "0").ljust(6, "0"))


def read_stamp(text: str) -> int:
    """Microseconds since 1970; infinities are the largest and smallest 64-bit integers."""
    if text == "infinity":
        return _INT64_MAX
    if text == "-infinity":
        return _INT64_MIN
    match = _STAMP.fullmatch(text)
    if match is None:
        raise ValueError("timestamp does not parse")
    micros = read_date(match[1] + (match[4] or "")) * _DAY_US + read_time(match[2])
    if not _INT64_MIN < micros < _INT64_MAX:
        raise ValueError("date or time is outside what Avro can hold")
    return micros


def decimal_text_reader(precision: int, scale: int, size: int | None) -> Callable[[str], bytes]:
    """Read a numeric's text as Avro bytes; no digit may be lost, NaN has no place."""

    def read(text: str) -> bytes:
        match = _NUMERIC.fullmatch(text)
        if match is None:
            raise ValueError("not a finite decimal")
        fraction = match[3] or ""
        if fraction[scale:].strip("0"):
            raise ValueError("decimal has more fraction digits than the schema declares")
        unscaled = int((match[2] or "0") + fraction[:scale].ljust(scale, "0"))
        return checked(-unscaled if match[1] else unscaled, precision, size)

    return read


def array_reader(element: Callable[[str], Value], nullable: bool) -> Callable[[str], Value]:
    """Read a one-dimensional array's text; elements may be null only if `nullable`."""

    def read(text: str) -> Value:
        values: list[Value] = []
        for item in _elements(text):
            if item is None and not nullable:
                raise ValueError("array holds a null that the schema does not allow")
            values.append(None if item is None else element(item))
        return values

    return read


_ELEMENT = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}\\]+)', re.DOTALL)


def _elements(text: str) -> list[str | None]:
    if text == "{}":
        return []
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("array has bounds of its own")
    items: list[str | None] = []
    at, end = 1, len(text) - 1
    while True:
        match = _ELEMENT.match(text, at, end)
        if match is None:
            raise ValueError("array is not of one dimension")
        if match[2] is None:
            items.append(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL))
        else:
            items.append(None if match[2] == "NULL" else match[2])
        at = match.end()
        if at == end:
            return items
        if text[at] != ",":
            raise ValueError("array does not parse")
        at += 1
