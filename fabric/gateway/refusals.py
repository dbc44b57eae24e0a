"""Why the gateway refused a record: kept for a while, told to whoever was refused.

Old clients cannot carry a reason in Kafka's own answer, so they ask here, over
HTTPS with the certificate they produced with:
`GET /refusals/{topic}/{partition}/{SHA-256 of the record's value, hex}`
gives `{"reason": "..."}` or 404; nobody learns of another identity's refusals.

A batch that is compressed and refused before anybody looked into it has no digest to be kept
under, and none is made: what it expands to would be work that whoever may not write could ask
for. Its identity, topic and reason stand in the gateway's log, audit log and metrics, and its
producer learns the reason from Kafka's answer, from Produce version 8 on.
"""

import re
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

from aiohttp import web

from fabric.config_fields import Address
from fabric.gateway.identity import identify
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import REFUSALS_REMEMBERED, REFUSED_IDENTITIES_MAX, SIDE_CONNECTIONS_MAX
from fabric.web.listener import Listener

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PARTITION = re.compile(r"[0-9]{1,10}")
_STOP_S_MAX = 1.0
_BODY_BYTES_MAX = 1_024

_Key: TypeAlias = tuple[str, int, bytes]
_K = TypeVar("_K")
_V = TypeVar("_V")


class RefusalLog:
    """The newest refusals, by identity, topic, partition and SHA-256 of the record's value.

    Each identity has a share of its own: nobody's refusals make room for another's.

    Args:
        size: refusals of one identity.
        identities: the one that was refused longest ago is forgotten first.
    """

    def __init__(
        self, size: int = REFUSALS_REMEMBERED, *, identities: int = REFUSED_IDENTITIES_MAX
    ) -> None:
        self._size = size
        self._identities = identities
        self._reasons: OrderedDict[str, OrderedDict[_Key, Reason]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(reasons) for reasons in self._reasons.values())

    def note(
        self, identity: str, topic: str, partition: int, *, digest: bytes, reason: Reason
    ) -> None:
        """Keep a refusal; the identity's oldest is forgotten."""
        _put(self._reasons, identity, self._reasons.get(identity, OrderedDict()), self._identities)
        _put(self._reasons[identity], (topic, partition, digest), reason, self._size)

    def reason_of(
        self, identity: str, topic: str, partition: int, *, digest: bytes
    ) -> Reason | None:
        """Why this identity's record was refused, as far as it is remembered."""
        reasons = self._reasons.get(identity)
        return None if reasons is None else reasons.get((topic, partition, digest))


def _put(kept: OrderedDict[_K, _V], key: _K, value: _V, size: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > size:
        kept.popitem(last=False)


@asynccontextmanager
async def serving(
    log: RefusalLog,
    listen: Address,
    *,
    context: ssl.SSLContext,
    trust_domain: Callable[[], str | None],
) -> AsyncIterator[int]:
    """Serve the refusal log while the block runs; yields the bound port.

    Args:
        trust_domain: the policy's SPIFFE trust domain, None before there is a policy.

    Raises:
        ConfigInvalid: the address cannot be bound.
    """
    app = web.Application(client_max_size=_BODY_BYTES_MAX)
    app.router.add_get("/refusals/{topic}/{partition}/{digest}", _Refusals(log, trust_domain).get)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_S_MAX)
    await runner.setup()
    assert runner.server is not None
    listener = Listener(
        runner.server,
        context,
        setting="gateway.side_listen",
        connections_max=SIDE_CONNECTIONS_MAX,
    )
    try:
        async with listener.listening(listen) as port:
            yield port
    finally:
        await runner.cleanup()


class _Refusals:
    def __init__(self, log: RefusalLog, trust_domain: Callable[[], str | None]) -> None:
        self._log = log
        self._trust_domain = trust_domain

    async def get(self, request: web.Request) -> web.Response:
        """One reason, or 404 whatever is missing; 403 without an identity."""
        identity = self._identity(request)
        if identity is None:
            raise web.HTTPForbidden
        partition, digest = request.match_info["partition"], request.match_info["digest"]
        if not _PARTITION.fullmatch(partition) or not _DIGEST.fullmatch(digest):
            raise web.HTTPNotFound
        reason = self._log.reason_of(
            identity, request.match_info["topic"], int(partition), digest=bytes.fromhex(digest)
        )
        if reason is None:
            raise web.HTTPNotFound
        return web.json_response({"reason": str(reason)})

    def _identity(self, request: web.Request) -> str | None:
        trust_domain = self._trust_domain()
        tls = request.transport.get_extra_info("ssl_object") if request.transport else None
        certificate = tls.getpeercert(binary_form=True) if tls else None
        if trust_domain is None or certificate is None:
            return None
        try:
            return identify(certificate, trust_domain).name
        except PeerError:
            return None
