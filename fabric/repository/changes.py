"""What people look at before they sign: roles as they stand, and what the source changes."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tuf.api.metadata import Targets

from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.repository.published import read_published
from fabric.repository.publishing import published_files
from fabric.repository.source import read_files
from fabric.repository.staging import Workspace, read_staged, standings

_LINES_MAX = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file that differs.

    Attributes:
        change: `added`, `changed` or `removed`.
        lines: a unified difference, at most 400 lines.
    """

    path: str
    role: str
    change: str
    lines: Sequence[str]

    def fields(self) -> dict[str, object]:
        """For programs."""
        return {
            "path": self.path,
            "role": self.role,
            "change": self.change,
            "lines": list(self.lines),
        }


def changes(workspace: Workspace) -> list[Change]:
    """Every file in which source and publication differ, by path; raises FabricError."""
    published = read_published(workspace.repository)
    old = published_files(workspace.repository, published)
    new = read_files(workspace.source)
    found = []
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) == new.get(path):
            continue
        kind = "changed" if path in old and path in new else "added" if path in new else "removed"
        with translated():
            role = roles.role_of(path)
        lines = _lines(old.get(path, b""), new.get(path, b""))
        found.append(Change(path=path, role=role, change=kind, lines=lines))
    return found


def show_roles(workspace: Workspace, now: datetime) -> list[dict[str, object]]:
    """Each role with its published version and end, and its staged version and signatures."""
    published, staged = read_published(workspace.repository), read_staged(workspace)
    waiting = {item.role: item for item in standings(workspace, staged)} if staged else {}
    versions: dict[str, int] = {}
    if published.metadata:
        versions = dict(published.verified().versions)
    rows: list[dict[str, object]] = []
    for name in sorted(versions.keys() | waiting.keys()):
        signed = published.root if name == roles.ROOT else published.signed(name, Targets)
        item = waiting.get(name)
        rows.append(
            {
                "role": name,
                "version": versions.get(name),
                "expires": signed.expires if signed and name in versions else None,
                "days_left": (signed.expires - now).days if signed and name in versions else None,
                "staged": item.version if item else None,
                "signed": list(item.signed) if item else [],
                "missing": list(item.missing) if item else [],
            }
        )
    return rows


def _lines(old: bytes, new: bytes) -> list[str]:
    before, after = (data.decode(errors="replace").splitlines() for data in (old, new))
    lines = list(difflib.unified_diff(before, after, "published", "source", lineterm="", n=1))
    return lines[2 : 2 + _LINES_MAX]
