"""The chain from the trust anchor to each file, without network and clock."""

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from fabric.model.errors import FabricError, PeerError, Reason
from fabric.policy.signed import SignedPolicy, verify
from tests.fakes import policy_repository
from tests.fakes.policy_files import files
from tests.fakes.policy_repository import Repository, key


def built(folder: Path, change: Callable[[Repository], Any] = lambda _: None) -> Repository:
    made = Repository(folder)
    change(made)
    made.build()
    return made


def looked(made: Repository, *, roots: tuple[bytes, ...] | None = None) -> SignedPolicy:
    metadata = {name: item.to_bytes() for name, item in made.built.items()}
    root = metadata.pop("root")
    return verify(roots or (root,), metadata)


def reason(made: Repository) -> Reason:
    with pytest.raises(PeerError) as caught:
        looked(made)
    return caught.value.reason


def test_everything_that_was_signed_comes_out(tmp_path: Path) -> None:
    found = looked(built(tmp_path))
    assert found.version == 7
    assert set(found.files) == set(files())
    assert found.versions["agency-G01"] == 7
    assert found.take("levels.yaml", files()["levels.yaml"]) == files()["levels.yaml"]


def test_other_bytes_than_the_signed_ones_are_not_taken(tmp_path: Path) -> None:
    found = looked(built(tmp_path))
    with pytest.raises(PeerError) as caught:
        found.take("levels.yaml", b"x")
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_what_persons_must_renew_is_told_without_the_timestamp(tmp_path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ends = {"timestamp": now + timedelta(days=1), "approvals": now + timedelta(days=2)}
    found = looked(built(tmp_path, lambda r: r.ends.update(ends)))
    assert (found.expires, found.renew_by) == (ends["timestamp"], ends["approvals"])


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "agency-G01"])
def test_the_end_is_that_of_the_first_role_that_ends(tmp_path: Path, role: str) -> None:
    """MUST-14.7."""
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    assert looked(built(tmp_path, lambda r: r.ends.update({role: end}))).expires == end


@pytest.mark.parametrize(
    "role", ["root", "timestamp", "snapshot", "targets", "approvals", "releases", "agency-G01"]
)
def test_wrong_key_in_any_role_breaks_the_chain(tmp_path: Path, role: str) -> None:
    made = built(tmp_path, lambda r: r.signers.update({role: ["mallory", "mary"]}))
    assert reason(made) is Reason.BAD_SIGNATURE


def test_role_that_is_missing_is_named(tmp_path: Path) -> None:
    made = built(tmp_path)
    del made.built["approvals"]
    assert reason(made) is Reason.POLICY_INVALID


def test_top_role_that_is_missing_is_malformed(tmp_path: Path) -> None:
    made = built(tmp_path)
    del made.built["snapshot"]
    assert reason(made) is Reason.MALFORMED


def test_snapshot_other_than_the_timestamps_is_refused(tmp_path: Path) -> None:
    made = built(tmp_path)
    timestamp = made.built["timestamp"]
    made.version = 8
    made.rebuild_snapshot()
    made.built["timestamp"] = timestamp
    assert reason(made) is Reason.BAD_SIGNATURE


def test_delegation_of_other_paths_is_refused(tmp_path: Path) -> None:
    """MUST-14.3."""
    made = built(tmp_path)
    delegations = made.built["targets"].signed.delegations
    delegations.roles["agency-G01"].paths = ["datasets/*/*"]
    made.built["targets"] = made._signed("targets", made.built["targets"].signed)
    made.rebuild_snapshot()
    assert reason(made) is Reason.POLICY_INVALID


def test_target_without_the_hash_that_we_check_is_refused(tmp_path: Path) -> None:
    made = built(tmp_path)
    target = made.built["targets"].signed.targets["levels.yaml"]
    target.hashes = {"sha512": "00" * 64}
    made.built["targets"] = made._signed("targets", made.built["targets"].signed)
    made.rebuild_snapshot()
    assert reason(made) is Reason.TOO_LARGE


@pytest.mark.parametrize("role", ["timestamp", "agency-G01"])
def test_key_of_another_kind_may_sign_no_role(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """MUST-14.5."""
    name = "online" if role == "timestamp" else role
    other = CryptoSigner(rsa.generate_private_key(65537, 2048))
    keys = {name: other}
    monkeypatch.setattr(policy_repository, "key", lambda n: keys.get(n) or key(n))
    assert reason(built(tmp_path)) is Reason.POLICY_INVALID


def test_roots_must_follow_each_other(tmp_path: Path) -> None:
    made = built(tmp_path)
    first = made.built["root"].to_bytes()
    made.root_version = 3
    made.build()
    with pytest.raises(PeerError) as caught:
        looked(made, roots=(first, made.built["root"].to_bytes()))
    assert caught.value.reason is Reason.REPLAYED


@given(data=st.binary(max_size=300))
def test_garbage_raises_nothing_but_our_errors(data: bytes) -> None:
    with pytest.raises(FabricError):
        verify((data,), {"timestamp": data})


_VALUE = st.sampled_from([None, True, -1, 2**70, 1.5, "", "x", [], {}, [[]], {"a": {}}])


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    if not isinstance(value, dict | list):
        return found
    for at, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found += [(value, at), *_places(inner)]
    return found


@settings(max_examples=150)
@given(data=st.data())
def test_metadata_with_one_value_changed_raises_nothing_but_our_errors(
    good: dict[str, bytes], data: st.DataObject
) -> None:
    metadata = dict(good)
    name = data.draw(st.sampled_from(sorted(metadata)))
    document = json.loads(metadata[name])
    holder, at = data.draw(st.sampled_from(_places(document)))
    holder[at] = data.draw(_VALUE)
    metadata[name] = json.dumps(document).encode()
    root = metadata.pop("root")
    with contextlib.suppress(FabricError):
        verify((root,), metadata)


@pytest.fixture(scope="module", name="good")
def _good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    made = built(tmp_path_factory.mktemp("signed"))
    return {name: item.to_bytes() for name, item in made.built.items()}
