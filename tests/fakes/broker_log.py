"""KafkaLog on the shared test broker, with the administrator's rights, and its topics."""

import secrets
import ssl
from pathlib import Path
from typing import Protocol

from fabric.kafka.admin import AdminTls, KafkaAdmin, TopicSpec
from fabric.kafka.log import KafkaLog
from fabric.tls import client_context


class Broker(Protocol):
    """The `broker` fixture."""

    address: str
    ca: Path

    def files(self, name: str) -> tuple[Path, Path]: ...


class BrokerBench:
    """Makes topics and logs; the broker stands in for the gateways too."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        certificate, key = broker.files("admin")
        tls = AdminTls(certificate=certificate, key=key, ca=broker.ca)
        self.admin = KafkaAdmin([broker.address], tls)

    def context(self, name: str = "admin") -> ssl.SSLContext:
        return client_context(*self.broker.files(name), self.broker.ca)

    async def topic(self, *, partitions: int = 1, **settings: str) -> str:
        """A new topic of data; settings with `_` for `.`."""
        name = f"secret.T1.t{secrets.token_hex(6)}"
        exact = {key.replace("_", "."): value for key, value in settings.items()}
        await self.admin.ensure_topics(
            [TopicSpec(name=name, partitions=partitions, settings=exact)]
        )
        return name

    def log(self, name: str = "admin", **more: object) -> KafkaLog:
        """A log as one identity sees it."""
        context = self.context(name)
        brokers = [self.broker.address]
        return KafkaLog(brokers, brokers, lambda: context, client_id="a test", **more)  # type: ignore[arg-type]
