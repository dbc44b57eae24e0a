"""From the bytes of a TUF repository to the files that were signed, or to one refusal. Pure.

Fetching and freshness are python-tuf's; this is the same trust once more, without
network and clock: the chain from the trust anchor to every file, and the rules of
`roles`. It reads the last good copy at a start without network, and is what `publish`
holds its own work against before anyone sees it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from tuf.api.exceptions import BadVersionNumberError, RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Metadata,
    Role,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fabric.model.errors import PeerError, Reason
from fabric.model.limits import (
    POLICY_BYTES_MAX,
    POLICY_FILE_BYTES_MAX,
    POLICY_FILES_MAX,
    POLICY_ROLES_MAX,
)
from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.policy.material import material

_S = TypeVar("_S", Root, Timestamp, Snapshot, Targets)
_HASH = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPolicy:
    """What a repository's metadata says, all of it verified.

    Attributes:
        version: of the snapshot: rises whenever anything signed changes.
        expires: when the first of the roles ends.
        renew_by: the same without the timestamp, which no person signs.
        files: what must be found under each path.
        versions: of every role.
    """

    version: int
    expires: datetime
    renew_by: datetime
    files: Mapping[str, TargetFile]
    versions: Mapping[str, int]

    def take(self, path: str, data: bytes) -> bytes:
        """The file's bytes, when they are the signed ones; raises PeerError BAD_SIGNATURE."""
        with translated():
            self.files[path].verify_length_and_hashes(data)
        return data


def verify(roots: Sequence[bytes], metadata: Mapping[str, bytes]) -> SignedPolicy:
    """Follow the signatures from the trust anchor down; whoever asks looks at `expires`.

    Args:
        roots: the trust anchor, then every later root in order.
        metadata: by role name, without root.

    Raises:
        PeerError: BAD_SIGNATURE, REPLAYED, MALFORMED, TOO_LARGE or POLICY_INVALID.
    """
    with translated():
        root = _root(roots)
        timestamp = _top(root, Timestamp, metadata)
        snapshot = _top(root, Snapshot, metadata)
        meta = timestamp.snapshot_meta
        meta.verify_length_and_hashes(metadata[roles.SNAPSHOT])
        _same_version(roles.SNAPSHOT, meta.version, snapshot.version)
        targets = _named(roles.TARGETS, root, snapshot, metadata)
        signed: dict[str, Signed] = {
            roles.ROOT: root,
            roles.TIMESTAMP: timestamp,
            roles.SNAPSHOT: snapshot,
            roles.TARGETS: targets,
        }
        holders = {roles.TARGETS: targets}
        for role in delegated(targets):
            holders[role.name] = _named(role.name, targets, snapshot, metadata)
        signed |= holders
        return SignedPolicy(
            version=snapshot.version,
            expires=min(item.expires for item in signed.values()),
            renew_by=min(item.expires for item in signed.values() if item is not timestamp),
            files=_files(holders),
            versions={name: item.version for name, item in signed.items()},
        )


def delegated(targets: Targets) -> list[DelegatedRole]:
    """The roles that the authority delegates to, each of the shape that the format allows.

    Raises:
        PeerError: POLICY_INVALID.
    """
    delegations = targets.delegations
    if delegations is None:
        return []
    if delegations.roles is None or len(delegations.roles) > POLICY_ROLES_MAX:
        raise PeerError(Reason.POLICY_INVALID, "policy delegates in a way that is not allowed")
    for name, role in delegations.roles.items():
        if tuple(role.paths or ()) != roles.paths_of(name):
            raise PeerError(Reason.POLICY_INVALID, f"role {name} is given other paths than its own")
        _check_keys(name, role, targets)
    return [*delegations.roles.values()]


def _root(roots: Sequence[bytes]) -> Root:
    root = _parse(Root, roots[0])
    root.signed.verify_delegate(roles.ROOT, root.signed_bytes, root.signatures)
    for data in roots[1:]:
        later = _parse(Root, data)
        for holder in (root.signed, later.signed):
            holder.verify_delegate(roles.ROOT, later.signed_bytes, later.signatures)
        _same_version(roles.ROOT, root.signed.version + 1, later.signed.version)
        root = later
    for name, role in root.signed.roles.items():
        _check_keys(name, role, root.signed)
    return root.signed


def _check_keys(name: str, role: Role, holder: Root | Targets) -> None:
    for key in role.keyids:
        scheme = holder.get_key(key).scheme
        if scheme not in roles.SCHEMES:
            raise PeerError(Reason.POLICY_INVALID, f"role {name} has a key of scheme {scheme[:40]}")
    publics = {key: material(holder.get_key(key)) for key in role.keyids}
    roles.check_persons(name, role.threshold, publics)


def _top(root: Root, kind: type[_S], metadata: Mapping[str, bytes]) -> _S:
    found = _parse(kind, metadata[kind.type])
    root.verify_delegate(kind.type, found.signed_bytes, found.signatures)
    return found.signed


def _named(
    name: str, holder: Root | Targets, snapshot: Snapshot, metadata: Mapping[str, bytes]
) -> Targets:
    meta = snapshot.meta.get(f"{name}.json")
    if meta is None or name not in metadata:
        raise RepositoryError(f"role {name} is delegated to and missing")
    meta.verify_length_and_hashes(metadata[name])
    found = _parse(Targets, metadata[name])
    holder.verify_delegate(name, found.signed_bytes, found.signatures)
    _same_version(name, meta.version, found.signed.version)
    return found.signed


def _files(holders: Mapping[str, Targets]) -> dict[str, TargetFile]:
    files: dict[str, TargetFile] = {}
    for role, targets in holders.items():
        for path, file in targets.targets.items():
            roles.check_signer(path, role)
            if _HASH not in file.hashes or file.length > POLICY_FILE_BYTES_MAX:
                raise PeerError(Reason.TOO_LARGE, f"{path} is too large or has no {_HASH}")
            files[path] = file
    total = sum(file.length for file in files.values())
    if len(files) > POLICY_FILES_MAX or total > POLICY_BYTES_MAX:
        raise PeerError(Reason.TOO_LARGE, "policy has too many files or bytes")
    return files


def _parse(kind: type[_S], data: bytes) -> Metadata[_S]:
    found: Metadata[_S] = Metadata[_S].from_bytes(data)
    if found.signed.type != kind.type:
        raise RepositoryError(f"{kind.type} is wanted, {found.signed.type} was found")
    return found


def _same_version(name: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise BadVersionNumberError(f"{name} is version {found}, not {wanted}")
