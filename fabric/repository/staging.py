"""From what people wrote to what they sign: one staged metadata file for each changed role.

A staged file collects signatures, one person and one machine at a time. It always says
what the source says: when the source changes, it is made anew and loses them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote, unquote

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from fabric.model.errors import ConfigInvalid
from fabric.policy import roles
from fabric.policy.documents import invalid
from fabric.policy.faults import translated
from fabric.repository import roster as rosters
from fabric.repository.held import replace
from fabric.repository.published import Published, parse, read_published
from fabric.repository.roster import Roster
from fabric.repository.source import read_files

_R = TypeVar("_R")
_CLOCKS_APART = timedelta(days=1)
"""How far the clocks of two signers may differ before one drops the other's signature."""
Role: TypeAlias = "Root | Targets"
Staged: TypeAlias = "dict[str, Metadata[Any]]"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder in which a policy is written, signed and published.

    `source/` holds the documents, `roles.yaml` the keys, `staged/` what collects
    signatures, `repository/` what was published.
    """

    folder: Path

    @property
    def source(self) -> Path:
        """The documents."""
        return self.folder / "source"

    @property
    def staged(self) -> Path:
        """What waits for signatures."""
        return self.folder / "staged"

    @property
    def repository(self) -> Path:
        """What was published."""
        return self.folder / "repository"

    def roster(self) -> Roster:
        """Keys and roles; raises UsageError."""
        path = self.folder / rosters.FILE
        try:
            return Roster.parse(path.read_bytes())
        except OSError as exc:
            raise ConfigInvalid(
                f"{path}: cannot be read ({exc.strerror}); begin with: fabric policy init"
            ) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far one staged role is.

    Attributes:
        signed: names of those whose signatures it has.
        missing: names of those who have not signed; empty when enough have.
        threshold: signatures it needs.
    """

    role: str
    version: int
    signed: Sequence[str]
    missing: Sequence[str]
    threshold: int


def stage(workspace: Workspace, now: datetime, *, renewed: frozenset[str] = frozenset()) -> Staged:
    """Bring `staged/` in step with the source; what is equal keeps its signatures.

    Args:
        renewed: roles to sign anew although nothing in them changed.

    Raises:
        UsageError: the source or roles.yaml is wrong.
    """
    roster, files = workspace.roster(), read_files(workspace.source)
    published, before = read_published(workspace.repository), read_staged(workspace)
    staged: Staged = {}
    roles_wanted = wanted(roster, files)
    for name, role in roles_wanted.items():
        last: Role | None = published.root
        if name != roles.ROOT:
            last = published.signed(name, Targets)
        role.version = last.version + 1 if last is not None else 1
        role.expires = (now + roster.valid(name)).replace(microsecond=0)
        waits = before.get(name)
        if (
            waits is not None
            and _says(waits.signed, role)
            and waits.signed.expires <= role.expires + _CLOCKS_APART
        ):
            staged[name] = waits
        elif (
            last is None
            or _content(last) != _content(role)
            or name in renewed
            or not _holds(name, published, roles_wanted)
        ):
            staged[name] = Metadata(role)
    _write(workspace, staged)
    return staged


def _holds(name: str, published: Published, roles_wanted: Mapping[str, Role]) -> bool:
    """Whether the published signatures still do: a role's keys may be others now."""
    if name == roles.ROOT:
        return True
    holder = roles_wanted[roles.ROOT if name == roles.TARGETS else roles.TARGETS]
    found = parse(published.metadata[name], Targets)
    with translated():
        return bool(holder.get_verification_result(name, found.signed_bytes, found.signatures))


def _says(signed: Role, wanted: Role) -> bool:
    """Whether what is staged says what is wanted, so that its signatures stay good."""
    return {**signed.to_dict(), "expires": ""} == {**wanted.to_dict(), "expires": ""}


def wanted(roster: Roster, files: Mapping[str, bytes]) -> dict[str, Role]:
    """Every role as the source has it, without version and end."""
    with translated():
        by_role = roles.split(files)
    root = Root(consistent_snapshot=True)
    roster.fill(root)
    delegations = roster.delegations()
    known = {roles.TARGETS, *(delegations.roles or {})}
    for role, paths in by_role.items():
        if role not in known:
            raise invalid(rosters.FILE, "roles", f"{role} is missing; {paths[0]} belongs to it")
    found: dict[str, Role] = {roles.ROOT: root}
    for role in sorted(known):
        targets = {p: TargetFile.from_data(p, files[p], ["sha256"]) for p in by_role.get(role, ())}
        own = delegations if role == roles.TARGETS else None
        found[role] = Targets(targets=targets, delegations=own)
    return found


def sign(
    workspace: Workspace, signer: Signer, now: datetime, *, renew: bool = False
) -> list[Standing]:
    """Add one key's signature to every staged role that it may sign; those roles.

    Args:
        renew: also roles of this key in which nothing changed.

    Raises:
        UsageError: the source is wrong, or the key signs nothing here.
    """
    keyid = signer.public_key.keyid
    roster = workspace.roster()
    mine = frozenset(
        name
        for name, role in roster.roles.items()
        if keyid in {roster.keys[key].keyid for key in role.keys}
    )
    published = read_published(workspace.repository)
    if published.root is not None and keyid in published.root.roles[roles.ROOT].keyids:
        mine |= {roles.ROOT}
    if not mine:
        raise ConfigInvalid("this key has no role in roles.yaml; use another, or add it there")
    renewed = mine - {roles.SNAPSHOT, roles.TIMESTAMP} if renew else frozenset()
    staged = stage(workspace, now, renewed=renewed)
    for name in sorted(mine & staged.keys()):
        with translated():
            staged[name].sign(signer, append=True)
    _write(workspace, staged)
    return [item for item in standings(workspace, staged) if item.role in mine]


def standings(workspace: Workspace, staged: Staged) -> list[Standing]:
    """How far each staged role is; raises UsageError."""
    roster, published = workspace.roster(), read_published(workspace.repository)
    root: Root = staged[roles.ROOT].signed if roles.ROOT in staged else _there(published.root)
    found = []
    for name, metadata in sorted(staged.items()):
        payload, signatures = metadata.signed_bytes, metadata.signatures
        with translated():
            if name == roles.ROOT:
                both = root.get_root_verification_result(published.root, payload, signatures)
                is_done, has, lacks = bool(both), both.signed, both.unsigned
                threshold = root.roles[roles.ROOT].threshold
            else:
                holder = root if name == roles.TARGETS else _targets(staged, published)
                one = holder.get_verification_result(name, payload, signatures)
                is_done, has, lacks, threshold = bool(one), one.signed, one.unsigned, one.threshold
        found.append(
            Standing(
                role=name,
                version=metadata.signed.version,
                signed=sorted(map(roster.name_of, has)),
                missing=[] if is_done else sorted(map(roster.name_of, lacks)),
                threshold=threshold,
            )
        )
    return found


def read_staged(workspace: Workspace) -> Staged:
    """What waits for signatures; raises PeerError MALFORMED."""
    if not workspace.staged.is_dir():
        return {}
    return {
        unquote(path.stem): parse(path.read_bytes(), Root)
        for path in sorted(workspace.staged.glob("*.json"))
    }


def _targets(staged: Staged, published: Published) -> Targets:
    if roles.TARGETS in staged:
        found: Targets = staged[roles.TARGETS].signed
        return found
    return _there(published.signed(roles.TARGETS, Targets))


def _there(role: _R | None) -> _R:
    assert role is not None, "what is not staged is published"
    return role


def _write(workspace: Workspace, staged: Staged) -> None:
    try:
        workspace.staged.mkdir(parents=True, exist_ok=True)
        for path in workspace.staged.glob("*.json"):
            if unquote(path.stem) not in staged:
                path.unlink()
        for name, metadata in staged.items():
            replace(workspace.staged / f"{quote(name, '')}.json", metadata.to_bytes(), mode=0o644)
    except OSError as exc:
        raise ConfigInvalid(f"{workspace.staged}: cannot be written ({exc.strerror})") from exc


def _content(signed: Any) -> dict[str, Any]:
    """What a role says, without its version and end."""
    fields: dict[str, Any] = signed.to_dict()
    return {k: v for k, v in fields.items() if k not in ("version", "expires", "spec_version")}
