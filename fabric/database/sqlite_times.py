"""Avro dates and times (integers) as ISO 8601 text, the way SQLite's own functions write it."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # wall-clock arithmetic, zone handled apart
_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?")
_MICRO = timedelta(microseconds=1)

UNITS = {
    "date": 0,
    "time-millis": 1_000,
    "time-micros": 1,
    "timestamp-millis": 1_000,
    "timestamp-micros": 1,
    "local-timestamp-millis": 1_000,
    "local-timestamp-micros": 1,
}
"""Microseconds of one unit of each logical type we can read as text."""


def writer(logical: str) -> Callable[[int], str]:
    """Integer to text; the function raises OverflowError or ValueError beyond year 9999."""
    unit = UNITS[logical]
    if logical == "date":
        return lambda days: date.fromordinal(days + _EPOCH_DAY).isoformat()
    if logical.startswith("time-"):
        return lambda value: _clock_text(value * unit)
    return lambda value: (_EPOCH + timedelta(microseconds=value * unit)).isoformat(
        " ", "microseconds"
    )


def reader(logical: str) -> Callable[[int | str], int]:
    """Integer as it is, or text to integer; the function raises ValueError otherwise."""
    unit = UNITS[logical]
    if logical == "date":
        parse = _days
    elif logical.startswith("time-"):
        parse = _clock_micros
    else:
        zoned = logical.startswith("timestamp-")

        def parse(text: str) -> int:
            return _micros(text, zoned)

    def read(value: int | str) -> int:
        if type(value) is int:
            return value
        if type(value) is not str:
            raise ValueError
        number = parse(value)
        if unit and number % unit:
            raise ValueError
        return number // unit if unit else number

    return read


def _days(text: str) -> int:
    return date.fromisoformat(text).toordinal() - _EPOCH_DAY


def _micros(text: str, zoned: bool) -> int:
    """Text without an offset is UTC, SQLite's convention; a local timestamp has none."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is not None:
        if not zoned:
            raise ValueError
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return (moment - _EPOCH) // _MICRO


def _clock_micros(text: str) -> int:
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError
    hours, minutes, seconds, fraction = match.groups()
    micros = int((fraction or "").ljust(6, "0"))
    total = ((int(hours) * 60 + int(minutes)) * 60 + int(seconds or 0)) * 1_000_000 + micros
    if total > 86_400_000_000:  # 24:00:00 is a time in SQL
        raise ValueError
    return total


def _clock_text(micros: int) -> str:
    seconds, fraction = divmod(micros, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02}:{minute:02}:{second:02}.{fraction:06}"
