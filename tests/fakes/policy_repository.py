"""A signed policy repository of a test's own, written without the product's writer.

Every step can be done wrongly: another key, an older version, an end in the past, a
file that nobody signed.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from tests.fakes.policy_files import VERSION, files

TOP = ("root", "targets", "snapshot", "timestamp")


@cache
def key(name: str) -> CryptoSigner:
    """A key by name; the same each time, so that worlds can be built twice."""
    del name
    return CryptoSigner.generate_ed25519()


def role_of(path: str) -> str:
    """Which role a file belongs to, said once more."""
    parts = path.split("/")
    if parts[0] in ("approvals", "releases"):
        return parts[0]
    return f"agency-{parts[1]}" if parts[0] in ("datasets", "schemas") else "targets"


def paths_of(role: str) -> list[str]:
    if not role.startswith("agency-"):
        return [f"{role}/*/*/*"]
    code = role.removeprefix("agency-")
    return [f"datasets/{code}/*", f"schemas/{code}/*"]


class Repository:
    """Builds and writes.

    Attributes:
        content: files by path; change them, then `publish`.
        keys: names of the keys that sign a role.
        threshold: signatures that a role needs.
        ends: role to its end, when it is another than `expires`.
        owner: role that lists a path, when it is another than its own.
    """

    def __init__(
        self,
        folder: Path,
        content: Mapping[str, bytes] | None = None,
        *,
        version: int = VERSION,
    ) -> None:
        self.folder = folder
        self.content = dict(content if content is not None else files())
        self.version = version
        self.time = version
        self.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
        two = ["an", "binh"]
        self.keys: dict[str, list[str]] = dict.fromkeys(("root", "targets", "approvals"), two)
        self.keys |= {"releases": two, "snapshot": ["online"], "timestamp": ["online"]}
        for path in self.content:
            role = role_of(path)
            self.keys.setdefault(role, [role])
        self.threshold = {role: len(names) for role, names in self.keys.items()}
        self.signers: dict[str, list[str]] = {}
        self.ends: dict[str, datetime] = {}
        self.owner: dict[str, str] = {}
        self.root_version = 1
        self.built: dict[str, Metadata[Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def anchor(self) -> Path:
        """The trust anchor."""
        return self.folder / "metadata" / "1.root.json"

    @property
    def delegated(self) -> list[str]:
        return sorted(set(self.keys) - set(TOP))

    def publish(self, *, version: int | None = None) -> "Repository":
        """Build everything anew and write it; the first time under the version given."""
        if version is not None:
            self.version = version
        self.build()
        self.write()
        self.version += 1
        self.time += 1
        return self

    def build(self) -> None:
        """Sign every role."""
        self.built = {"root": self._signed("root", self._root())}
        held: dict[str, dict[str, TargetFile]] = {}
        for path, data in self.content.items():
            role = self.owner.get(path, role_of(path))
            held.setdefault(role, {})[path] = TargetFile.from_data(path, data, ["sha256"])
        for role in ("targets", *self.delegated):
            own = self._delegations() if role == "targets" else None
            targets = Targets(
                version=self.version,
                expires=self._end(role),
                targets=held.get(role, {}),
                delegations=own,
            )
            self.built[role] = self._signed(role, targets)
        self.rebuild_snapshot()

    def rebuild_snapshot(self) -> None:
        """Sign snapshot and timestamp over what is built."""
        meta = {
            f"{role}.json": MetaFile.from_data(item.signed.version, item.to_bytes(), ["sha256"])
            for role, item in self.built.items()
            if role not in ("root", "snapshot", "timestamp")
        }
        snapshot = Snapshot(version=self.version, expires=self._end("snapshot"), meta=meta)
        self.built["snapshot"] = self._signed("snapshot", snapshot)
        self.rebuild_timestamp()

    def rebuild_timestamp(self) -> None:
        """Sign the timestamp over the snapshot that is built."""
        snapshot = self.built["snapshot"]
        meta = MetaFile.from_data(snapshot.signed.version, snapshot.to_bytes(), ["sha256"])
        timestamp = Timestamp(version=self.time, expires=self._end("timestamp"), snapshot_meta=meta)
        self.built["timestamp"] = self._signed("timestamp", timestamp)

    def write(self) -> None:
        """Write what is built, and every file under its hash."""
        for role, item in self.built.items():
            version = item.signed.version
            name = "timestamp.json" if role == "timestamp" else f"{version}.{role}.json"
            self.put(f"metadata/{name}", item.to_bytes())
        for path, data in self.content.items():
            target = TargetFile.from_data(path, data, ["sha256"])
            parent, _, name = path.rpartition("/")
            self.put(f"targets/{parent}/{target.hashes['sha256']}.{name}", data)

    def put(self, name: str, data: bytes) -> Path:
        """Write one file of the server, signed or not."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def find(self, path: str) -> Path:
        """Where a file of the policy lies now."""
        target = TargetFile.from_data(path, self.content[path], ["sha256"])
        parent, _, name = path.rpartition("/")
        return self.folder / "targets" / parent / f"{target.hashes['sha256']}.{name}"

    def _root(self) -> Root:
        root = Root(version=self.root_version, expires=self._end("root"), consistent_snapshot=True)
        root.roles = {}
        for role in TOP:
            ids = []
            for name in self.keys[role]:
                public = key(name).public_key
                root.keys[public.keyid] = public
                ids.append(public.keyid)
            root.roles[role] = Role(ids, self.threshold[role])
        return root

    def _delegations(self) -> Delegations:
        keys: dict[str, Any] = {}
        found: dict[str, DelegatedRole] = {}
        for role in self.delegated:
            publics = [key(name).public_key for name in self.keys[role]]
            keys |= {public.keyid: public for public in publics}
            found[role] = DelegatedRole(
                role,
                [public.keyid for public in publics],
                self.threshold[role],
                terminating=True,
                paths=paths_of(role),
            )
        return Delegations(keys, roles=found)

    def _signed(self, role: str, signed: Any) -> Metadata[Any]:
        metadata: Metadata[Any] = Metadata(signed)
        for name in self.signers.get(role, self.keys[role]):
            metadata.sign(key(name), append=True)
        return metadata

    def _end(self, role: str) -> datetime:
        return self.ends.get(role, self.expires)
