"""The last good copy: verified again whenever it is read, and as none when it is spoilt."""

import json
import shutil
from pathlib import Path

import pytest

from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.repository.held import keep_copy, read_copy
from tests.fakes.policy_repository import Repository


class Part:
    """A process that has taken the policy once."""

    def __init__(self, folder: Path) -> None:
        self.served = Repository(folder / "served").publish()
        self.anchor = folder / "root.json"
        self.anchor.write_bytes(self.served.anchor.read_bytes())
        self.state = folder / "state"
        self.started().load()

    @property
    def copy(self) -> Path:
        return self.state / "policy.copy"

    def started(self) -> PolicyRepository:
        return PolicyRepository(self.anchor, FolderFetcher(self.served.folder), self.state)


@pytest.fixture
def part(tmp_path: Path) -> Part:
    return Part(tmp_path)


@pytest.mark.parametrize(
    "spoilt", [b"", b"{", b"[]", b'{"roots": 5}', b'{"roots": ["%"], "metadata": {}, "files": {}}']
)
def test_spoilt_copy_is_as_none(part: Part, spoilt: bytes) -> None:
    part.copy.write_bytes(spoilt)
    assert part.started().load().version == 7
    part.copy.write_bytes(spoilt)
    part.served.folder.rename(part.served.folder.with_name("gone"))
    with pytest.raises(UnavailableError):
        part.started().load()


@pytest.mark.parametrize("place", ["files", "metadata"])
def test_copy_with_one_thing_changed_is_refused(part: Part, place: str) -> None:
    text = json.loads(part.copy.read_bytes())
    first, second, *_ = text[place]
    text[place][first] = text[place][second]
    part.copy.write_text(json.dumps(text))
    with pytest.raises(PeerError) as caught:
        read_copy(part.anchor.read_bytes(), part.state)
    assert caught.value.reason in {Reason.BAD_SIGNATURE, Reason.POLICY_INVALID}


def test_nothing_goes_back_behind_the_copy_though_the_updaters_memory_is_lost(part: Part) -> None:
    part.served.publish()
    again = part.started()
    assert again.load().version == 8
    Repository(part.served.folder, version=7).publish()
    shutil.rmtree(part.state / "metadata")
    with pytest.raises(PeerError) as caught:
        again.refresh()
    assert caught.value.reason is Reason.REPLAYED
    assert part.started().load().version == 8


def test_copy_of_another_trust_anchor_is_not_taken(part: Part) -> None:
    with pytest.raises(UnavailableError, match="another trust anchor"):
        read_copy(b"another", part.state)


def test_copy_is_its_owners_alone(part: Part) -> None:
    assert part.copy.stat().st_mode & 0o777 == 0o600


def test_copy_is_written_as_it_is_read(part: Part, tmp_path: Path) -> None:
    held = read_copy(part.anchor.read_bytes(), part.state)
    (tmp_path / "other").mkdir()
    keep_copy(tmp_path / "other", held)
    assert read_copy(part.anchor.read_bytes(), tmp_path / "other") == held


def test_copy_that_cannot_be_written_is_said_and_holds_nothing_back(
    part: Part, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep_copy(tmp_path / "nowhere", read_copy(part.anchor.read_bytes(), part.state))
    assert "cannot be written" in caplog.text
