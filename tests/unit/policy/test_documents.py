"""What one document may say: every key's bounds, by its refusals."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from fabric.model.errors import Reason, UsageError
from fabric.policy.documents import (
    AgencyDocument,
    ApprovalDocument,
    DatasetDocument,
    LevelDocument,
    PolicyDocument,
    SuiteDocument,
    read_document,
    read_documents,
)
from tests.fakes.policy_files import SENDER, documents, files

GOOD = documents()
KINDS: dict[str, tuple[Any, type[BaseModel]]] = {
    "policy": (GOOD["policy.yaml"], PolicyDocument),
    "level": (GOOD["levels.yaml"][3], LevelDocument),
    "suite": (GOOD["suites.yaml"][0], SuiteDocument),
    "agency": (GOOD["agencies/G01.yaml"], AgencyDocument),
    "approval": (GOOD[f"approvals/{SENDER}.yaml"], ApprovalDocument),
    "dataset": (GOOD["datasets/G01/residents.yaml"], DatasetDocument),
}
WRONG = [
    ("policy", "version", 0),
    ("policy", "version", "7"),
    ("policy", "version", True),
    ("policy", "version", 2**60),
    ("policy", "expires", "soon"),
    ("policy", "expires", "2027-01-01T00:00:00"),
    ("policy", "expires", "0001-01-01T00:00:00+23:00"),
    ("policy", "expires", 1_800_000_000),
    ("level", "name", "Secret"),
    ("level", "sealed", "yes"),
    ("level", "suites", "hybrid"),
    ("level", "suites", ["hybrid", "hybrid"]),
    ("level", "host_level_min", 0),
    ("level", "host_level_min", 6),
    ("level", "evidence", []),
    ("level", "evidence", ["software"]),
    ("level", "result_lifetime_s", 1),
    ("level", "result_lifetime_s", 90_000),
    ("level", "delivery_s", 0),
    ("level", "coding", "gzip"),
    ("level", "padding", 1),
    ("level", "citation", ""),
    ("suite", "status", "fine"),
    ("suite", "until", "soon"),
    ("agency", "name", ""),
    ("agency", "name", "x" * 4_001),
    ("approval", "number", 0),
    ("approval", "ek_sha256", "01" * 31),
    ("approval", "ek_sha256", "AB" * 32),
    ("approval", "ek_sha256", 12),
    ("approval", "ak_name", "00" * 32),
    ("approval", "security_level", 0),
    ("approval", "security_level", 6),
    ("approval", "clearance", "secret+b+a"),
    ("approval", "pcrs", []),
    ("approval", "pcrs", [1, 0]),
    ("approval", "pcrs", [0, 0]),
    ("approval", "pcrs", [0, 16]),
    ("approval", "pcrs", [0, 23]),
    ("approval", "pcrs", [-1]),
    ("approval", "pcrs", [24]),
    ("approval", "digests", []),
    ("approval", "digests", ["02"]),
    ("approval", "digests", ["02" * 32] * 65),
    ("approval", "not_after", "2026-08-01T00:00:00Z"),
    ("dataset", "schema", "/etc/passwd"),
    ("dataset", "schema", "../secret.avsc"),
    ("dataset", "schema", "a/../../b"),
    ("dataset", "key", []),
    ("dataset", "key", "id"),
    ("dataset", "partitions", 0),
    ("dataset", "partitions", 65),
    ("dataset", "salt", "5a" * 16),
    ("dataset", "retention_s", 1),
    ("dataset", "retention_s", 10**12),
    ("dataset", "producers", []),
    ("dataset", "producers", ["G01/registry"]),
    ("dataset", "consumers", ["G02"]),
    ("dataset", "consumers", ["G02/health/host/more"]),
    ("dataset", "consumers", ["g02/health"]),
    ("dataset", "consumers", ["*"]),
    ("dataset", "history", "all"),
    ("dataset", "on_unappliable", "skip"),
    ("dataset", "schema_id", 0),
    ("dataset", "schema_id", 2**31),
    ("dataset", "tags", {"name": "secret"}),
    ("dataset", "tags", {"name": "personal-data:other"}),
    ("dataset", "tags", {"name": "label:Secret"}),
    ("dataset", "legal_basis", ""),
]


def dumped(value: Any) -> bytes:
    return files({"x": value})["x"]


@pytest.mark.parametrize("kind", KINDS)
def test_good_document_is_read(kind: str) -> None:
    value, model = KINDS[kind]
    assert read_document("x.yaml", dumped(value), model)


@pytest.mark.parametrize(("kind", "key", "wrong"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_value_is_refused_with_file_and_key(kind: str, key: str, wrong: Any) -> None:
    value, model = KINDS[kind]
    with pytest.raises(UsageError) as caught:
        read_document("x.yaml", dumped({**value, key: wrong}), model)
    assert caught.value.reason is Reason.POLICY_INVALID
    text = str(caught.value.args[0])
    assert text.startswith("x.yaml: ")
    assert key in text


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (kind, key)
        for kind, (value, _) in KINDS.items()
        for key in value
        if (kind, key) not in {("approval", "ak_name"), ("dataset", "partitions")}
    ],
)
def test_missing_key_is_named(kind: str, key: str) -> None:
    value, model = KINDS[kind]
    rest = {k: v for k, v in value.items() if k != key}
    with pytest.raises(UsageError, match=f"x.yaml: {key}: is missing; add it"):
        read_document("x.yaml", dumped(rest), model)


def test_approval_of_a_host_whose_attestation_key_nobody_knows_yet_lacks_its_name() -> None:
    value, model = KINDS["approval"]
    rest = {k: v for k, v in value.items() if k != "ak_name"}
    found = read_document("x.yaml", dumped(rest), model)
    assert isinstance(found, ApprovalDocument)
    assert found.ak_name is None


def test_dataset_has_one_partition_unless_it_says_otherwise() -> None:
    value, model = KINDS["dataset"]
    rest = {k: v for k, v in value.items() if k != "partitions"}
    found = read_document("x.yaml", dumped(rest), model)
    assert isinstance(found, DatasetDocument)
    assert found.partitions == 1


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_key_is_refused(kind: str) -> None:
    value, model = KINDS[kind]
    with pytest.raises(UsageError, match="x.yaml: surprise: is not a known key"):
        read_document("x.yaml", dumped({**value, "surprise": 1}), model)


@pytest.mark.parametrize("value", [None, 5, "text", [1]])
def test_document_that_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="x.yaml: document: must be a mapping"):
        read_document("x.yaml", dumped(value), AgencyDocument)


@pytest.mark.parametrize(
    "value", [[], {}, "x", [{"id": f"s{n}", "status": "approved"} for n in range(65)]]
)
def test_list_of_documents_has_bounds(value: Any) -> None:
    with pytest.raises(UsageError, match="must be a list of 1 to 64 entries"):
        read_documents("x.yaml", dumped(value), SuiteDocument)


def test_entry_of_a_list_is_named_by_its_place() -> None:
    value = [{"id": "a", "status": "approved"}, {"id": "b", "status": "fine"}]
    with pytest.raises(UsageError, match=r"x.yaml: 1.status"):
        read_documents("x.yaml", dumped(value), SuiteDocument)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"alg": -19, "public": "03" * 31}],
        [{"alg": -49, "public": "03" * 32}],
        [{"alg": -7, "public": "03" * 32}],
        [{"alg": -19, "public": "zz" * 32}],
        [{"alg": -19, "public": "03" * 32}, {"alg": -19, "public": "04" * 32}],
    ],
    ids=["none", "short", "wrong-size", "unknown-alg", "not-hex", "twice"],
)
def test_verifier_keys_must_fit_their_algorithms(keys: Any) -> None:
    value = documents()["policy.yaml"]
    value["trust"]["verifier"]["keys"] = keys
    with pytest.raises(UsageError, match=r"trust\.verifier"):
        read_document("x.yaml", dumped(value), PolicyDocument)


def test_former_keys_are_others_than_todays_and_fit_their_algorithms() -> None:
    value = documents()["policy.yaml"]
    keys = value["trust"]["verifier"]["keys"]
    for former in ([dict(key) for key in keys], [{"alg": -19, "public": "05" * 31}]):
        value["trust"]["verifier"]["former"] = former
        with pytest.raises(UsageError, match=r"trust\.verifier"):
            read_document("x.yaml", dumped(value), PolicyDocument)


def test_one_key_of_the_verifier_may_change_and_the_other_stay() -> None:
    """Both lists count whole: without the one of before, all that it signed would be void."""
    value = documents()["policy.yaml"]
    verifier = value["trust"]["verifier"]
    first, second = verifier["keys"]
    for former in ([{**first}, {**second, "public": "05" * 1952}], [{**first}]):
        verifier["former"] = former
        read = read_document("x.yaml", dumped(value), PolicyDocument).trust.verifier
        assert [key.public for key in read.former] == [key["public"] for key in former]


@pytest.mark.parametrize("domain", ["", "Fabric", "a..b", "a/b", "spiffe://x"])
def test_trust_domain_is_a_domain(domain: str) -> None:
    value = documents()["policy.yaml"]
    value["trust"]["trust_domain"] = domain
    with pytest.raises(UsageError, match=r"trust\.trust_domain"):
        read_document("x.yaml", dumped(value), PolicyDocument)


def test_no_value_shows_in_a_refusal() -> None:
    value, model = KINDS["dataset"]
    with pytest.raises(UsageError) as caught:
        read_document("x.yaml", dumped({**value, "salt": "5eecrecy"}), model)
    assert "5eecrecy" not in str(caught.value)


def test_a_refused_suite_opens_nothing_so_it_has_no_date() -> None:
    value = {"id": "a", "status": "refused", "until": "2027-01-01T00:00:00Z"}
    with pytest.raises(UsageError, match="until: a refused suite opens nothing"):
        read_document("x.yaml", dumped(value), SuiteDocument)
    with pytest.raises(UsageError, match="until: is missing"):
        read_document("x.yaml", dumped({"id": "a", "status": "deprecated"}), SuiteDocument)
    value["status"] = "deprecated"
    found = read_document("x.yaml", dumped(value), SuiteDocument)
    assert found.until == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("alg", "size"), [(-19, 32), (-51, 97), (-49, 1952), (-50, 2592)])
def test_a_verifiers_key_has_its_algorithms_length(alg: int, size: int) -> None:
    changed = documents()["policy.yaml"]
    changed["trust"]["verifier"]["keys"] = [{"alg": alg, "public": "04" * size}]
    read_document("policy.yaml", dumped(changed), PolicyDocument)
    changed["trust"]["verifier"]["keys"] = [{"alg": alg, "public": "04" * (size + 1)}]
    with pytest.raises(UsageError, match="hex digits"):
        read_document("policy.yaml", dumped(changed), PolicyDocument)


STEP = {"type": "EV_SEPARATOR", "digests": ["03" * 32]}
RULE = [{"pcr": pcr, "steps": [STEP, {**STEP, "optional": True}]} for pcr in (0, 1, 7)]


def _copied(value: object) -> object:
    """Without shared parts, which YAML would write as references."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("digests", [[], ["02" * 32]])
def test_event_log_rules_stand_instead_of_digests_or_beside_them(digests: list[str]) -> None:
    value, model = KINDS["approval"]
    data = dumped({**value, "digests": digests, "event_log": _copied(RULE)})
    document = read_document("x.yaml", data, model)
    assert [rule.pcr for rule in document.event_log] == [0, 1, 7]
    assert [step.optional for step in document.event_log[0].steps] == [False, True]


@pytest.mark.parametrize(
    "rules",
    [
        RULE[:2],
        [*RULE, RULE[0]],
        [RULE[1], RULE[0], RULE[2]],
        [{**RULE[0], "pcr": 2}, *RULE[1:]],
        [{**RULE[0], "steps": [{**STEP, "type": "EV_NO_ACTION"}]}, *RULE[1:]],
        [{**RULE[0], "steps": [{**STEP, "type": "separator"}]}, *RULE[1:]],
        [{**RULE[0], "steps": [{**STEP, "type": 4}]}, *RULE[1:]],
        [{**RULE[0], "steps": [{**STEP, "digests": []}]}, *RULE[1:]],
        [{**RULE[0], "steps": [{**STEP, "any": True}]}, *RULE[1:]],
        [{**RULE[0], "steps": [STEP] * 513}, *RULE[1:]],
    ],
    ids=range(10),
)
def test_event_log_rules_that_leave_a_pcr_or_an_event_open_are_refused(rules: object) -> None:
    value, model = KINDS["approval"]
    with pytest.raises(UsageError) as invalid:
        read_document("x.yaml", dumped({**value, "event_log": _copied(rules)}), model)
    assert invalid.value.reason is Reason.POLICY_INVALID
