"""Refused attestations and enrolments in the authority's audit log: without end in bounded lines.

Whoever reaches the authority can be refused in any approved host's name, fifty times a
second. The first refusal of a kind (which, host, reason) is written at once, with who asked;
how many more there were follows in one line every half minute.
"""

from dataclasses import dataclass

from fabric.model.errors import Reason
from fabric.model.limits import AUDIT_REFUSALS_REMEMBERED
from fabric.model.names import HostId
from fabric.ports import AuditLog

FLUSH_S = 30.0
_IDLE_ROUNDS = 6


@dataclass(slots=True)
class _Kind:
    more: int = 0
    idle: int = 0


class RefusedCount:
    """Writes the first of each kind, and counts the others."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._kinds: dict[tuple[str, str, Reason], _Kind] = {}

    def refused(self, event: str, caller: str, host: HostId, reason: Reason) -> None:
        """One request was refused.

        Args:
            event: `attestation_refused` or `enrolment_conflict`.
            caller: certificate subject or network address.
        """
        key = (event, str(host), reason)
        kind = self._kinds.get(key)
        if kind is None and len(self._kinds) >= AUDIT_REFUSALS_REMEMBERED:
            # Which hosts they were is lost, that they came is not.
            kind = self._kinds.setdefault((event, "", reason), _Kind())
        if kind is not None:
            kind.more += 1
            return
        self._kinds[key] = _Kind()
        said = {"caller": caller, "host": str(host), "reason": reason.value}
        self._audit.write(event, said)

    def flush(self) -> None:
        """Write what was only counted; call it every FLUSH_S seconds and at the end."""
        for key, kind in list(self._kinds.items()):
            event, host, reason = key
            kind.idle = 0 if kind.more else kind.idle + 1
            if kind.more:
                said = {"kind": event, "host": host, "reason": reason.value}
                self._audit.write("requests_refused", {**said, "requests": kind.more})
                kind.more = 0
            elif kind.idle > _IDLE_ROUNDS:
                del self._kinds[key]
