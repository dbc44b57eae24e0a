"""What a fuzz target is: a parser of foreign bytes, its seeds, and the errors it may raise."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fabric.model.errors import FabricError, PeerError

BYTES_MAX = 16_384


@dataclass(frozen=True, kw_only=True)
class Target:
    """One parser.

    Attributes:
        name: of the target, its corpus and its findings: `[a-z0-9-]+`.
        parse: takes any bytes; also checks what must hold of a value that it returns, such
            as that it is written back as the same bytes, with `assert`.
        seeds: inputs to begin with; good ones, and bad ones that come far.
        families: what it may raise, and nothing else.
        bytes_max: longest input that is tried.
    """

    name: str
    parse: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    families: tuple[type[FabricError], ...] = (PeerError,)
    bytes_max: int = BYTES_MAX

    def run(self, data: bytes) -> None:
        """Parse `data`; anything that is raised out of here is a finding."""
        try:
            self.parse(data)
        except self.families:
            return


def cut(data: bytes) -> tuple[bytes, bytes]:
    """Two inputs from one: the first byte says how long the first is."""
    size = 1 + data[0] if data else 0
    return data[1:size], data[size:]


def join(first: bytes, second: bytes) -> bytes:
    """Undo `cut`; the first input has at most 255 bytes."""
    return len(first).to_bytes() + first + second
