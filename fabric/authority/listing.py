"""What the ledger holds, in words for people: one row for an enrolment or a host. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from fabric.authority.ledger_rows import EnrolmentEntry, HostEntry
from fabric.model.errors import DeniedError, Malformed
from fabric.model.label import meet
from fabric.policy.decide import approval_of
from fabric.policy.types import Policy

Row = dict[str, str | int]
Shown = tuple[str, HostEntry]
"""A host's state in a word, and the entry that it is of."""


def enrolment(entry: EnrolmentEntry) -> Row:
    """An enrolment, with the key's name that an approval needs."""
    return {
        "host": str(entry.enrolment.host),
        "ek_sha256": entry.enrolment.ek_sha256.hex(),
        "ak_name": entry.enrolment.ak_name.hex(),
        "enrolled": entry.at.isoformat(timespec="milliseconds"),
    }


def judged(shown: Sequence[Shown], policy: Policy, now: datetime) -> Sequence[Shown]:
    """What the ledger shows of hosts, as whoever has this policy sees them at `now`.

    The lower of a result and of the approval of now counts, so an attested host is
    `not_approved` where it has none that holds. An overdue policy is a person's delay:
    it stops everybody, and says nothing of a host.
    """
    if now >= policy.expires:
        return shown
    return [
        _judged(entry, policy, now) if word == "attested" else (word, entry)
        for word, entry in shown
    ]


def _judged(entry: HostEntry, policy: Policy, now: datetime) -> Shown:
    try:
        return "attested", _lowered(entry, policy, now)
    except (DeniedError, Malformed):  # a clearance that is no level of the policy opens nothing
        return "not_approved", entry


def _lowered(entry: HostEntry, policy: Policy, now: datetime) -> HostEntry:
    approval, standing = approval_of(policy, entry.state.host, now), entry.standing
    if standing is None:
        return entry
    level = min(standing.level, approval.security_level)
    clearance = meet(policy.levels, standing.clearance, approval.clearance)
    return replace(entry, standing=replace(standing, level=level, clearance=clearance))


def host(word: str, entry: HostEntry) -> Row:
    """A host; `word` is its state, as `judged` gives it."""
    return {
        "host": str(entry.state.host),
        "state": word,
        "level": entry.standing.level if entry.standing else 0,
        "clearance": str(entry.standing.clearance) if entry.standing else "",
        "approval": entry.state.approval,
        "number": entry.state.number,
        "result": entry.state.result_id.hex(),
        "since": entry.state.since.isoformat(timespec="milliseconds"),
        "expires": entry.state.expires.isoformat(timespec="milliseconds"),
    }
