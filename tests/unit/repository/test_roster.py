"""roles.yaml: who signs what; two persons stay two, and mistakes are named."""

import json
from typing import Any

import pytest
import yaml

from fabric.model.errors import Reason, UsageError
from fabric.repository.roster import Roster, first_roster
from tests.fakes.policy_repository import key


def document() -> dict[str, Any]:
    persons = {name: key(name).public_key for name in ("an", "binh")}
    text = first_roster(
        persons,
        {"G01": key("agency-G01").public_key},
        snapshot=key("snapshot").public_key,
        timestamp=key("timestamp").public_key,
    )
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def refusal(changed: dict[str, Any]) -> str:
    with pytest.raises(UsageError) as caught:
        Roster.parse(json.dumps(changed).encode())
    assert caught.value.reason is Reason.POLICY_INVALID
    return str(caught.value.args[0])


def test_first_roster_needs_two_persons_for_all_but_the_agency_and_the_online_roles() -> None:
    roster = Roster.parse(json.dumps(document()).encode())
    assert {name: role.threshold for name, role in roster.roles.items()} == {
        "root": 2,
        "targets": 2,
        "approvals": 2,
        "releases": 2,
        "snapshot": 1,
        "timestamp": 1,
        "agency-G01": 1,
    }
    assert roster.valid("timestamp").days == 1
    assert roster.name_of(key("an").public_key.keyid) == "an"
    assert roster.name_of("0" * 64) == "0" * 16


def test_delegations_carry_only_the_delegated_keys() -> None:
    found = Roster.parse(json.dumps(document()).encode()).delegations()
    assert found.roles is not None
    assert set(found.roles) == {"approvals", "releases", "agency-G01"}
    assert key("timestamp").public_key.keyid not in found.keys
    assert found.roles["agency-G01"].paths == ["datasets/G01/*", "schemas/G01/*"]


@pytest.mark.parametrize("role", ["root", "targets", "approvals", "releases"])
def test_one_person_cannot_be_two(role: str) -> None:
    changed = document()
    changed["roles"][role] |= {"threshold": 1}
    assert "two signatures" in refusal(changed)


def test_one_key_under_two_names_is_refused() -> None:
    changed = document()
    changed["keys"]["binh"] = changed["keys"]["an"]
    assert "one key stands under two names" in refusal(changed)


def test_same_key_with_another_id_is_still_one_person() -> None:
    changed = document()
    changed["keys"]["binh"] = {**changed["keys"]["an"], "keyid": "0" * 64}
    assert "lists one key under two names" in refusal(changed)


def test_same_key_in_another_spelling_is_no_second_person() -> None:
    changed = document()
    an = changed["keys"]["an"]
    twin = {"public": an["keyval"]["public"].upper()}
    changed["keys"]["binh"] = {**an, "keyid": "0" * 64, "keyval": twin}
    assert "canonical" in refusal(changed)


def test_mistakes_are_named_with_a_remedy() -> None:
    changed = document()
    changed["roles"]["targets"]["keys"] = ["an", "nobody"]
    assert "nobody is called nobody" in refusal(changed)
    changed = document()
    changed["roles"]["targets"] |= {"threshold": 3}
    assert "more signatures than it has keys" in refusal(changed)
    changed = document()
    del changed["roles"]["approvals"]
    assert "approvals is missing" in refusal(changed)
    changed = document()
    changed["roles"]["auditors"] = changed["roles"]["approvals"]
    assert "a role it may not" in refusal(changed)
    changed = document()
    changed["keys"]["an"] = {"keytype": "x"}
    assert "keys.an" in refusal(changed)
