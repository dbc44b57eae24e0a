"""Fields of Kafka's protocol as bytes: what `cursor` reads, written. Pure.

Spec: Kafka protocol, KIP-482: flexible versions have compact lengths, one more than they say.
"""


def uvarint(value: int) -> bytes:
    """An unsigned varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def write_count(value: int, flexible: bool) -> bytes:
    """How many items follow; -1 for an array that is null."""
    return uvarint(value + 1) if flexible else value.to_bytes(4, signed=True)


def write_text(value: str | None, flexible: bool) -> bytes:
    """A text in UTF-8 with its length in bytes."""
    data = b"" if value is None else value.encode()
    size = -1 if value is None else len(data)
    return (uvarint(size + 1) if flexible else size.to_bytes(2, signed=True)) + data
