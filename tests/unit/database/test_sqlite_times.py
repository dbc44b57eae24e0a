import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database.sqlite_times import UNITS, reader, writer

_RANGES = {
    "date": (-719_162, 2_932_896),
    "time-millis": (0, 86_400_000),
    "time-micros": (0, 86_400_000_000),
    "timestamp-millis": (-62_135_596_800_000, 253_402_300_799_999),
    "local-timestamp-millis": (-62_135_596_800_000, 253_402_300_799_999),
    "timestamp-micros": (-62_135_596_800_000_000, 253_402_300_799_999_999),
    "local-timestamp-micros": (-62_135_596_800_000_000, 253_402_300_799_999_999),
}


def test_every_unit_has_a_range_here() -> None:
    assert set(_RANGES) == set(UNITS)


@given(st.data())
def test_text_and_back_is_the_same_integer(data: st.DataObject) -> None:
    logical = data.draw(st.sampled_from(sorted(_RANGES)))
    low, high = _RANGES[logical]
    value = data.draw(st.integers(low, high))
    assert reader(logical)(writer(logical)(value)) == value
    assert reader(logical)(value) == value


@pytest.mark.parametrize(
    ("logical", "text", "value"),
    [
        ("date", "1970-01-02", 1),
        ("date", "1900-01-01", -25_567),
        ("timestamp-micros", "1970-01-01 00:00:01", 1_000_000),
        ("timestamp-micros", "1970-01-01T02:00:00+02:00", 0),
        ("timestamp-micros", "1970-01-01T00:00:00Z", 0),
        ("timestamp-millis", "1970-01-01 00:00:00.250", 250),
        ("local-timestamp-micros", "1970-01-01 00:00:00.000001", 1),
        ("time-micros", "24:00:00", 86_400_000_000),
        ("time-micros", "00:01", 60_000_000),
    ],
)
def test_what_applications_write_is_understood(logical: str, text: str, value: int) -> None:
    assert reader(logical)(text) == value


@pytest.mark.parametrize(
    ("logical", "value"),
    [
        ("date", "yesterday"),
        ("date", 1.5),
        ("date", None),
        ("date", b"1970-01-01"),
        ("timestamp-millis", "1970-01-01 00:00:00.000001"),
        ("local-timestamp-micros", "1970-01-01 00:00:00+02:00"),
        ("time-micros", "24:00:01"),
        ("time-micros", "1:2"),
        ("timestamp-micros", ""),
    ],
)
def test_what_would_lose_meaning_is_refused(logical: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        reader(logical)(value)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("logical", ["date", "timestamp-micros"])
def test_infinity_has_no_text(logical: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        writer(logical)(2**63 - 1)
