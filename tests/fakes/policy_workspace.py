"""A workspace whose policy loads, two persons' keys and an agency's."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from fabric.repository.publishing import OnlineKeys, publish
from fabric.repository.roster import FILE, first_roster
from fabric.repository.staging import Workspace, sign
from tests.fakes.policy_files import documents, files
from tests.fakes.policy_repository import key

SIGNERS = ("an", "binh", "agency-G01")
ONLINE = OnlineKeys(snapshot=key("snapshot"), timestamp=key("timestamp"))


def live_files() -> dict[str, bytes]:
    """Documents whose approvals have not ended."""
    changed = documents()
    for name, document in changed.items():
        if name.startswith("approvals/"):
            document["not_after"] = "2099-01-01T00:00:00Z"
    return files(changed)


def make_workspace(folder: Path, content: Mapping[str, bytes] | None = None) -> Workspace:
    """Write source and roles."""
    workspace = Workspace(folder / "workspace")
    for name, data in (live_files() if content is None else content).items():
        path = workspace.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    persons = {name: key(name).public_key for name in ("an", "binh")}
    agencies = {"G01": key("agency-G01").public_key}
    text = first_roster(
        persons,
        agencies,
        snapshot=key("snapshot").public_key,
        timestamp=key("timestamp").public_key,
    )
    (workspace.folder / FILE).write_bytes(text)
    return workspace


def publish_all(workspace: Workspace, now: datetime) -> Workspace:
    """Everybody signs, and it is published."""
    for name in SIGNERS:
        sign(workspace, key(name), now)
    publish(workspace, ONLINE, now)
    return workspace
