import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.database.sqlite_decimal import decimal_reader, decimal_writer, unscaled_bytes


@given(st.integers(-(10**40), 10**40), st.integers(0, 20))
def test_text_and_back_is_the_same_number(unscaled: int, scale: int) -> None:
    text = decimal_writer(scale)(unscaled_bytes(unscaled))
    assert decimal_reader(scale, None, precision=62)(text) == unscaled_bytes(unscaled)


@pytest.mark.parametrize(
    ("value", "unscaled"), [("12.5", 1250), (12, 1200), (12.25, 1225), ("-0.01", -1), (-0.0, 0)]
)
def test_text_integer_and_real_are_read(value: str | int | float, unscaled: int) -> None:
    assert decimal_reader(2, None, precision=20)(value) == unscaled_bytes(unscaled)


@pytest.mark.parametrize("value", ["1.005", 0.1 + 0.2, "abc", "NaN", "Infinity", b"1", None, ""])
def test_lost_digits_and_other_things_are_refused(value: object) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        decimal_reader(2, None, precision=20)(value)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        ("999.99", True),
        ("-999.990000", True),
        ("0e999999", True),
        ("1000", False),
        (1000, False),
        (1000.0, False),
        ("1e3", False),
        ("-1e5", False),
    ],
)
def test_more_digits_than_declared_are_refused(value: str | int | float, fits: bool) -> None:
    read = decimal_reader(2, None, precision=5)
    if fits:
        assert read(value) in (unscaled_bytes(99_999), unscaled_bytes(-99_999), unscaled_bytes(0))
    else:
        with pytest.raises((ValueError, ArithmeticError)):
            read(value)


@pytest.mark.parametrize(
    "value",
    ["1e999990", "-1e999990", "1e999999999999999999", "1e-999999", "1." + "0" * 20_000 + "1"],
)
def test_a_short_text_of_a_huge_number_costs_next_to_nothing(value: str) -> None:
    read = decimal_reader(2, None, precision=20)
    began = time.process_time()
    for _ in range(100):
        with pytest.raises((ValueError, ArithmeticError)):
            read(value)
    assert time.process_time() - began < 1


def test_a_fixed_size_is_kept() -> None:
    assert decimal_reader(0, 4, precision=9)("-1") == b"\xff\xff\xff\xff"
    with pytest.raises(OverflowError):
        decimal_reader(0, 1, precision=9)("1000")


def test_text_has_every_digit_of_the_scale() -> None:
    assert decimal_writer(2)(unscaled_bytes(1250)) == "12.50"
    assert decimal_writer(0)(unscaled_bytes(-7)) == "-7"
