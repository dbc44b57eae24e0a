"""The policy in force: fetched, verified, kept, and never older than it was.

python-tuf's updater looks at the repository and remembers in `state/metadata` what it
has seen, so nothing goes back. What it brings is verified once more by the pure half,
loaded, and kept in one file as the last good copy: a start without the repository goes
by that, and a broken or hostile repository changes nothing.
"""

import hashlib
import logging
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import replace as replace_fields
from pathlib import Path
from urllib.parse import quote

from tuf.api.metadata import Metadata, Targets
from tuf.ngclient import Updater, UpdaterConfig

from fabric import tls
from fabric.config import PolicyConfig
from fabric.model.disk import disk_error
from fabric.model.errors import ConfigInvalid, FabricError, PeerError, Reason, UnavailableError
from fabric.model.limits import (
    POLICY_METADATA_BYTES_MAX,
    POLICY_ROOTS_MAX,
    POLICY_TIMESTAMP_BYTES_MAX,
)
from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.policy.signed import SignedPolicy, delegated, verify
from fabric.policy.types import Policy
from fabric.repository.fetch import FILES, METADATA, Fetcher, FolderFetcher, HttpsFetcher
from fabric.repository.held import Held, keep_copy, read_copy

_log = logging.getLogger(__name__)


class PolicyRepository:
    """The policy in force. Its calls block: run them in a thread. One caller at a time.

    Args:
        anchor: the trusted root metadata, handed over with the software.
        state: folder for what was seen and the last good copy; this process's own.
    """

    def __init__(self, anchor: Path, fetcher: Fetcher, state: Path) -> None:
        self._anchor = _read_anchor(anchor)
        self._fetcher = fetcher
        self._state = state
        self._held: Held | None = None
        self._fetched: dict[str, bytes] = {}
        self.fault: FabricError | None = None
        """Why `state` could not be used at the last look; None when it could."""

    @property
    def policy(self) -> Policy:
        """The policy in force; raises UnavailableError before the first `load`."""
        if self._held is None:
            raise UnavailableError(Reason.NOT_READY, "policy is not loaded yet")
        return self._held.policy

    @property
    def timestamp(self) -> bytes:
        """The timestamp under which the policy is in force; raises as `policy`."""
        _ = self.policy
        assert self._held is not None
        return self._held.metadata[roles.TIMESTAMP]

    def load(self) -> Policy:
        """Take the repository's policy, or the last good copy when it gives none.

        Raises:
            FabricError: as `refresh`, and there is no copy.
        """
        self._held = self._from_copy()
        try:
            self.refresh()
        except FabricError as exc:
            if self._held is None:
                raise
            _log.warning("policy: going by the last good copy: %s", exc)
        return self.policy

    def refresh(self) -> Policy | None:
        """Look at the repository; the policy when it, or its expiry, is new; else None.

        Raises:
            UnavailableError: AUTHORITY_UNAVAILABLE, nobody answers; OVERLOADED, the disk of
                `state` is full or fails.
            DeniedError: POLICY_EXPIRED, what is served has ended.
            PeerError: the repository is not what was signed, or went back.
            UsageError: POLICY_INVALID, it is signed and cannot be used; CONFIG_INVALID,
                `state` cannot be written. Whatever is raised, the policy in force stays.
        """
        try:
            with self._fetcher.session(), translated():
                found = self._look()
        except OSError as exc:
            self.fault = disk_error(exc, self._state) or ConfigInvalid(
                f"policy.state: {self._state} cannot be used ({exc.strerror}); check its mode"
            )
            raise self.fault from exc
        self.fault = None
        if found is None:
            return None
        self._held = found
        keep_copy(self._state, found)
        return found.policy

    def _look(self) -> Held | None:
        self._state.mkdir(parents=True, exist_ok=True, mode=0o700)
        updater = self._updater()
        updater.refresh()
        roots, metadata = self._seen()
        held = self._held
        if (
            held is not None
            and held.roots[-1] == roots[-1]
            and held.metadata[roles.TIMESTAMP] == metadata[roles.TIMESTAMP]
        ):
            return None
        targets: Metadata[Targets] = Metadata.from_bytes(metadata[roles.TARGETS])
        for role in delegated(targets.signed):
            # Looking for a file of the role is what makes the updater fetch and check it.
            updater.get_targetinfo(roles.paths_of(role.name)[0].replace("*", "-"))
            metadata[role.name] = self._seen_role(role.name)
        signed = verify(roots, metadata)
        if held is not None and held.roots[-1] == roots[-1]:
            _check_forward(held.signed, signed)
        if held is not None and _is_renewal(held, metadata):
            policy = replace_fields(held.policy, expires=signed.expires)
            return replace_fields(
                held, roots=roots, metadata=metadata, signed=signed, policy=policy
            )
        return Held.of(roots, metadata, self._files(updater, signed))

    def _updater(self) -> Updater:
        base = self._fetcher.base
        return Updater(
            str(self._state / METADATA),
            f"{base}/{METADATA}/",
            target_base_url=f"{base}/{FILES}/",
            fetcher=self._fetcher,
            config=UpdaterConfig(
                max_root_rotations=POLICY_ROOTS_MAX,
                max_delegations=8,
                root_max_length=POLICY_METADATA_BYTES_MAX,
                timestamp_max_length=POLICY_TIMESTAMP_BYTES_MAX,
                snapshot_max_length=POLICY_METADATA_BYTES_MAX,
                targets_max_length=POLICY_METADATA_BYTES_MAX,
            ),
            bootstrap=self._anchor,
        )

    def _seen(self) -> tuple[list[bytes], dict[str, bytes]]:
        """The roots and top-level roles that the updater has just accepted."""
        first: Metadata[Targets] = Metadata.from_bytes(self._anchor)
        roots, number = [self._anchor], first.signed.version + 1
        history = self._state / METADATA / "root_history"
        current = (self._state / METADATA / "root.json").read_bytes()
        while roots[-1] != current:
            roots.append((history / f"{number}.root.json").read_bytes())
            number += 1
        names = (roles.TIMESTAMP, roles.SNAPSHOT, roles.TARGETS)
        return roots, {name: self._seen_role(name) for name in names}

    def _seen_role(self, name: str) -> bytes:
        return (self._state / METADATA / f"{quote(name, '')}.json").read_bytes()

    def _files(self, updater: Updater, signed: SignedPolicy) -> dict[str, bytes]:
        """Every file that was signed; what we have already is not fetched again.

        A look that fails half way leaves what it fetched to the next one: else a busy
        server would never see a large policy through.
        """
        held = self._held.files if self._held is not None else {}
        have = {_sha256(data): data for data in held.values()} | self._fetched
        wanted = {target.hashes["sha256"]: target for target in signed.files.values()}
        self._fetched = {digest: data for digest, data in have.items() if digest in wanted}
        part = self._state / "target.part"
        for digest in wanted.keys() - self._fetched.keys():
            updater.download_target(wanted[digest], str(part))
            self._fetched[digest] = part.read_bytes()
        part.unlink(missing_ok=True)
        files = {path: self._fetched[t.hashes["sha256"]] for path, t in signed.files.items()}
        self._fetched = {}
        return files

    def _from_copy(self) -> Held | None:
        try:
            return read_copy(self._anchor, self._state)
        except FabricError as exc:
            _log.info("policy: no last good copy: %s", exc)
            return None


def open_repository(config: PolicyConfig, ca: Path) -> PolicyRepository:
    """The repository that a configuration names; nothing is read but the trust anchor.

    Args:
        ca: certificates of the CAs whose servers are trusted, PEM.

    Raises:
        ConfigInvalid: the trust anchor cannot be read.
    """
    return PolicyRepository(config.root, _fetcher(config, ca), config.state)


def fetch_once(config: PolicyConfig, ca: Path) -> Policy:
    """The repository's policy for somebody who keeps nothing; raises as PolicyRepository.load."""
    with tempfile.TemporaryDirectory(prefix="fabric-policy-") as state:
        return PolicyRepository(config.root, _fetcher(config, ca), Path(state)).load()


def _fetcher(config: PolicyConfig, ca: Path) -> Fetcher:
    where = config.repository
    if isinstance(where, Path):
        return FolderFetcher(where)
    context: ssl.SSLContext = tls.client_context(None, None, ca)
    return HttpsFetcher(where, context)


def last_good(config: PolicyConfig) -> Policy:
    """The policy as the process with this configuration last took it, without any network.

    Raises:
        UnavailableError: NOT_READY, it has taken none yet.
        PeerError: the copy is spoilt.
    """
    return read_copy(_read_anchor(config.root), config.state).policy


def _check_forward(held: SignedPolicy, found: SignedPolicy) -> None:
    """Nothing goes back behind the copy, also when the updater's own memory was lost."""
    for name, version in held.versions.items():
        if found.versions.get(name, version) < version:
            raise PeerError(
                Reason.REPLAYED,
                f"policy repository has an older file in it: {name} version"
                f" {found.versions[name]}, {version} was seen",
            )


def _is_renewal(held: Held, metadata: Mapping[str, bytes]) -> bool:
    """Whether only the timestamp is new: the same policy with a later end."""
    names = held.metadata.keys() | metadata.keys()
    changed = {name for name in names if held.metadata.get(name) != metadata.get(name)}
    return changed <= {roles.TIMESTAMP}


def _read_anchor(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(POLICY_METADATA_BYTES_MAX)
    except OSError as exc:
        raise ConfigInvalid(
            f"policy.root: {path} cannot be read ({exc.strerror}); put the trust anchor there,"
            " the 1.root.json that the authority hands out"
        ) from exc


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
