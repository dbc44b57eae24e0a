"""Bodies of the administrator's requests: canonical CBOR, exact fields, bounded sizes."""

from dataclasses import dataclass
from typing import Self

from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.names import HostId

_WHY_CHARS_MAX = 500
_BODY_BYTES_MAX = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A host, and why something is done to it: printable text for the audit log."""

    host: HostId
    why: str

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: str(self.host), 1: self.why})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        if len(data) > _BODY_BYTES_MAX:
            raise Malformed("message is too long")
        match canonical.decode(data):
            case {0: str() as host, 1: str() as why, **rest} if not rest:
                pass
            case _:
                raise Malformed("message must be {0: host, 1: why}")
        if not 1 <= len(why) <= _WHY_CHARS_MAX or not why.isprintable():
            raise Malformed(f"why must be 1 to {_WHY_CHARS_MAX} printable characters")
        return cls(host=HostId.parse(host), why=why)
