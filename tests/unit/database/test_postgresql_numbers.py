"""fabric.database.postgresql_numbers"""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database import postgresql_numbers as numbers

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)


def test_the_epochs_are_apart_by_thirty_years() -> None:
    assert numbers.date_days(struct.pack(">i", 0)) == 10_957
    assert numbers.stamp_micros(struct.pack(">q", 0)) == 946_684_800_000_000


def test_infinities_stay_the_ends_of_their_range() -> None:
    for value in (2**31 - 1, -(2**31)):
        assert numbers.date_days(numbers.days_date(value)) == value
    for value in (2**63 - 1, -(2**63)):
        assert numbers.stamp_micros(numbers.micros_stamp(value)) == value


def test_a_timestamp_that_avro_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        numbers.stamp_micros(struct.pack(">q", 2**63 - 2))
    with pytest.raises(ValueError, match="outside"):
        numbers.days_date(2**40)


@given(st.integers(-(2**30), 2**30))
def test_dates_go_there_and_back(days: int) -> None:
    assert numbers.date_days(numbers.days_date(days)) == days


@given(st.integers(-(2**62), 2**62))
def test_timestamps_go_there_and_back(micros: int) -> None:
    assert numbers.stamp_micros(numbers.micros_stamp(micros)) == micros
    assert numbers.time_micros(numbers.micros_time(micros)) == micros


@given(st.integers(-(10**38) + 1, 10**38 - 1), st.integers(0, 20))
def test_decimals_go_there_and_back(unscaled: int, scale: int) -> None:
    raw = numbers.numeric_writer(scale)(numbers.unscaled_bytes(unscaled))
    assert numbers.numeric_reader(38, scale, None)(raw) == numbers.unscaled_bytes(unscaled)
    assert int.from_bytes(numbers.numeric_reader(38, scale, 17)(raw), "big", signed=True) == (
        unscaled
    )


def test_a_decimal_that_would_lose_digits_is_refused() -> None:
    raw = numbers.numeric_writer(3)(numbers.unscaled_bytes(1_234))
    with pytest.raises(ValueError, match="fraction"):
        numbers.numeric_reader(10, 2, None)(raw)
    with pytest.raises(ValueError, match="digits"):
        numbers.numeric_reader(3, 3, None)(raw)
    with pytest.raises(ValueError, match="fixed size"):
        numbers.numeric_reader(10, 3, 1)(raw)
    nan = struct.pack(">hhHH", 0, 0, 0xC000, 0)
    with pytest.raises(ValueError, match="finite"):
        numbers.numeric_reader(10, 2, None)(nan)
