"""Avro decimals (two's complement bytes of an unscaled integer) as SQLite text and back."""

from collections.abc import Callable
from decimal import Context, Decimal, Inexact, InvalidOperation

_EXACT = Context(prec=10_000)
"""More digits than any declared precision, so that nothing is rounded on the way."""


def unscaled_bytes(unscaled: int, size: int | None = None) -> bytes:
    """Two's complement, big-endian, of least length or of `size` bytes (OverflowError)."""
    return unscaled.to_bytes(size or unscaled.bit_length() // 8 + 1, "big", signed=True)


def decimal_writer(scale: int) -> Callable[[bytes], str]:
    """To canonical text, for example `-12.50`."""

    def write(value: bytes) -> str:
        unscaled = int.from_bytes(value, "big", signed=True)
        return format(Decimal(unscaled).scaleb(-scale, _EXACT), "f")

    return write


def decimal_reader(
    scale: int, size: int | None, *, precision: int
) -> Callable[[str | int | float], bytes]:
    """From text, integer or real.

    Raises ValueError or ArithmeticError when digits would be lost, or there are more than
    `precision`: of 1e999990 before an integer is made of it, which costs half a minute.
    """
    declared = Context(prec=precision, traps=[Inexact, InvalidOperation])
    unit = Decimal((0, (1,), -scale))

    def read(value: str | int | float) -> bytes:
        if type(value) not in (str, int, float):
            raise ValueError
        number = Decimal(repr(value) if isinstance(value, float) else value)
        fitting = number.quantize(unit, context=declared)
        return unscaled_bytes(int(fitting.scaleb(scale, declared)), size)

    return read
