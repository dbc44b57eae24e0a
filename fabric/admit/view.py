"""What a judge knows, and what place it judges for."""

from dataclasses import dataclass

from fabric.attest.members import Members
from fabric.policy.types import Policy


@dataclass(frozen=True, slots=True)
class View:
    """What a judge knows: the policy, and the members as far as their log was read."""

    policy: Policy
    members: Members


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands or wants to stand."""

    topic: str
    partition: int
