"""Ask the gateways why they refused a record; Kafka's own answer has no room for reasons."""

import asyncio
import json
import ssl
from collections.abc import Callable, Sequence
from urllib.parse import quote

from fabric.model.errors import FabricError, Reason
from fabric.web.request import request

_ANSWER_BYTES_MAX = 4_096
_ASKED_AT_ONCE_MAX = 8
_FOUND = 200


class RefusalsClient:
    """The refusal logs of all gateways, as one.

    Args:
        urls: base URLs, `https://host:port`.
        context: gives the current TLS context, with the identity that was refused.
    """

    def __init__(self, urls: Sequence[str], context: Callable[[], ssl.SSLContext]) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._context = context

    async def reason_of(self, topic: str, partition: int, digest: bytes) -> Reason | None:
        """Why a record was refused, or None when no gateway knows or answers.

        Args:
            digest: SHA-256 of the record's value.
        """
        path = f"/refusals/{quote(topic, safe='')}/{partition}/{digest.hex()}"
        gate = asyncio.Semaphore(_ASKED_AT_ONCE_MAX)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(url + path, gate)) for url in self._urls]
        answers = [task.result() for task in asked]
        return next((reason for reason in answers if reason is not None), None)

    async def _ask(self, url: str, gate: asyncio.Semaphore) -> Reason | None:
        try:
            async with gate:
                status, _, data = await request(
                    "GET", url, context=self._context(), answer_bytes_max=_ANSWER_BYTES_MAX
                )
        except FabricError:
            return None
        return _reason_in(data) if status == _FOUND else None


def _reason_in(data: bytes) -> Reason | None:
    try:
        text = json.loads(data)["reason"]
        return Reason(text)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
