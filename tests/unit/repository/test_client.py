"""Whoever serves the repository can withhold it and nothing else; every attack has a name."""

import errno
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from tuf.ngclient import Updater

from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    UnavailableError,
    UsageError,
)
from fabric.model.limits import POLICY_METADATA_BYTES_MAX
from fabric.policy.types import Policy
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from tests.fakes.policy_files import TOPIC, documents, files
from tests.fakes.policy_repository import Repository, key

RESIDENTS = "datasets/G01/residents.yaml"


class Part:
    """One process that reads the repository, and the hand on its server."""

    def __init__(self, folder: Path) -> None:
        self.served = Repository(folder / "served").publish()
        self.anchor = folder / "root.json"
        self.anchor.write_bytes(self.served.anchor.read_bytes())
        self.state = folder / "state"
        self.reader = self.started()

    def started(self) -> PolicyRepository:
        return PolicyRepository(self.anchor, FolderFetcher(self.served.folder), self.state)

    def change(self, name: str = "levels.yaml", **fields: object) -> None:
        """Change one document of what will be published next."""
        document = yaml.safe_load(self.served.content[name])
        (document[0] if isinstance(document, list) else document).update(fields)
        self.served.content[name] = yaml.safe_dump(document).encode()

    def refused(self) -> FabricError:
        """What the next look at the repository says; the policy in force must stay."""
        before = self.reader.policy
        with pytest.raises(FabricError) as caught:
            self.reader.refresh()
        assert self.reader.policy is before
        return caught.value


@pytest.fixture
def part(tmp_path: Path) -> Part:
    made = Part(tmp_path)
    made.reader.load()
    return made


def test_policy_is_fetched_verified_and_loaded(part: Part) -> None:
    assert part.reader.policy.version == 7
    assert set(part.reader.policy.datasets) >= {TOPIC}
    assert part.reader.policy.expires == part.served.expires
    assert part.reader.refresh() is None


def test_before_the_first_load_there_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="not loaded yet"):
        _ = Part(tmp_path).reader.policy


def test_change_takes_effect_with_a_new_version(part: Part) -> None:
    part.change(citation="another law")
    part.served.publish()
    found = part.reader.refresh()
    assert found is not None
    assert (found.version, found.rules["public"].citation) == (8, "another law")
    assert part.reader.policy is found


def test_renewed_timestamp_is_the_same_version_with_a_later_end(part: Part) -> None:
    """MUST-14.7."""
    part.served.ends["timestamp"] = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    part.served.publish()
    first = part.reader.refresh()
    assert first is not None
    assert first.expires == part.served.ends["timestamp"]
    part.served.ends["timestamp"] += timedelta(days=1)
    part.served.rebuild_timestamp()
    part.served.write()
    renewed = part.reader.refresh()
    assert renewed is not None
    assert (renewed.version, renewed.datasets) == (first.version, first.datasets)
    assert renewed.expires == first.expires + timedelta(days=1)


def test_only_files_that_changed_are_fetched_again(part: Part) -> None:
    part.change(citation="another law")
    part.served.publish()
    part.served.find(RESIDENTS).unlink()
    assert part.reader.refresh() is not None


def test_look_that_fails_half_way_leaves_what_it_fetched_to_the_next(
    part: Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fetch = FolderFetcher._fetch

    def counted(self: FolderFetcher, url: str) -> object:
        if "/targets/" in url:
            asked.append(url)
        return fetch(self, url)

    monkeypatch.setattr(FolderFetcher, "_fetch", counted)
    for name in ("levels.yaml", RESIDENTS, "agencies/G01.yaml"):
        part.served.content[name] += b"\n"
    part.served.publish()
    missing = part.served.find(RESIDENTS)
    kept = missing.read_bytes()
    missing.unlink()
    assert isinstance(part.refused(), UnavailableError)
    missing.write_bytes(kept)
    assert part.reader.refresh() is not None
    assert len(set(asked)) == 3
    assert len(asked) == 4


# What a server can do


def test_rollback_to_an_older_policy_is_refused(part: Part) -> None:
    """MUST-14.1."""
    old = (part.served.folder / "metadata" / "timestamp.json").read_bytes()
    part.served.publish()
    part.reader.refresh()
    part.served.put("metadata/timestamp.json", old)
    assert part.refused().reason is Reason.REPLAYED
    part.reader = part.started()
    assert part.reader.load().version == 8


def test_snapshot_that_goes_back_under_a_new_timestamp_is_refused(part: Part) -> None:
    part.served.publish()
    part.reader.refresh()
    part.served.time, part.served.version = 20, 7
    part.served.build()
    part.served.write()
    assert part.refused().reason is Reason.REPLAYED


def test_freeze_ends_with_the_timestamp(part: Part) -> None:
    """MUST-14.1."""
    part.served.ends["timestamp"] = datetime.now(UTC) - timedelta(seconds=1)
    part.served.publish()
    error = part.refused()
    assert isinstance(error, DeniedError)
    assert error.reason is Reason.POLICY_EXPIRED
    assert "timestamp" in str(error)


def test_mix_of_an_old_role_and_a_new_snapshot_is_refused(part: Part) -> None:
    """MUST-14.1."""
    old = (part.served.folder / "metadata" / "7.agency-G01.json").read_bytes()
    part.change(RESIDENTS, history="from_join")
    part.served.publish()
    part.served.put("metadata/8.agency-G01.json", old)
    assert part.refused().reason in {Reason.REPLAYED, Reason.BAD_SIGNATURE}


def test_old_role_is_refused_even_when_the_snapshot_names_no_hash(part: Part) -> None:
    old = part.served.built["approvals"]
    part.served.publish()
    part.served.built["approvals"] = old
    for meta in (part.served.built["snapshot"].signed.meta["approvals.json"],):
        meta.hashes = meta.length = None
    snapshot = part.served._signed("snapshot", part.served.built["snapshot"].signed)
    part.served.built["snapshot"] = snapshot
    part.served.time += 1
    part.served.rebuild_timestamp()
    part.served.write()
    part.served.put("metadata/8.approvals.json", old.to_bytes())
    assert part.refused().reason is Reason.REPLAYED


@pytest.mark.parametrize(
    "role", ["root", "timestamp", "snapshot", "targets", "approvals", "agency-G01"]
)
def test_wrong_key_is_refused_in_every_role(part: Part, role: str) -> None:
    """MUST-14.1."""
    part.served.signers[role] = ["an", "mallory"] if role in ("root", "targets") else ["mallory"]
    part.served.root_version = 2
    part.served.publish()
    assert part.refused().reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("role", ["targets", "approvals"])
def test_one_signature_is_not_two(part: Part, role: str) -> None:
    part.served.signers[role] = ["an"]
    part.served.publish()
    assert part.refused().reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("role", ["root", "snapshot", "targets", "approvals", "agency-G01"])
def test_expired_role_is_refused_by_name(part: Part, role: str) -> None:
    part.served.ends[role] = datetime.now(UTC) - timedelta(seconds=1)
    part.served.root_version = 2
    part.served.publish()
    error = part.refused()
    assert error.reason is Reason.POLICY_EXPIRED
    assert role in str(error)


def test_dataset_without_a_delegation_is_refused(part: Part) -> None:
    part.served.content["datasets/G03/more.yaml"] = part.served.content[RESIDENTS]
    part.served.owner["datasets/G03/more.yaml"] = "targets"
    part.served.publish()
    error = part.refused()
    assert error.reason is Reason.POLICY_INVALID
    assert "G03/more.yaml is signed by targets; only agency-G03 may sign it" in str(error)


def test_delegated_role_that_the_snapshot_does_not_know_is_refused(part: Part) -> None:
    part.served.keys["agency-G02"], part.served.threshold["agency-G02"] = ["agency-G02"], 1
    part.served.build()
    del part.served.built["agency-G02"]
    part.served.rebuild_snapshot()
    part.served.version += 1
    part.served.write()
    part.served.time += 1
    part.served.rebuild_timestamp()
    part.served.write()
    assert part.refused().reason in {Reason.POLICY_INVALID, Reason.REPLAYED}


def test_dataset_signed_by_another_agency_is_refused_by_name(part: Part) -> None:
    part.served.keys["agency-G02"], part.served.threshold["agency-G02"] = ["agency-G02"], 1
    part.served.owner[RESIDENTS] = "agency-G02"
    part.served.publish()
    error = part.refused()
    assert isinstance(error, PeerError)
    assert f"{RESIDENTS} is signed by agency-G02; only agency-G01 may sign it" in str(error)


def test_approval_signed_by_an_agency_is_refused(part: Part) -> None:
    name = next(name for name in part.served.content if name.startswith("approvals/"))
    part.served.owner[name] = "agency-G01"
    part.served.publish()
    assert "only approvals may sign it" in str(part.refused())


def test_file_with_other_bytes_is_refused(part: Part) -> None:
    part.change(citation="another law")
    part.served.publish()
    path = part.served.find("levels.yaml")
    path.write_bytes(path.read_bytes().replace(b"another law", b"antoher law"))
    assert part.refused().reason is Reason.BAD_SIGNATURE


def test_file_that_is_longer_than_signed_is_refused(part: Part) -> None:
    part.change(citation="another law")
    part.served.publish()
    path = part.served.find("levels.yaml")
    path.write_bytes(path.read_bytes() + b" " * 100)
    assert part.refused().reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "name", ["2.root.json", "timestamp.json", "8.snapshot.json", "8.targets.json"]
)
def test_endless_metadata_is_cut_off(part: Part, name: str) -> None:
    part.served.publish()
    with part.served.put(f"metadata/{name}", b"").open("wb") as file:
        os.truncate(file.fileno(), 40 * POLICY_METADATA_BYTES_MAX)  # sparse: costs nothing
    assert part.refused().reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"null",
        b'{"signed": {}, "signatures": []}',
        b'{"signed": {"_type": "timestamp"}, "signatures": 5}',
        b"[" * 100_000,
        b'{"signed": ' * 2_000,
    ],
    ids=range(9),
)
@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json", "8.targets.json"])
def test_garbage_never_leaks_another_error(part: Part, name: str, data: bytes) -> None:
    part.served.publish()
    part.served.put(f"metadata/{name}", data)
    # An empty file is not the one whose hash the snapshot names.
    assert part.refused().reason in {Reason.MALFORMED, Reason.BAD_SIGNATURE, Reason.TOO_LARGE}


@pytest.mark.parametrize(
    "edit",
    [
        lambda signed: signed.pop("meta"),
        lambda signed: signed.update(version=-1),
        lambda signed: signed.update(version="8"),
        lambda signed: signed.update(expires="never"),
        lambda signed: signed.update(spec_version="9"),
        lambda signed: signed.update(_type="root"),
        lambda signed: signed.update(meta=[]),
    ],
    ids=range(7),
)
def test_metadata_of_a_wrong_shape_is_malformed(part: Part, edit: Callable[[dict], None]) -> None:
    part.served.publish()
    path = part.served.folder / "metadata" / "timestamp.json"
    document = json.loads(path.read_bytes())
    edit(document["signed"])
    path.write_bytes(json.dumps(document).encode())
    assert part.refused().reason in {Reason.MALFORMED, Reason.BAD_SIGNATURE}


def test_server_that_is_gone_leaves_the_policy(part: Part) -> None:
    part.served.folder.rename(part.served.folder.with_name("gone"))
    error = part.refused()
    assert isinstance(error, UnavailableError)
    assert error.reason is Reason.AUTHORITY_UNAVAILABLE


def test_signed_policy_that_does_not_load_is_refused_and_told_each_time(part: Part) -> None:
    part.change(coding="zstd")
    part.served.publish()
    for _ in range(2):
        error = part.refused()
        assert isinstance(error, UsageError)
        assert "public: is open" in str(error)


# Root rotation


def test_root_signed_by_the_old_and_the_new_keys_is_followed(part: Part) -> None:
    part.served.root_version = 2
    part.served.keys["root"] = part.served.keys["targets"] = ["binh", "chi"]
    part.served.signers["root"] = ["an", "binh", "chi"]
    part.served.publish()
    assert part.reader.refresh() is not None
    part.served.folder.rename(part.served.folder.with_name("gone"))
    again = part.started()
    assert again.load().version == 8


def test_new_root_that_the_old_keys_did_not_sign_is_refused(part: Part) -> None:
    part.served.root_version = 2
    part.served.keys["root"] = ["binh", "chi"]
    part.served.publish()
    assert part.refused().reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("role", ["root", "targets", "approvals"])
def test_role_of_two_persons_that_one_can_speak_for_is_refused(part: Part, role: str) -> None:
    part.served.root_version = 2
    part.served.threshold[role] = 1
    part.served.publish()
    assert f"role {role} must ask for two signatures" in str(part.refused())


def test_one_key_under_two_ids_is_not_two_persons(part: Part) -> None:
    """MUST-14.4."""
    twin = key("twin of an")
    twin._private_key = key("an")._private_key
    twin._public_key.keyval = key("an").public_key.keyval
    part.served.keys["approvals"] = ["an", "twin of an"]
    part.served.publish()
    assert "lists one key under two names" in str(part.refused())


def test_role_whose_threshold_one_key_meets_in_two_spellings_is_refused(part: Part) -> None:
    twin = key("another twin of an")
    twin._private_key = key("an")._private_key
    twin._public_key.keyval = {"public": key("an").public_key.keyval["public"].upper()}
    part.served.keys["approvals"] = ["an", "another twin of an"]
    part.served.publish()
    assert "canonical" in str(part.refused())


# The last good copy


def test_start_without_a_server_goes_by_the_copy(part: Part) -> None:
    gone = part.served.folder.rename(part.served.folder.with_name("gone"))
    again = part.started()
    assert again.load().version == 7
    gone.rename(part.served.folder)
    part.served.publish()
    found = again.refresh()
    assert isinstance(found, Policy)


def test_copy_holds_when_the_updater_stopped_half_way(part: Part) -> None:
    part.change(citation="another law")
    part.served.publish()
    part.served.find("levels.yaml").unlink()
    assert isinstance(part.refused(), UnavailableError)
    again = part.started()
    assert again.load().version == 7
    part.served.write()
    found = again.refresh()
    assert found is not None
    assert found.version == 8


def test_expired_copy_still_loads_so_that_the_process_can_say_so(part: Part) -> None:
    part.served.ends["timestamp"] = datetime.now(UTC) + timedelta(milliseconds=1500)
    part.served.publish()
    policy = part.reader.refresh()
    assert policy is not None
    part.served.folder.rename(part.served.folder.with_name("gone"))
    assert part.started().load().expires == policy.expires


def test_anchor_that_is_missing_is_a_setting_to_put_right(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"policy\.root"):
        PolicyRepository(tmp_path / "none", FolderFetcher(tmp_path), tmp_path)


def test_state_that_cannot_be_written_is_a_setting_to_put_right(part: Part) -> None:
    part.state = part.anchor / "below-a-file"
    with pytest.raises(ConfigInvalid, match=r"policy\.state"):
        part.started().load()


def test_documents_of_the_fake_are_those_that_load() -> None:
    assert set(documents()) < set(files())


def on_a_disk(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whatever is written to the state's folder fails so."""

    def failing(_self: Updater) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Updater, "refresh", failing)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "overloaded: no room on the disk of {}; make room"),
        (errno.EIO, "overloaded: input/output error on the disk of {} (EIO); see the kernel's log"),
        (
            errno.EACCES,
            "config_invalid: policy.state: {} cannot be used (Permission denied); check its mode",
        ),
    ],
)
def test_a_state_that_cannot_be_written_is_remembered_until_a_look_succeeds(
    part: Part, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    assert part.reader.fault is None
    on_a_disk(monkeypatch, number)
    error = part.refused()
    assert str(error) == said.format(part.state)
    assert part.reader.fault is error
    monkeypatch.undo()
    assert part.reader.refresh() is None
    assert part.reader.fault is None


def test_what_the_repository_does_is_no_fault_of_the_state(part: Part) -> None:
    part.served.folder.rename(part.served.folder.with_name("gone"))
    part.refused()
    assert part.reader.fault is None
