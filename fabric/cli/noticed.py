"""What the authority's notices say against this host, asked of it over HTTPS as agents ask.

The broker closes every topic to a host that is suspended or revoked, so the log cannot tell
it why; and while its agent is down, nobody here knows.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fabric.attest.members import Members
from fabric.attest.notices import Notice, NoticeKind
from fabric.cli import parts
from fabric.cli.access import policy_of
from fabric.cli.output import Unattested, is_of_attestation
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.names import MEMBERS
from fabric.policy.types import Policy
from fabric.tls import client_context
from fabric.web.authority import AuthorityClient

_ASK_S_MAX = 10.0
"""Deadline of all questions together; within a doctor's for the whole check."""


@contextlib.asynccontextmanager
async def noticed(config: AgentConfig) -> AsyncIterator[None]:
    """Let what is denied inside be the authority's notice against this host, where one stands.

    What its agent said (`explained`) is not asked for again.

    Raises:
        Unattested: HOST_SUSPENDED or HOST_REVOKED, with since when and why.
    """
    try:
        yield
    except DeniedError as exc:
        if isinstance(exc, Unattested) or not is_of_attestation(exc.reason):
            raise
        try:
            async with asyncio.timeout(_ASK_S_MAX):
                notice = await _against(config)
        except (FabricError, TimeoutError):
            raise exc from None  # the check of the authority says what is wrong with it
        if notice is None:
            raise
        raise _said(notice) from exc


async def _against(config: AgentConfig) -> Notice | None:
    """The notice that stands against this host, once every notice of the authority is known."""
    policy = await _policy(config)
    approval = policy.approvals.get(config.agent.host)
    context = client_context(None, None, config.tls.ca)  # ours may be over; none is asked for
    authority = AuthorityClient(config.authority.url, lambda: context)
    members = Members(policy.trust)
    while True:
        known = members.revocation_number
        answer = await authority.notices(known)
        for key, value in answer.records:
            with contextlib.suppress(PeerError):  # what the authority did not sign is nothing
                members.feed(MEMBERS, key, value)
        if members.whole_at is not None:
            return members.against(config.agent.host, approval.number if approval else 0)
        if members.revocation_number == known:
            raise UnavailableError(Reason.MEMBERS_STALE, "authority does not give all its notices")


async def _policy(config: AgentConfig) -> Policy:
    """The repository's, where it gives one: a newer approval may have lifted the notice."""
    try:
        return await parts.policy(config.policy, config.tls.ca)
    except FabricError:
        return await asyncio.to_thread(policy_of, config)


def _said(notice: Notice) -> Unattested:
    is_final = notice.kind == NoticeKind.REVOCATION
    return Unattested(
        Reason.HOST_REVOKED if is_final else Reason.HOST_SUSPENDED,
        f"the authority {'revoked' if is_final else 'suspended'} this host at"
        f" {notice.at:%Y-%m-%d %H:%M:%S} UTC, up to approval {notice.approval}"
        f" (notice {notice.number}: {notice.why})",
    )
