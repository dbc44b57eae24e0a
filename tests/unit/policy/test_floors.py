"""A label sinks below its floor only by a release; a floor sinks only by one too."""

from typing import Any

import pytest

from fabric.model.errors import Reason, UsageError
from fabric.policy.review import review
from fabric.policy.types import Policy
from tests.fakes.clock import START
from tests.fakes.policy_files import documents, files, load

RESIDENTS = "datasets/G01/residents.yaml"
RELEASE = "releases/G01/residents/1.yaml"


def lowered(**release: Any) -> dict[str, Any]:
    """The secret dataset declared internal, perhaps with a release."""
    changed = documents()
    changed[RESIDENTS] |= {"level": "internal", "label": "internal", "suite": ""}
    if release:
        changed[RELEASE] = {"why": "opened", "legal_basis": "a law", **release}
    return changed


def refusal(changed: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        load(files(changed))
    assert caught.value.reason is Reason.POLICY_INVALID
    return str(caught.value.args[0])


def test_label_at_or_above_its_floor_is_taken() -> None:
    changed = documents()
    changed["floors.yaml"]["floors"]["G01/residents"] = "internal"
    assert load(files(changed)).floors["G01/residents"].level == "internal"


def test_label_below_its_floor_is_refused_and_says_what_is_needed() -> None:
    """MUST-14.8."""
    text = refusal(lowered())
    assert text.startswith(f"{RESIDENTS}: label: is below the floor secret+personal-data")
    assert "releases/G01/residents/<n>.yaml" in text


def test_compartment_that_is_dropped_is_below_the_floor() -> None:
    changed = documents()
    changed[RESIDENTS] |= {"label": "secret", "tags": {}}
    assert "is below the floor" in refusal(changed)


def test_release_lets_the_label_sink_to_its_own_and_no_lower() -> None:
    policy = load(files(lowered(label="internal")))
    assert "internal.G01.residents" in policy.datasets
    assert "is below the floor" in refusal(lowered(label="confidential"))
    assert "is below the floor" in refusal(lowered(label="internal+personal-data"))


def test_newest_release_counts() -> None:
    """MUST-14.8."""
    changed = lowered(label="internal")
    changed["releases/G01/residents/2.yaml"] = changed[RELEASE] | {"label": "secret"}
    assert "is below the floor" in refusal(changed)
    changed["releases/G01/residents/10.yaml"] = changed[RELEASE] | {"label": "public"}
    assert load(files(changed)).releases["G01/residents"].level == "public"


def test_release_of_another_dataset_does_not_count() -> None:
    changed = lowered()
    changed["releases/G01/wards/1.yaml"] = {
        "label": "public", "why": "x", "legal_basis": "x"
    }  # fmt: skip
    assert "is below the floor" in refusal(changed)


def test_dataset_without_a_floor_is_refused_whatever_its_name() -> None:
    changed = documents()
    changed["datasets/G01/copy.yaml"] = {**changed["datasets/G01/wards.yaml"], "schema_id": 9}
    text = refusal(changed)
    assert text.startswith("floors.yaml: floors.G01/copy: is missing; two persons")


@pytest.mark.parametrize(
    ("floors", "named"),
    [
        ({"residents": "public"}, "must have the form agency/dataset"),
        ({"G01/a/b": "public"}, "must have the form agency/dataset"),
        ({"g01/residents": "public"}, "agency code"),
        ({"G01/Residents": "public"}, "name must be"),
        ({"G01/residents": "cosmic"}, "names a level that is not in levels.yaml"),
        ({"G01/residents": 5}, "must be text"),
    ],
)
def test_wrong_floor_is_named(floors: dict[str, Any], named: str) -> None:
    changed = documents()
    changed["floors.yaml"]["floors"] = floors
    assert named in refusal(changed)


@pytest.mark.parametrize(
    "name",
    ["releases/G01/residents/0.yaml", "releases/G01/residents/01.yaml", "releases/G01/x.yaml"],
)
def test_release_in_a_place_that_means_nothing_is_refused(name: str) -> None:
    changed = lowered(label="internal")
    changed[name] = changed.pop(RELEASE)
    assert f"{name}: path" in refusal(changed)


def test_release_of_nobody_is_refused() -> None:
    changed = lowered(label="internal")
    changed["releases/g01/residents/1.yaml"] = changed.pop(RELEASE)
    assert "agency code" in refusal(changed)


# The step from one policy to the next


def with_floor(label: str | None, /, **release: Any) -> Policy:
    changed = documents()
    floors = changed["floors.yaml"]["floors"]
    if label is None:
        del floors["G01/residents"], changed[RESIDENTS]
    else:
        floors["G01/residents"] = label
    if release:
        changed[RELEASE] = {"why": "opened", "legal_basis": "a law", **release}
    return load(files(changed))


@pytest.mark.parametrize("floor", ["internal", "secret", "confidential+personal-data"])
def test_floor_that_sinks_itself_is_refused(floor: str) -> None:
    with pytest.raises(UsageError, match="must not sink below secret"):
        review(with_floor("secret+personal-data"), with_floor(floor), START)


def test_floor_may_rise_or_sink_with_a_release() -> None:
    review(with_floor("internal"), with_floor("secret"), START)
    before = with_floor("secret+personal-data")
    review(before, with_floor("internal", label="internal"), START)


def test_floor_goes_only_with_its_dataset() -> None:
    review(with_floor("secret"), with_floor(None), START)
