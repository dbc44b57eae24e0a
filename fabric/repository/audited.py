"""What an audit log says of the policy: which version is taken, which is not and why, its end.

A repository that is wrong is looked at again and again and stays wrong, so one reason is
written at most once in ten minutes, with the number of looks that found it meanwhile. That
nobody answers is no refusal; when the policy in force ends over it, that is written.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from fabric.model.errors import FabricError, Reason, UnavailableError
from fabric.policy.types import Policy
from fabric.ports import AuditLog, Clock

QUIET_S = 600.0


@dataclass(slots=True)
class _Said:
    """When a reason was last written (monotonic seconds), and how often it came since."""

    at: float
    unsaid: int = 0


class PolicyAudit:
    """Writes the events `policy_taken`, `policy_refused` and `policy_ended`."""

    def __init__(self, audit: AuditLog, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._version: int | None = None
        self._ended: datetime | None = None
        self._said: dict[Reason, _Said] = {}

    def taken(self, policy: Policy) -> None:
        """This policy is in force; a later end of the same version is no event."""
        if policy.version != self._version:
            self._version = policy.version
            self._audit.write("policy_taken", {"version": policy.version})

    def refused(self, error: FabricError, in_force: Policy) -> None:
        """What the repository serves is not taken; `in_force` stays."""
        if isinstance(error, UnavailableError):
            return
        now = self._clock.monotonic()
        said = self._said.get(error.reason)
        if said is not None and now - said.at < QUIET_S:
            said.unsaid += 1
            return
        fields: dict[str, str | int] = {"reason": error.reason.value, "version": in_force.version}
        if said is not None and said.unsaid:
            fields["unsaid"] = said.unsaid
        self._said[error.reason] = _Said(now)
        self._audit.write("policy_refused", fields)

    def looked(self, in_force: Policy) -> None:
        """After each look: whether the policy in force has ended, which is written once."""
        with suppress(FabricError):  # a clock that went back, or jumped ahead, does not say
            if self._clock.now() >= in_force.expires != self._ended:
                self._ended = in_force.expires
                reason = Reason.POLICY_EXPIRED.value
                self._audit.write("policy_ended", {"reason": reason, "version": in_force.version})
