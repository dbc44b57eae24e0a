"""A folder loads or is refused with file, key and remedy."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from fabric.model.errors import Reason, UsageError
from fabric.model.limits import POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX
from fabric.model.names import HostId, Origin
from fabric.policy.types import EventStep
from tests.fakes.policy_files import (
    OPEN_TOPIC,
    SENDER,
    TOPIC,
    certificate,
    documents,
    files,
    load,
)


def test_good_folder_loads_whole() -> None:
    policy = load(files())
    assert policy.version == 7
    assert policy.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert policy.levels.names == ("public", "internal", "confidential", "secret", "top-secret")
    assert set(policy.datasets) == {TOPIC, OPEN_TOPIC}
    assert policy.agencies["G02"] == "Health"
    dataset = policy.datasets[TOPIC]
    assert dataset.producers == (Origin("G01", "registry", "registry"),)
    assert dataset.salt == b"\x5a" * 32
    assert dataset.schema.key == ("id",)
    approval = policy.approvals[HostId.parse(SENDER)]
    assert (approval.pcrs, approval.digests) == ((0, 1, 7), (b"\x02" * 32,))
    assert approval.ak_name is None
    assert policy.trust.verifier_keys[1] == (-49, b"\x04" * 1952)
    assert policy.trust.ca_pem == certificate()
    assert policy.rules["secret"].evidence == frozenset({"tpm2"})


def test_former_keys_of_the_verifier_are_those_of_the_document() -> None:
    changed = documents()
    assert load(files(changed)).trust.former_keys == ()
    changed["policy.yaml"]["trust"]["verifier"]["former"] = [{"alg": -19, "public": "05" * 32}]
    assert load(files(changed)).trust.former_keys == ((-19, b"\x05" * 32),)


def test_yaml_timestamps_and_texts_say_the_same_time() -> None:
    changed = files()
    name = f"approvals/{SENDER}.yaml"
    changed[name] = changed[name].replace(b"'2026-10-01T00:00:00Z'", b"2026-10-01T07:00:00+07:00")
    assert b"+07:00" in changed[name]
    found = load(changed).approvals[HostId.parse(SENDER)]
    assert found.not_after == datetime(2026, 10, 1, tzinfo=UTC)


def test_expired_approval_still_loads_because_old_records_are_verified_with_it() -> None:
    changed = documents()
    changed[f"approvals/{SENDER}.yaml"].update(
        not_before="2000-01-01T00:00:00Z", not_after="2000-01-02T00:00:00Z"
    )
    assert load(files(changed)).approvals[HostId.parse(SENDER)].not_after.year == 2000


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("policy.yaml", "policy: policy.yaml"),
        ("levels.yaml", "policy: levels.yaml"),
        ("suites.yaml", "policy: suites.yaml"),
        ("trust/ca.pem", "policy.yaml: trust.ca: trust/ca.pem"),
        ("trust/ek-ca.pem", "policy.yaml: trust.ek_ca: trust/ek-ca.pem"),
        ("schemas/G01/residents.avsc", "datasets/G01/residents.yaml: schema: schemas/G01/"),
    ],
)
def test_missing_file_is_named(name: str, key: str) -> None:
    changed = files()
    del changed[name]
    with pytest.raises(UsageError, match="is missing; add the file") as caught:
        load(changed)
    assert caught.value.reason is Reason.POLICY_INVALID
    assert str(caught.value.args[0]).startswith(key)


@pytest.mark.parametrize(
    "name",
    [
        "notes.yaml",
        "agencies/g01.yaml",
        "agencies/a/G01.yaml",
        "approvals/G01/registry.yaml",
        "approvals/g01/registry/a.yaml",
        "datasets/residents.yaml",
        "datasets/G01/Residents.yaml",
        "datasets/G01/a/b.yaml",
        "levels.yml",
    ],
)
def test_yaml_file_in_a_place_that_means_nothing_is_refused(name: str) -> None:
    changed = files()
    like = "approvals/" + SENDER + ".yaml" if name.startswith("approvals") else None
    like = "datasets/G01/residents.yaml" if name.startswith("datasets") else like
    changed[name] = changed[like or "agencies/G01.yaml"]
    with pytest.raises(UsageError, match=r"^policy_invalid|path") as caught:
        load(changed)
    assert str(caught.value.args[0]).startswith(f"{name}: path")


def test_file_that_is_no_yaml_and_that_nobody_names_does_not_matter() -> None:
    assert load({**files(), "README.md": b"\xff"}).version == 7


@pytest.mark.parametrize("data", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_file_without_certificates_is_no_anchor(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"trust.ek_ca: trust/ek-ca.pem holds no certificates"):
        load({**files(), "trust/ek-ca.pem": data})


def test_file_too_large_is_refused() -> None:
    with pytest.raises(UsageError, match="big.pem: size"):
        load({**files(), "big.pem": b"x" * (POLICY_FILE_BYTES_MAX + 1)})


def test_too_many_files_are_refused() -> None:
    many = {f"x{n}.pem": b"" for n in range(POLICY_FILES_MAX)}
    with pytest.raises(UsageError, match="remove old ones"):
        load({**files(), **many})


@pytest.mark.parametrize(
    "schema",
    [
        b"{",
        b'"long"',
        b'{"type":"record","name":"R","fields":[{"name":"other","type":"long"}]}',
        b'{"type":"record","name":"R","fields":[{"name":"id","type":"long"},'
        b'{"name":"n","type":{"type":"array","items":"null"}}]}',
        b'{"type":"record","name":"R","fields":[{"name":"id","type":"long"},'
        b'{"name":"n","type":["null","R"]}]}',
    ],
    ids=["not-json", "no-record", "key-missing", "array-of-nulls", "recursive"],
)
def test_schema_that_is_not_fit_is_named_with_its_dataset(schema: bytes) -> None:
    with pytest.raises(UsageError, match="datasets/G01/residents.yaml: schema or key: schemas/"):
        load({**files(), "schemas/G01/residents.avsc": schema})


def test_policy_of_the_demo_loads(tmp_path: Path) -> None:
    from fabric.authority.pki import make_ca, make_verifier_keys
    from fabric.demo.layout import lay_out
    from fabric.demo.policy import PolicyWriter
    from fabric.repository.source import read_files

    layout = lay_out(tmp_path)
    layout.pki.mkdir(parents=True)
    layout.ca.write_bytes(make_ca("demo").cert_pem)
    writer = PolicyWriter(layout)
    keys = [(int(key.public.alg), key.public.data) for key in make_verifier_keys()]
    writer.create(keys, make_ca("ek").cert_pem)
    for number, host in enumerate(layout.hosts.values()):
        writer.approve(host, ek_sha256=bytes([number] * 32).hex(), digests=["00" * 32])
    policy = load(read_files(layout.policy))
    assert len(policy.approvals) == 3
    assert len(policy.datasets) == 3


def test_event_log_rules_of_an_approval_are_read_with_their_numbers() -> None:
    written = documents()
    name = f"approvals/{SENDER}.yaml"
    rules = [
        {"pcr": pcr, "steps": [{"type": "EV_IPL", "digests": ["03" * 32], "optional": True}]}
        for pcr in (0, 1, 7)
    ]
    written[name] = {**written[name], "digests": [], "event_log": rules}
    approval = load(files(written)).approvals[HostId.parse(SENDER)]
    assert approval.digests == ()
    (first, *_) = approval.event_rules
    assert first.pcr == 0
    assert first.steps == (EventStep(type=13, digests=(b"\x03" * 32,), is_optional=True),)
