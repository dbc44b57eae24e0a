"""How a measured client reaches Kafka: address, papers, and aiokafka and librdkafka settings."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric import tls


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to the platform: where, and with whose certificate; mTLS always."""

    bootstrap: str
    certificate: Path
    key: Path
    ca: Path

    @classmethod
    def of(cls, told: Mapping[str, str]) -> "Route":
        """From a job's JSON."""
        return cls(
            bootstrap=told["bootstrap"],
            certificate=Path(told["certificate"]),
            key=Path(told["key"]),
            ca=Path(told["ca"]),
        )

    def told(self) -> dict[str, str]:
        """As JSON for a job."""
        return {
            "bootstrap": self.bootstrap,
            "certificate": str(self.certificate),
            "key": str(self.key),
            "ca": str(self.ca),
        }

    def context(self) -> ssl.SSLContext:
        """TLS 1.3 with our certificate, as the fabric's own clients use it."""
        return tls.client_context(self.certificate, self.key, self.ca)

    def aiokafka(self) -> dict[str, Any]:
        """Connection settings of aiokafka."""
        return {
            "bootstrap_servers": self.bootstrap,
            "security_protocol": "SSL",
            "ssl_context": self.context(),
        }

    def librdkafka(self) -> dict[str, Any]:
        """Connection settings of confluent-kafka."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": str(self.ca),
            "ssl.certificate.location": str(self.certificate),
            "ssl.key.location": str(self.key),
            "log_level": 0,
        }
