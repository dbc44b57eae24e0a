"""fabric.database.postgresql_text"""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database import postgresql_text as texts
from fabric.database.postgresql_numbers import unscaled_bytes

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(st.dates())
def test_a_date_is_its_days(day: date) -> None:
    assert texts.read_date(day.isoformat()) == (day - date(1970, 1, 1)).days


def test_dates_that_python_does_not_know_are_read() -> None:
    assert texts.read_date("12345-01-01") == 3_789_391
    assert texts.read_date("0044-03-15 BC") == -735_160
    assert texts.read_date("infinity") == 2**31 - 1
    assert texts.read_date("-infinity") == -(2**31)


@given(st.datetimes())
def test_a_timestamp_is_its_microseconds(moment: datetime) -> None:
    expected = (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    assert texts.read_stamp(moment.isoformat(" ") + "+00") == expected
    assert texts.read_stamp(moment.isoformat(" ")) == expected


def test_a_timestamp_of_another_zone_or_shape_is_refused() -> None:
    for bad in (
        "2024-01-01 00:00:00+07",
        "2024-01-01T00:00:00",
        "",
        "now",
        "294277-01-01 00:00:00",
    ):
        with pytest.raises(ValueError, match=r"parse|outside"):
            texts.read_stamp(bad)
    assert texts.read_stamp("infinity") == 2**63 - 1


def test_the_end_of_the_day_is_a_time() -> None:
    assert texts.read_time("24:00:00") == 86_400_000_000
    assert texts.read_time("00:00:00.5") == 500_000
    with pytest.raises(ValueError, match="time"):
        texts.read_time("noon")


def test_booleans_and_bytes_have_one_form() -> None:
    assert (texts.read_boolean("t"), texts.read_boolean("f")) == (True, False)
    assert texts.read_bytes("\\x00ff") == b"\x00\xff"
    for call, bad in ((texts.read_boolean, "true"), (texts.read_bytes, "abc")):
        with pytest.raises(ValueError, match="not"):
            call(bad)


def test_decimals_keep_every_digit_or_are_refused() -> None:
    read = texts.decimal_text_reader(6, 2, None)
    assert read("-12.5") == unscaled_bytes(-1250)
    assert read("0.00") == unscaled_bytes(0)
    assert read("7.1000") == unscaled_bytes(710)
    for bad in ("1.234", "NaN", "Infinity", "123456", "1e3"):
        with pytest.raises(ValueError, match=r"decimal"):
            read(bad)


def test_arrays_of_one_dimension_are_read() -> None:
    read = texts.array_reader(str, nullable=True)
    assert read("{}") == []
    assert read('{a,NULL,"NULL","b \\"c\\" \\\\","x,y",""}') == [
        "a",
        None,
        "NULL",
        'b "c" \\',
        "x,y",
        "",
    ]
    assert texts.array_reader(int, nullable=False)("{1,-2}") == [1, -2]
    for bad in ("{{1},{2}}", "[0:1]={1,2}", "{1,}", "{1;2", "{1}{2}"):
        with pytest.raises(ValueError, match=r"array|invalid literal"):
            texts.array_reader(int, nullable=True)(bad)
    with pytest.raises(ValueError, match="null"):
        texts.array_reader(int, nullable=False)("{NULL}")
