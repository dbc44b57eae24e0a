"""Bodies of the administrator's requests: canonical CBOR, exact fields, bounded sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fabric.attest.members import NoticeKind
from fabric.model import canonical
from fabric.model.errors import Malformed, Reason, UnavailableError
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


def not_done(
    failures: Sequence[UnavailableError], kind: NoticeKind, hosts: int
) -> UnavailableError:
    """What to tell of a decision that is not in force everywhere: is it kept, and who must act.

    Args:
        failures: why a host's notice is not kept, or not published; one at least.
        hosts: how many the decision is about.
    """
    for failure in failures:
        if failure.reason is not Reason.GATEWAY_UNAVAILABLE:
            return UnavailableError(
                failure.reason,
                f"{failure.args[0]}; not every {kind.value} is kept: give it again when that is"
                " mended, nothing is given twice",
            )
    what = f"the {kind.value} is" if hosts == 1 else f"all {hosts} {kind.value}s are"
    return UnavailableError(
        Reason.GATEWAY_UNAVAILABLE,
        f"{what} kept, and published by itself as soon as a gateway answers: bring a gateway back;"
        f" nothing is to be given again. Until then {len(failures)} of {hosts} hosts are trusted by"
        " whoever has not asked the authority itself",
    )


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
