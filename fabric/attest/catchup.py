"""What the authority tells whoever asks for notices: the records themselves, bounded in number.

`GET /notices/<number>` of its HTTPS interface. Spec: docs/format.md section 9.
"""

from dataclasses import dataclass
from typing import Self

from fabric.attest import fields
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import (
    MEMBER_BYTES_MAX,
    NOTICES_ANSWER_ITEMS_MAX,
    NOTICES_PER_ANSWER_MAX,
    REQUEST_BYTES_MAX,
)

_KEY_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Catchup:
    """Records of the members topic, (key, value) each: notices in their order, then a tick.

    Nobody is trusted for having sent it: a view takes each record by its signature.
    """

    records: tuple[tuple[bytes, bytes], ...]

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: [list(record) for record in self.records]})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        if len(data) > REQUEST_BYTES_MAX:
            raise Malformed("message is too long")
        content = canonical.decode(data, items_max=NOTICES_ANSWER_ITEMS_MAX)
        value = fields.exact_map(content, frozenset((0,)), "message")
        items = fields.array(value[0], NOTICES_PER_ANSWER_MAX + 1, "records")
        return cls(records=tuple(_record(item) for item in items))


def _record(value: canonical.Value) -> tuple[bytes, bytes]:
    pair = fields.array(value, 2, "record")
    if len(pair) != 2:
        raise Malformed("record is not a key and a value")
    key = fields.blob(pair[0], "record's key", _KEY_BYTES_MAX)
    return key, fields.blob(pair[1], "record's value", MEMBER_BYTES_MAX)
