"""Rows for people say what the ledger holds."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fabric.attest.appraise import Enrolment
from fabric.authority import listing
from fabric.authority.ledger_rows import EnrolmentEntry, HostEntry
from fabric.model.label import Label
from fabric.model.names import HostId
from fabric.policy.decide import Standing
from fabric.policy.types import Policy
from tests.fakes import policy_files
from tests.fakes.verifier import HOST, NOW, a_result, a_state

SENDER = HostId.parse(policy_files.SENDER)


def test_an_enrolment_shows_what_an_approval_needs() -> None:
    made = Enrolment(host=HOST, ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a")
    row = listing.enrolment(EnrolmentEntry(enrolment=made, at=NOW))
    assert (row["host"], row["ek_sha256"], row["ak_name"]) == (str(HOST), "65", "61")


def test_a_host_without_a_result_has_no_level() -> None:
    state = a_state(a_result())
    row = listing.host("suspended", HostEntry(state=state, standing=None))
    assert (row["state"], row["level"], row["clearance"]) == ("suspended", 0, "")
    assert row["result"] == state.result_id.hex()


def an_entry(host: HostId = SENDER, *, level: int = 4, clearance: str = "secret") -> HostEntry:
    standing = Standing(host=host, level=level, clearance=Label.parse(clearance), evidence="tpm2")
    return HostEntry(state=a_state(a_result(host=host)), standing=standing)


def shown(policy: Policy, entry: HostEntry, now: datetime, word: str = "attested") -> str:
    [(found, _)] = listing.judged([(word, entry)], policy, now)
    return found


@pytest.fixture
def policy() -> Policy:
    return policy_files.policy()


@pytest.fixture
def now(policy: Policy) -> datetime:
    return policy.approvals[SENDER].not_before


def test_a_host_that_the_policy_does_not_approve_now_is_not_attested_to_anybody(
    policy: Policy, now: datetime
) -> None:
    approval = policy.approvals[SENDER]
    assert shown(policy, an_entry(), now) == "attested"
    assert shown(policy, an_entry(), now - timedelta(seconds=1)) == "not_approved"
    assert shown(policy, an_entry(HostId.parse("G09/none/host")), now) == "not_approved"
    ended = replace(policy, approvals={SENDER: replace(approval, not_after=now)})
    assert shown(ended, an_entry(), now) == "not_approved"
    assert shown(policy, an_entry(clearance="cosmic"), now) == "not_approved"


@pytest.mark.parametrize("word", ["unpublished", "suspended", "revoked", "expired"])
def test_an_approval_makes_no_other_state_better_or_worse(
    policy: Policy, now: datetime, word: str
) -> None:
    for host in (SENDER, HostId.parse("G09/none/host")):
        assert shown(policy, an_entry(host), now, word) == word


def test_a_policy_that_is_overdue_says_nothing_of_its_hosts(policy: Policy) -> None:
    assert shown(policy, an_entry(), policy.expires) == "attested"


@pytest.mark.parametrize(
    ("approved", "result", "expected"),
    [
        ((4, "secret"), (4, "secret"), (4, "secret")),
        ((2, "internal"), (4, "secret+personal-data"), (2, "internal")),
        ((4, "secret+personal-data"), (2, "internal+personal-data"), (2, "internal+personal-data")),
        ((4, "internal+personal-data"), (3, "secret"), (3, "internal")),
    ],
)
def test_of_result_and_approval_the_lower_level_and_clearance_are_shown(
    policy: Policy,
    now: datetime,
    approved: tuple[int, str],
    result: tuple[int, str],
    expected: tuple[int, str],
) -> None:
    approval = replace(
        policy.approvals[SENDER], security_level=approved[0], clearance=Label.parse(approved[1])
    )
    entry = an_entry(level=result[0], clearance=result[1])
    found = replace(policy, approvals={SENDER: approval})
    [(_, lowered)] = listing.judged([("attested", entry)], found, now)
    row = listing.host("attested", lowered)
    assert (row["level"], row["clearance"]) == expected


def test_a_host_whose_level_nobody_kept_has_none_under_an_approval_either(
    policy: Policy, now: datetime
) -> None:
    entry = replace(an_entry(), standing=None)
    assert listing.judged([("attested", entry)], policy, now) == [("attested", entry)]
