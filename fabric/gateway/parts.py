"""What the gateway's connections share, in one place; who makes it is run.py."""

import ssl
from dataclasses import dataclass

from fabric.gateway.audit import RefusalAudit
from fabric.gateway.cluster import Address, Directory
from fabric.gateway.judge import Judge
from fabric.gateway.refusals import RefusalLog
from fabric.gateway.upstream import Context
from fabric.metrics import GatewayMetrics
from fabric.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What all connections share.

    Attributes:
        context: for clients.
        upstream: gives the context for brokers.
        bootstrap: brokers to begin with.
    """

    judge: Judge
    directory: Directory
    refusals: RefusalLog
    metrics: GatewayMetrics
    clock: Clock
    context: ssl.SSLContext
    upstream: Context
    audit: RefusalAudit
    bootstrap: tuple[Address, ...]

    @property
    def trust_domain(self) -> str | None:
        """The policy's, None before there is a policy."""
        view = self.judge.view
        return view.policy.trust.trust_domain if view else None
