"""Primitives of the Kafka protocol, cut by hand out of foreign bytes.

kio's native decoder believes array lengths and aborts the whole process on a large one, so
nothing that a client or a broker sent reaches it; here every length is held against what is
left. Reads bytes only. Errors: Malformed. Spec: Kafka protocol, KIP-482 (flexible versions).
"""

import struct
from typing import Any

from fabric.model.errors import Malformed
from fabric.model.limits import TAGS_MAX


class Cursor:
    """Reads protocol primitives one after the other; raises Malformed at the end of the data."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    @property
    def rest(self) -> int:
        """Bytes that are left."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        start = self._at
        if not 0 <= size <= len(self._data) - start:
            raise Malformed("message ends too early")
        self._at = start + size
        return self._data[start : self._at]

    def fields(self, form: struct.Struct) -> tuple[Any, ...]:
        """Fields of fixed width, all at once: one by one they take several times as long."""
        start = self._at
        if form.size > len(self._data) - start:
            raise Malformed("message ends too early")
        self._at = start + form.size
        return form.unpack_from(self._data, start)

    def integer(self, size: int) -> int:
        """A signed big-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), signed=True)

    def boolean(self) -> bool:
        """One byte, 0 or 1."""
        value = self.integer(1)
        if value not in (0, 1):
            raise Malformed("boolean is neither 0 nor 1")
        return value == 1

    def uvarint(self) -> int:
        """An unsigned varint of at most 32 bits."""
        at, data = self._at, self._data
        if at < len(data) and data[at] < 0x80:  # as almost all are
            self._at = at + 1
            return data[at]
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32:
                    break
                return value
        raise Malformed("varint is too long")

    def length(self, size: int, *, flexible: bool) -> int:
        """A length: uvarint(n + 1) in flexible versions, else `size` bytes; -1 is null."""
        value = self.uvarint() - 1 if flexible else self.integer(size)
        if not -1 <= value <= self.rest:
            raise Malformed("length is beyond the message")
        return value

    def text(self, *, flexible: bool) -> str | None:
        """A nullable string."""
        size = self.length(2, flexible=flexible)
        if size < 0:
            return None
        try:
            return self.take(size).decode()
        except UnicodeDecodeError as exc:
            raise Malformed("string is not UTF-8") from exc

    def octets(self, *, flexible: bool) -> bytes | None:
        """Nullable bytes or records."""
        size = self.length(4, flexible=flexible)
        return None if size < 0 else self.take(size)

    def count(self, *, flexible: bool, item_bytes_min: int) -> int:
        """Number of items of an array, -1 for null; as many as the message can hold."""
        value = self.uvarint() - 1 if flexible else self.integer(4)
        if not -1 <= value <= self.rest // item_bytes_min:
            raise Malformed("array is longer than the message")
        return value

    def tags(self, *, flexible: bool) -> None:
        """Skip the tagged fields of a flexible version."""
        if not flexible:
            return
        count = self.uvarint()
        if count > TAGS_MAX:
            raise Malformed("message has too many tagged fields")
        for _ in range(count):
            self.uvarint()
            self.take(self.uvarint())

    def end(self) -> None:
        """Demand that nothing is left."""
        if self.rest:
            raise Malformed("message has bytes after its end")
