"""Write starts and grants to a topic's grants topic, as its sender or as a custodian.

The same bytes go out until they are acknowledged. A grant that admission refuses
because the world has moved on (a new revocation, a newer policy) is no failure of
its dataset: the next look makes it anew.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from fabric.agent.host import Host
from fabric.agent.refusal_machine import pause_s
from fabric.attest.keys import PublicKey
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import EPOCH_AGE_S_MAX, RECIPIENTS_MAX
from fabric.model.names import HostId, Topic, grants_topic
from fabric.policy.types import Dataset
from fabric.seal.epoch import VerifiedStart
from fabric.seal.grant import GrantDraft, grant, grant_key
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of

_APPEND_TRIES_MAX = 30


def keep_from(dataset: Dataset, now: datetime) -> datetime:
    """Epochs that began before this have no data left: the last block came within their age."""
    return now - timedelta(seconds=dataset.retention_s + EPOCH_AGE_S_MAX)


async def append(host: Host, topic: Topic, key: bytes, values: Sequence[bytes]) -> None:
    """Send records one after the other until all are acknowledged.

    Raises:
        PeerError, DeniedError: refused for good.
        UnavailableError: not acknowledged yet.
    """
    for value in values:
        await _append(host, topic, key, value)


async def _append(host: Host, topic: Topic, key: bytes, value: bytes) -> None:
    for attempt in range(_APPEND_TRIES_MAX):
        try:
            await host.log.append(grants_topic(topic), 0, [(key, value)])
            return
        except UnavailableError as exc:
            host.telemetry.held(topic, exc.reason, str(exc.args[0]))
            await host.view.changed.wait(pause_s(attempt))
    raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "epoch start or grant is not acknowledged")


async def send_grants(
    host: Host,
    result: Result,
    started: VerifiedStart,
    *,
    secret: EpochSecret,
    keys: Mapping[HostId, PublicKey],
) -> frozenset[tuple[HostId, bytes]]:
    """Grant an epoch to hosts; the (host, key thumbprint) pairs that were acknowledged.

    Args:
        result: this host's own, current.
        keys: whom to serve, with the key to wrap to.
    """
    topic, served = started.start.topic, frozenset[tuple[HostId, bytes]]()
    hosts = sorted(keys)
    for at in range(0, len(hosts), RECIPIENTS_MAX):
        part = {name: keys[name] for name in hosts[at : at + RECIPIENTS_MAX]}
        try:
            await _send(host, result, started, secret=secret, keys=part)
        except (PeerError, DeniedError, UnavailableError) as exc:
            host.telemetry.refused(topic, exc.reason, loud=not isinstance(exc, UnavailableError))
            return served
        served |= {(name, key.thumbprint) for name, key in part.items()}
    return served


async def _send(
    host: Host,
    result: Result,
    started: VerifiedStart,
    *,
    secret: EpochSecret,
    keys: Mapping[HostId, PublicKey],
) -> None:
    draft = GrantDraft(
        granter=host.view.me,
        result_id=result.id,
        policy_version=host.view.policy.version,
        revocation_number=host.view.members.revocation_number,
        granted=host.clock.now(),
    )
    signers = host.identity.keyring.signers(result, suite_of(started.start.suite))
    values = await asyncio.to_thread(
        grant, draft, started, secret, recipients=[*keys.items()], signers=signers
    )
    await append(host, started.start.topic, grant_key(host.view.me, started.start.id), values)
