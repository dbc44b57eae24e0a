"""Targets of fabric.policy: YAML, and each file of a policy folder among good ones."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuf.api.metadata import Signed

from fabric.model.errors import PeerError, UsageError
from fabric.policy import strict_yaml
from fabric.policy.signed import verify
from fabric.repository.published import parse
from fabric.repository.roster import Roster, first_roster
from tests.fakes import policy_files
from tests.fakes.policy_repository import Repository, key
from tests.fuzz.target import Target

FILES = policy_files.files()
NAMES = sorted(FILES)


def _policy(data: bytes) -> None:
    """The first byte says which file of a good folder the rest stands in for."""
    if data:
        policy_files.load({**FILES, NAMES[data[0] % len(NAMES)]: data[1:]})


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


def _repository() -> Repository:
    with tempfile.TemporaryDirectory() as folder:
        made = Repository(Path(folder))
        made.build()
    return made


REPOSITORY = _repository()
SIGNED = {name: item.to_bytes() for name, item in REPOSITORY.built.items()}
ROLES = sorted(SIGNED)


def _metadata(data: bytes) -> None:
    """The first byte says which role's metadata the rest stands in for; 255 a second root."""
    metadata = dict(SIGNED)
    root = metadata.pop("root")
    if data[:1] == b"\xff":
        verify((root, data[1:]), metadata)
    elif data:
        metadata["root"] = root
        metadata[ROLES[data[0] % len(ROLES)]] = data[1:]
        verify((metadata.pop("root"),), metadata)


def _signed_metadata(data: bytes) -> None:
    """Metadata that the role's own keys have signed, whoever holds them now."""
    role = ROLES[data[0] % len(ROLES)] if data else "root"
    item = parse(data[1:], Signed)
    try:
        item.signatures.clear()
        for name in REPOSITORY.keys[role]:
            item.sign(key(name), append=True)
        item.to_bytes()
    except Exception:
        return  # nobody could have signed it
    before = dict(REPOSITORY.built)
    try:
        REPOSITORY.built[role] = item
        if role == "snapshot":
            REPOSITORY.rebuild_timestamp()
        elif role not in ("root", "timestamp"):
            REPOSITORY.rebuild_snapshot()
        told = {name: made.to_bytes() for name, made in REPOSITORY.built.items()}
        root = told.pop("root")
        verify((SIGNED["root"], root) if role == "root" else (root,), told)
    finally:
        REPOSITORY.built = before


def metadata() -> Iterator[bytes]:
    """Every role in its own place, and the root twice."""
    for place, name in enumerate(ROLES):
        yield bytes([place]) + SIGNED[name]
    yield b"\xff" + SIGNED["root"]


def _roster() -> bytes:
    """A first roles.yaml."""
    return first_roster(
        {name: key(name).public_key for name in ("an", "binh")},
        {"G01": key("agency-G01").public_key},
        snapshot=key("snapshot").public_key,
        timestamp=key("timestamp").public_key,
    )


TARGETS = [
    Target(name="policy-metadata", parse=_metadata, seeds=metadata, bytes_max=32_768),
    Target(name="signed-metadata", parse=_signed_metadata, seeds=metadata, bytes_max=32_768),
    Target(
        name="policy-roster",
        parse=Roster.parse,
        seeds=lambda: [_roster()],
        families=(UsageError,),
    ),
    Target(name="yaml", parse=strict_yaml.read, seeds=documents, families=(PeerError,)),
    Target(name="policy", parse=_policy, seeds=policies, families=(UsageError,)),
]
