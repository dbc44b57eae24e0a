"""Ask a broker which cluster it belongs to and which id a topic has.

A deleted and remade topic has another id, and then an offset hint means nothing.
"""

import asyncio
import ssl
from collections.abc import Sequence
from uuid import UUID

from fabric.kafka.metadata import ask, read, request
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX

_TOPIC_AUTHORIZATION_FAILED = 29


async def identify(
    brokers: Sequence[str], context: ssl.SSLContext, topic: str, *, client_id: str
) -> tuple[str, str]:
    """Cluster id and topic id, from the first broker that answers.

    Raises:
        DeniedError: NOT_A_CONSUMER, the topic must not be seen by us.
        UnavailableError: BROKER_UNAVAILABLE or NOT_READY.
    """
    failure: Exception | None = None
    for address in brokers:
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                answer = await ask(host, int(port), context, request([topic], client_id))
            return _identity(answer, topic)
        except (OSError, EOFError, TimeoutError, PeerError) as exc:
            failure = exc
    raise UnavailableError(
        Reason.BROKER_UNAVAILABLE, f"no broker tells its cluster id ({type(failure).__name__})"
    ) from failure


def _identity(answer: bytes, topic: str) -> tuple[str, str]:
    response = read(answer)
    for item in response.topics:
        if item.error == _TOPIC_AUTHORIZATION_FAILED:
            raise DeniedError(Reason.NOT_A_CONSUMER, f"reading topic {topic} is not allowed")
        if not item.error and item.name == topic and any(item.ident):
            return response.cluster_id or "", str(UUID(bytes=item.ident))
    raise UnavailableError(Reason.NOT_READY, f"topic {topic} does not exist yet")
