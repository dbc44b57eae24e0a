"""The policy pack for the law loads, says where each level comes from, and holds in time."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.model.errors import UsageError
from fabric.policy.check import FLOORS
from fabric.policy.review import review
from fabric.policy.types import Policy
from tests.fakes.policy_files import documents, files, load

ROOT = Path(__file__).parents[3]
PACK = ROOT / "deploy" / "policy" / "vn"
NOW = datetime(2026, 9, 1, tzinfo=UTC)


def loaded(edit: str = "", into: str = "") -> Policy:
    content = files(documents())
    for name in ("levels.yaml", "suites.yaml"):
        content[name] = (PACK / name).read_bytes().replace(edit.encode(), into.encode())
    return load(content)


def test_pack_loads_and_may_be_published() -> None:
    policy = loaded()
    assert policy.levels.names == ("public", "internal", "confidential", "secret", "top-secret")
    assert [rule.host_level_min for rule in policy.rules.values()] == [1, 2, 3, 4, 5]
    review(None, policy, NOW)


def test_every_state_secret_is_sealed_by_an_approved_suite_of_two_halves() -> None:
    policy = loaded()
    for name in FLOORS:
        rule = policy.rules[name]
        assert rule.sealed
        assert {policy.suites[suite].status for suite in rule.suites} == {"approved"}
        assert all(suite.startswith("hybrid") for suite in rule.suites)


def test_every_level_says_which_law_and_which_inference_it_stands_on() -> None:
    for rule in loaded().rules.values():
        assert any(not place.is_inference for place in rule.basis), rule.name
        assert any(place.since is not None for place in rule.basis), rule.name


def test_page_names_every_act_of_the_pack_and_its_first_day() -> None:
    page = (ROOT / "docs" / "policy-vn.md").read_text().replace("QĐ", "QD")
    for rule in loaded().rules.values():
        for place in rule.basis:
            assert place.act in page, place.act
            if place.since is not None:
                day = f"{place.since.day} {place.since:%B %Y}"
                assert day in page, (place.act, day)


def test_level_whose_act_has_ended_is_refused_with_the_act() -> None:
    ended = loaded(
        "since: 2026-03-30\n      until: null", "since: 2026-03-30\n      until: 2026-09-01"
    )
    assert any(place.until == date(2026, 9, 1) for place in ended.rules["secret"].basis)
    review(None, ended, NOW - timedelta(days=1))
    with pytest.raises(UsageError, match=r"Circular 06/2026/TT-BKHCN.*ended on 2026-09-01"):
        review(None, ended, NOW)


def test_pack_is_plain_yaml_that_people_can_edit() -> None:
    for name in ("levels.yaml", "suites.yaml"):
        assert isinstance(yaml.safe_load((PACK / name).read_text()), list)
