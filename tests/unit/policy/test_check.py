"""Documents that do not fit each other are refused; each test changes one thing."""

from typing import Any

import pytest

from fabric.model.errors import Reason, UsageError
from fabric.policy.check import FLOORS
from tests.fakes.policy_files import READER, SCHEMA, SENDER, documents, files, load

RESIDENTS = "datasets/G01/residents.yaml"
WARDS = "datasets/G01/wards.yaml"


def refusal(changed: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        load(files(changed))
    assert caught.value.reason is Reason.POLICY_INVALID
    return str(caught.value.args[0])


def level(which: str, **fields: Any) -> dict[str, Any]:
    """Documents with one level changed."""
    changed = documents()
    for item in changed["levels.yaml"]:
        if item["name"] == which:
            item.update(fields)
    return changed


def dataset(file: str = RESIDENTS, **fields: Any) -> dict[str, Any]:
    """Documents with one dataset changed."""
    changed = documents()
    changed[file].update(fields)
    return changed


@pytest.mark.parametrize(("name", "host_level"), [("confidential", 3), ("secret", 4)])
def test_host_level_below_the_floor_is_refused_with_the_law(name: str, host_level: int) -> None:
    text = refusal(level(name, host_level_min=host_level - 1))
    assert text.startswith(f"levels.yaml: {name}.host_level_min: must be at least {host_level}")
    assert FLOORS[name].citation in text


def test_top_secret_below_level_five_is_refused() -> None:
    assert "top-secret.host_level_min: must be at least 5" in refusal(
        level("top-secret", host_level_min=4)
    )


@pytest.mark.parametrize("name", ["confidential", "secret", "top-secret"])
def test_state_secret_level_that_is_open_is_refused(name: str) -> None:
    text = refusal(level(name, sealed=False, suites=[], padding=False, coding="none"))
    assert f"{name}.sealed: must be true" in text


@pytest.mark.parametrize("name", ["secret", "top-secret"])
def test_secret_without_padding_is_refused(name: str) -> None:
    assert f"{name}.padding: must be true" in refusal(level(name, padding=False))


def test_rule_weaker_than_the_level_below_is_refused() -> None:
    changed = documents()
    own = {**documents()["levels.yaml"][4], "name": "own", "host_level_min": 4}
    changed["levels.yaml"].append(own)
    assert "levels.yaml: own: is weaker than the level below it, top-secret" in refusal(changed)


def test_open_level_above_a_sealed_one_is_refused() -> None:
    changed = level("public", sealed=True, suites=["hybrid"])
    assert "internal: is weaker than the level below it, public" in refusal(changed)


def test_levels_may_be_renamed_when_they_keep_rising() -> None:
    changed = documents()
    changed["levels.yaml"][4]["name"] = "tuyet-mat"
    assert load(files(changed)).levels.names[-1] == "tuyet-mat"


def test_level_named_twice_is_refused() -> None:
    assert "secret stands twice" in refusal(level("top-secret", name="secret"))


@pytest.mark.parametrize(
    "fields", [{"suites": ["hybrid"]}, {"padding": True}, {"coding": "zstd"}], ids=str
)
def test_open_level_with_marks_of_a_sealed_one_is_refused(fields: dict[str, Any]) -> None:
    assert "public: is open" in refusal(level("public", **fields))


def test_sealed_level_without_a_suite_is_refused() -> None:
    assert "secret.suites: is sealed: name at least one suite" in refusal(
        level("secret", suites=[])
    )


def test_level_with_an_unknown_suite_is_refused() -> None:
    assert "rot13 is not in suites.yaml" in refusal(level("secret", suites=["hybrid", "rot13"]))


def test_level_with_a_refused_suite_is_refused() -> None:
    changed = documents()
    changed["suites.yaml"][0]["status"] = "refused"
    assert "confidential.suites: classic is refused" in refusal(changed)


def test_dataset_with_a_deprecated_suite_is_refused() -> None:
    changed = documents()
    changed["suites.yaml"][1].update(status="deprecated", until="2026-08-01T00:00:00Z")
    assert f"{RESIDENTS}: suite: is not approved" in refusal(changed)


@pytest.mark.parametrize("suite", ["classic", "rot13", ""])
def test_dataset_with_a_suite_that_its_level_does_not_have_is_refused(suite: str) -> None:
    assert f"{RESIDENTS}: suite: must be one of its level's: hybrid" in refusal(
        dataset(suite=suite)
    )


def test_open_dataset_with_a_suite_is_refused() -> None:
    assert f"{WARDS}: suite: must be ''" in refusal(dataset(WARDS, suite="hybrid"))


@pytest.mark.parametrize("label", ["public", "confidential+personal-data", "top-secret"])
def test_label_of_another_level_than_the_topic_is_refused(label: str) -> None:
    assert f"{RESIDENTS}: label: must be of the topic's level, secret" in refusal(
        dataset(label=label)
    )


def test_label_or_level_that_nobody_knows_is_refused() -> None:
    assert "label: names a level that is not in levels.yaml" in refusal(dataset(label="cosmic"))
    assert "level: is not in levels.yaml" in refusal(dataset(level="cosmic", label="cosmic"))


def test_personal_data_in_a_sealed_dataset_without_the_compartment_is_refused() -> None:
    text = refusal(dataset(label="secret"))
    assert f"{RESIDENTS}: tags.name: column rises above the label" in text
    assert text.endswith("label must be secret+personal-data")


def test_personal_data_in_an_open_dataset_needs_no_compartment() -> None:
    changed = dataset(WARDS, tags={"name": "personal-data"})
    assert load(files(changed)).datasets["public.G01.wards"].tags == {"name": "personal-data"}


@pytest.mark.parametrize("tag", ["label:top-secret", "label:public+crypto"])
def test_column_label_above_the_dataset_is_refused(tag: str) -> None:
    assert "tags.name: column rises above the label" in refusal(dataset(tags={"name": tag}))


def test_column_label_below_the_dataset_is_taken() -> None:
    assert load(files(dataset(tags={"name": "label:internal+personal-data"})))


def test_column_label_of_an_unknown_level_is_refused() -> None:
    assert "tags.name: names a level" in refusal(dataset(tags={"name": "label:cosmic"}))


def test_tag_of_no_field_is_refused() -> None:
    assert "tags.nobody: is no field" in refusal(dataset(tags={"nobody": "personal-data"}))


def test_two_origins_of_one_dataset_are_refused() -> None:
    both = ["G01/registry/registry", "G01/registry/outbox"]
    assert "producers: must be one origin" in refusal(dataset(producers=both))


def test_two_datasets_of_one_producer_are_taken() -> None:
    policy = load(files())
    assert len({d.producers for d in policy.datasets.values()}) == 1


@pytest.mark.parametrize(
    "fields", [{"producers": ["G09/registry/registry"]}, {"consumers": ["G09/health"]}], ids=str
)
def test_unknown_agency_of_a_dataset_is_refused(fields: dict[str, Any]) -> None:
    assert "agency: G09 is unknown; add agencies/G09.yaml" in refusal(dataset(**fields))


def test_dataset_of_an_unknown_agency_is_refused() -> None:
    changed = documents()
    schema = "schemas/G09/x.avsc"
    changed["datasets/G09/x.yaml"] = {**changed[RESIDENTS], "schema_id": 9, "schema": schema}
    with pytest.raises(UsageError, match="datasets/G09/x.yaml: agency: G09"):
        load({**files(changed), schema: SCHEMA})


def test_schema_that_another_agency_signs_is_refused() -> None:
    text = refusal(dataset(schema="schemas/G02/residents.avsc"))
    assert f"{RESIDENTS}: schema: must lie below schemas/G01/" in text


def test_consumer_named_twice_is_refused() -> None:
    assert "consumers: names one consumer twice" in refusal(
        dataset(consumers=["G02/health", "G02/health"])
    )


@pytest.mark.parametrize("name", ["G02/health", "G02/health/host-b", "G03/statistics/host-c"])
def test_custodian_that_is_a_consumer_is_taken(name: str) -> None:
    loaded = load(files(dataset(custodians=[name])))
    assert loaded.datasets["secret.G01.residents"].custodians == (name,)


@pytest.mark.parametrize("name", ["G01/registry", "G03/statistics", "G03/statistics/host-d"])
def test_custodian_that_is_no_consumer_is_refused(name: str) -> None:
    assert f"custodians: {name} is no consumer" in refusal(dataset(custodians=[name]))


def test_custodian_named_twice_is_refused() -> None:
    twice = refusal(dataset(custodians=["G02/health", "G02/health"]))
    assert "custodians: names one custodian twice" in twice


def test_open_dataset_with_custodians_is_refused() -> None:
    changed = documents()
    changed["datasets/G01/wards.yaml"]["custodians"] = ["G02/health"]
    assert "custodians: must be []" in refusal(changed)


def test_schema_id_of_another_dataset_is_refused() -> None:
    assert f"{WARDS}: schema_id: is that of {RESIDENTS} already" in refusal(
        dataset(WARDS, schema_id=1)
    )


def test_two_approvals_of_one_tpm_are_refused() -> None:
    changed = documents()
    changed[f"approvals/{READER}.yaml"]["ek_sha256"] = "01" * 32
    assert "ek_sha256: is the TPM of" in refusal(changed)


def test_approval_of_an_unknown_agency_is_refused() -> None:
    changed = documents()
    changed["approvals/G09/a/b.yaml"] = changed[f"approvals/{SENDER}.yaml"]
    assert "approvals/G09/a/b.yaml: path: agency is unknown" in refusal(changed)


def test_clearance_of_an_unknown_level_is_refused() -> None:
    changed = documents()
    changed[f"approvals/{SENDER}.yaml"]["clearance"] = "cosmic"
    assert "clearance: names a level" in refusal(changed)


def test_suite_stated_twice_is_refused() -> None:
    changed = documents()
    changed["suites.yaml"][1]["id"] = "classic"
    assert "suites.yaml: id: one suite stands twice" in refusal(changed)
