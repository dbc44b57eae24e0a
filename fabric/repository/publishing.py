"""From signed staged files to what every part reads: checked whole, then written in order.

Nothing is published that a reader would refuse: the same verification and the same
checks run here first. Files come first, the timestamp last; until it is replaced,
readers see the old policy whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Snapshot, Targets

from fabric.model.errors import ConfigInvalid, Reason, UsageError
from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.policy.history import Cut, cuts
from fabric.policy.load import load
from fabric.policy.review import later, review
from fabric.policy.types import Policy
from fabric.repository.held import Held
from fabric.repository.publish_clock import check_not_ahead, check_not_behind
from fabric.repository.published import (
    Published,
    locked,
    parse,
    read_published,
    read_published_file,
    write_file,
    write_metadata,
    write_timestamp,
)
from fabric.repository.source import read_files
from fabric.repository.staging import Standing, Workspace, stage, standings, wanted
from fabric.repository.timestamp import sign_timestamp


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineKeys:
    """Keys of the roles that sign at publication."""

    snapshot: Signer = field(repr=False)
    timestamp: Signer = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What people must know of the step from one policy to the next.

    Attributes:
        cuts: what of the log it makes unreadable.
        later: what does not count at once, a sentence each.
    """

    cuts: tuple[Cut, ...]
    later: tuple[str, ...]

    @classmethod
    def between(cls, before: Policy | None, after: Policy, now: datetime) -> Self:
        """The step between two policies."""
        return cls(cuts=cuts(before, after, now), later=later(before, after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What was done.

    Attributes:
        version: of the policy now.
        roles: those that are new in it; empty when only the timestamp is.
        expires: when the policy ends unless it is renewed.
        step: what it changes besides.
    """

    version: int
    roles: tuple[str, ...]
    expires: datetime
    step: Step


def publish(
    workspace: Workspace,
    keys: OnlineKeys,
    now: datetime,
    *,
    only: frozenset[str] | None = None,
    clock_is_right: bool = False,
) -> Publication:
    """Publish what is signed.

    Args:
        only: roles to publish, while others still wait for signatures; None is all.
        clock_is_right: the publisher's word, whatever times were signed before.

    Raises:
        UsageError: POLICY_INVALID, a signature is missing (whose is said) or the policy
            would not do; CONFIG_INVALID, a key is not its role's; CLOCK_WENT_BACK or
            FROM_THE_FUTURE, see publish_clock.
        FabricError: the repository is not what it should be.
    """
    with locked(workspace.repository):
        before = read_published(workspace.repository)
        if not clock_is_right:  # first of all: to stage by a wrong clock drops signatures
            check_not_behind(before, now)
        staged = stage(workspace, now)
        _check_signed(standings(workspace, staged), only)
        chosen = {name: item for name, item in staged.items() if only is None or name in only}
        after = _assemble(workspace, before, chosen, keys, now)
        held, step = _check_whole(workspace, before, after, chosen, now)
        if not clock_is_right:
            check_not_ahead(before, chosen, workspace.roster(), now)
        _write(workspace.repository, after, held)
    for name in chosen:
        (workspace.staged / f"{name}.json").unlink(missing_ok=True)
    return Publication(
        version=held.signed.version,
        roles=tuple(chosen),
        expires=held.signed.expires,
        step=step,
    )


def _check_signed(found: list[Standing], only: frozenset[str] | None) -> None:
    unknown = sorted((only or frozenset()) - {item.role for item in found})
    if unknown:
        raise UsageError(Reason.POLICY_INVALID, f"role {unknown[0]} has nothing staged; sign it")
    for item in found:
        if item.missing and (only is None or item.role in only):
            has = ", ".join(item.signed) or "nobody"
            raise UsageError(
                Reason.POLICY_INVALID,
                f"role {item.role} version {item.version} needs {item.threshold} signatures and"
                f" has {has}'s; missing: {', '.join(item.missing)} (fabric policy sign)",
            )


def _assemble(
    workspace: Workspace,
    before: Published,
    chosen: Mapping[str, Metadata[Any]],
    keys: OnlineKeys,
    now: datetime,
) -> Published:
    """The repository as it will be, snapshot and timestamp signed."""
    data = {name: item.to_bytes() for name, item in chosen.items()}
    roots = [*before.roots, *([data.pop(roles.ROOT)] if roles.ROOT in data else [])]
    after = Published(roots=roots, metadata={**before.metadata, **data})
    roster = workspace.roster()
    snapshot = _snapshot(before, after, data, keys.snapshot, now + roster.valid(roles.SNAPSHOT))
    meta = MetaFile.from_data(parse(snapshot, Snapshot).signed.version, snapshot, ["sha256"])
    after = Published(roots=roots, metadata={**after.metadata, roles.SNAPSHOT: snapshot})
    valid_s = roster.valid(roles.TIMESTAMP).total_seconds()
    timestamp = sign_timestamp(after, meta, keys.timestamp, now=now, valid_s=valid_s)
    return Published(roots=roots, metadata={**after.metadata, roles.TIMESTAMP: timestamp})


def _snapshot(
    before: Published,
    after: Published,
    changed: Mapping[str, bytes],
    signer: Signer,
    expires: datetime,
) -> bytes:
    """The snapshot that stands when nothing changed under it, else the next one."""
    root, last = after.root, before.signed(roles.SNAPSHOT, Snapshot)
    if root is None:
        raise UsageError(Reason.POLICY_INVALID, "root was never signed; sign it first")
    allowed = root.roles[roles.SNAPSHOT].keyids
    standing = before.metadata.get(roles.SNAPSHOT)
    if last is not None and standing is not None and not changed:
        signed_by = parse(standing, Snapshot).signatures
        if set(signed_by) & set(allowed):
            return standing
    if signer.public_key.keyid not in allowed:
        raise ConfigInvalid("the snapshot's key is not the one that roles.yaml names for snapshot")
    meta = dict(last.meta) if last is not None else {}
    for name, data in changed.items():
        version = parse(data, Targets).signed.version
        meta[f"{name}.json"] = MetaFile.from_data(version, data, ["sha256"])
    found: Metadata[Snapshot] = Metadata(
        Snapshot(
            version=last.version + 1 if last is not None else 1,
            expires=expires.replace(microsecond=0),
            meta=meta,
        )
    )
    with translated():
        found.sign(signer)
    return found.to_bytes()


def _check_whole(
    workspace: Workspace,
    before: Published,
    after: Published,
    chosen: Mapping[str, Metadata[Any]],
    now: datetime,
) -> tuple[Held, Step]:
    """Everything that a reader checks, and what only a publisher can: the step from before."""
    source = read_files(workspace.source)
    files = published_files(workspace.repository, before)
    for name in chosen.keys() - {roles.ROOT}:
        targets = after.signed(name, Targets)
        files |= {path: source[path] for path in (targets.targets if targets else ())}
    held = Held.of(after.roots, after.metadata, files)
    for name in held.signed.versions:
        signed = after.root if name == roles.ROOT else after.signed(name, Targets)
        if signed is not None and signed.expires <= now:
            raise UsageError(
                Reason.POLICY_INVALID,
                f"role {name} has ended; sign it anew: fabric policy sign --renew",
            )
    in_force = policy_of(workspace.repository, before)
    review(in_force, held.policy, now)
    return held, Step.between(in_force, held.policy, now)


def check_source(workspace: Workspace, now: datetime) -> Policy:
    """Check the source as publication will: documents, roles, and the step from before.

    Raises:
        UsageError: POLICY_INVALID, `<file>: <key>: cause and remedy`.
    """
    published, files = read_published(workspace.repository), read_files(workspace.source)
    before = policy_of(workspace.repository, published)
    version = before.version + 1 if before is not None else 1
    after = load(files, version=version, expires=now)
    review(before, after, now)
    wanted(workspace.roster(), files)
    return after


def step_to(workspace: Workspace, after: Policy, now: datetime) -> Step:
    """The step from what is published to a policy that `check_source` gave."""
    before = policy_of(workspace.repository, read_published(workspace.repository))
    return Step.between(before, after, now)


def published_files(folder: Path, published: Published) -> dict[str, bytes]:
    """Content of every published file."""
    files: dict[str, bytes] = {}
    if published.metadata:
        for target in published.verified().files.values():
            files |= read_published_file(folder, target)
    return files


def policy_of(folder: Path, published: Published) -> Policy | None:
    """The published policy; None when there is none yet."""
    if not published.metadata:
        return None
    files = published_files(folder, published)
    return Held.of(published.roots, published.metadata, files).policy


def _write(folder: Path, after: Published, held: Held) -> None:
    for path, target in held.signed.files.items():
        write_file(folder, target, held.files[path])
    for name, version in held.signed.versions.items():
        if name not in (roles.ROOT, roles.TIMESTAMP):
            write_metadata(folder, name, version, after.metadata[name])
    write_metadata(folder, roles.ROOT, held.signed.versions[roles.ROOT], after.roots[-1])
    write_timestamp(folder, after.metadata[roles.TIMESTAMP])
