"""An unrelated Kafka client (librdkafka) with certificates of the demo's choosing.

The proofs use it to send what must be refused, to write round the gateway, to act
as the broker's operator, and to read back what is stored.
"""

import hashlib
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

_DELIVERY_S = 10
_QUIET_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Papers:
    """With what a client shows up."""

    certificate: Path
    key: Path
    ca: Path

    def settings(self, bootstrap: str) -> dict[str, str | int]:
        """librdkafka's settings for mTLS."""
        return {
            "bootstrap.servers": bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.certificate),
            "ssl.key.location": str(self.key),
            "log_level": 0,
        }

    def context(self) -> ssl.SSLContext:
        """The same papers for HTTPS."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(self.certificate, self.key)
        return context


def produce(
    bootstrap: str, papers: Papers, topic: str, value: bytes, *, key: bytes | None = None
) -> str:
    """Send one record to partition 0; `stored` or the name of the error that came back."""
    outcome: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        outcome.append(error.name() if error else "stored")

    producer = Producer(
        {
            **papers.settings(bootstrap),
            "acks": "all",
            "message.timeout.ms": _DELIVERY_S * 1000,
            "message.send.max.retries": 0,
            "message.max.bytes": 1_000_000,
        }
    )
    try:
        producer.produce(topic, value=value, key=key, partition=0, on_delivery=delivered)
    except KafkaException as error:
        return str(error.args[0].name())
    producer.flush(_DELIVERY_S)
    return outcome[0] if outcome else "no answer"


def reason(refusals: str, papers: Papers, topic: str, value: bytes) -> str:
    """What the gateway's refusal log says about a record we sent; empty when it has none."""
    digest = hashlib.sha256(value).hexdigest()
    url = f"{refusals}/refusals/{topic}/0/{digest}"
    try:
        with urllib.request.urlopen(url, timeout=5, context=papers.context()) as answer:  # noqa: S310
            body: Mapping[str, str] = json.load(answer)
            return body["reason"]
    except urllib.error.HTTPError:
        return ""


def read(bootstrap: str, papers: Papers, topic: str, *, most: int = 10_000) -> list[bytes]:
    """Every value stored in partition 0 of a topic, from its beginning, at most `most`."""
    consumer = Consumer(
        {
            **papers.settings(bootstrap),
            "group.id": "unused",
            "enable.auto.commit": "false",
            "auto.offset.reset": "earliest",
        }
    )
    try:
        place = TopicPartition(topic, 0)
        low, high = consumer.get_watermark_offsets(place, timeout=10)
        consumer.assign([TopicPartition(topic, 0, low)])
        values: list[bytes] = []
        last = time.monotonic()
        position = low
        while position < high and len(values) < most and time.monotonic() - last < _DELIVERY_S:
            for message in consumer.consume(500, timeout=_QUIET_S):
                if message.error() is None:
                    position = (message.offset() or 0) + 1
                    values.append(message.value() or b"")
                    last = time.monotonic()
        return values
    finally:
        consumer.close()
