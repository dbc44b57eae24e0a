"""Refused attestations and enrolments in the authority's audit log: without end in bounded lines.

Whoever reaches the authority can be refused in any approved host's name, fifty times a
second. The first refusal of a kind (which, host, reason) is written at once, with who asked;
how many more there were follows in one line every half minute.
"""

import asyncio

from fabric.model.counting import FLUSH_S, Kinds
from fabric.model.errors import Reason
from fabric.model.limits import AUDIT_REFUSALS_REMEMBERED
from fabric.model.names import HostId
from fabric.ports import AuditLog


class RefusedCount:
    """Writes the first of each kind, and counts the others."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._kinds = Kinds[tuple[str, str, Reason]](AUDIT_REFUSALS_REMEMBERED)

    def refused(self, event: str, caller: str, host: HostId, reason: Reason) -> None:
        """One request was refused.

        Args:
            event: `attestation_refused` or `enrolment_conflict`.
            caller: certificate subject or network address.
        """
        if self._kinds.is_first((event, str(host), reason), (event, "", reason)):
            said = {"caller": caller, "host": str(host), "reason": reason.value}
            self._audit.write(event, said)

    def flush(self) -> None:
        """Write what was only counted; at the end, too."""
        counted, _ = self._kinds.flush()
        for (event, host, reason), requests in counted:
            said = {"kind": event, "host": host, "reason": reason.value}
            self._audit.write("requests_refused", {**said, "requests": requests})

    async def run(self) -> None:
        """Flush every FLUSH_S seconds, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush()
