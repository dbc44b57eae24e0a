"""Targets of fabric.policy: YAML, and each file of a policy folder among good ones."""

from collections.abc import Iterator

from fabric.model.errors import PeerError, UsageError
from fabric.policy import strict_yaml
from fabric.policy.load import load
from tests.fakes import policy_files
from tests.fuzz.target import Target

FILES = policy_files.files()
NAMES = sorted(FILES)


def _policy(data: bytes) -> None:
    """The first byte says which file of a good folder the rest stands in for."""
    if data:
        load({**FILES, NAMES[data[0] % len(NAMES)]: data[1:]})


def policies() -> Iterator[bytes]:
    """Every file in its own place."""
    for place, name in enumerate(NAMES):
        yield bytes([place]) + FILES[name]


def documents() -> Iterator[bytes]:
    """Good documents, and those that make parsers large, slow or deep."""
    yield from (FILES[name] for name in NAMES if name.endswith(".yaml"))
    yield b"a: &a [x]\nb: [*a, *a]\n"
    yield b"[" * 60
    yield b"{" * 60
    yield b"? " * 60
    yield b"- " * 60
    yield b"a: 2026-13-45\nb: 0x_\nc: 1:60:99\nd: .inf\ne: !!int 3\nf: 0b12\n=: =\n<<: 1"
    yield b'"\\ud800": "\\x00"\n'
    yield b"n: " + b"9" * 5_000


TARGETS = [
    Target(name="yaml", parse=strict_yaml.read, seeds=documents, families=(PeerError,)),
    Target(name="policy", parse=_policy, seeds=policies, families=(UsageError,)),
]
