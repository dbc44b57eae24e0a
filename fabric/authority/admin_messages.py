"""Bodies of the administrator's requests: canonical CBOR, exact fields, bounded sizes."""

from dataclasses import dataclass
from typing import Self

from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.names import HostId, agency_code, part

_WHY_CHARS_MAX = 500
_BODY_BYTES_MAX = 4_096
_PARTS_MAX = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """Hosts that a decision is about: one, those of a system, or those of an agency."""

    agency: str
    system: str | None = None
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `agency`, `agency/system` or `agency/system/host`; raises Malformed."""
        agency, *rest = text.split("/")
        if len(rest) >= _PARTS_MAX:
            raise Malformed("name must be agency, agency/system or agency/system/host")
        return cls(agency_code(agency), *(part(item) for item in rest))

    def __str__(self) -> str:
        return "/".join(item for item in (self.agency, self.system, self.name) if item is not None)

    def covers(self, host: HostId) -> bool:
        """Whether the decision is about this host."""
        return (
            self.agency == host.agency
            and self.system in (None, host.system)
            and self.name in (None, host.host)
        )

    @property
    def host(self) -> HostId:
        """The one host it names; raises Malformed when it names more."""
        return HostId.parse(str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Hosts, and why something is done to them: printable text for the audit log."""

    who: Scope
    why: str

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: str(self.who), 1: self.why})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        if len(data) > _BODY_BYTES_MAX:
            raise Malformed("message is too long")
        match canonical.decode(data):
            case {0: str() as who, 1: str() as why, **rest} if not rest:
                pass
            case _:
                raise Malformed("message must be {0: who, 1: why}")
        if not 1 <= len(why) <= _WHY_CHARS_MAX or not why.isprintable():
            raise Malformed(f"why must be 1 to {_WHY_CHARS_MAX} printable characters")
        return cls(who=Scope.parse(who), why=why)
