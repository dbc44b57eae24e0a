"""What policies of tests approve their hosts for."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

from fabric.model.label import Label
from fabric.model.names import HostId
from fabric.policy.types import Approval


def an_approval(host: HostId, **changes: object) -> Approval:
    """A host's approval, for ever, for as much as its results say."""
    found = Approval(
        host=host,
        number=1,
        ek_sha256=hashlib.sha256(str(host).encode()).digest(),
        ak_name=None,
        security_level=5,
        clearance=Label.parse("secret+personal-data"),
        pcrs=(0, 7),
        digests=(bytes(32),),
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2100, 1, 1, tzinfo=UTC),
    )
    return replace(found, **changes)  # type: ignore[arg-type]  # tests name real fields


def document(approval: Approval) -> dict[str, object]:
    """The approval as its file in a signed policy says it."""
    return {
        "number": approval.number,
        "ek_sha256": approval.ek_sha256.hex(),
        "ak_name": None,
        "security_level": approval.security_level,
        "clearance": str(approval.clearance),
        "pcrs": list(approval.pcrs),
        "digests": [digest.hex() for digest in approval.digests],
        "not_before": approval.not_before.isoformat(),
        "not_after": approval.not_after.isoformat(),
    }


def approved(*hosts: HostId) -> dict[HostId, Approval]:
    """The approvals of a policy that approves these hosts."""
    return {host: an_approval(host) for host in hosts}
