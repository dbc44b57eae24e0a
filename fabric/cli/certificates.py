"""A doctor's look at a part's certificate: everything that a handshake would ask of it.

Both ends of a handshake are played in memory with the contexts that the part itself
makes, so that what passes here passes there.
"""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from fabric.authority.pki import PLATFORM
from fabric.model.errors import ConfigInvalid
from fabric.tls import certificate_end, client_context, server_context

_TURNS_MAX = 16
_DAY_S = 24 * 3600


def look(
    certificate: Path, key: Path, ca: Path, *, common_name: str, hosts: Sequence[str] = ()
) -> str:
    """Readable, of one pair, not ended, trusted by `ca`, under the right name. Blocks.

    Args:
        common_name: of the platform's part that it must be.
        hosts: names by which peers reach the part; one of them must be the certificate's.

    Raises:
        ConfigInvalid: with what is wrong and the remedy.
    """
    client, server = client_context(certificate, key, ca), server_context(certificate, key, ca)
    left_s = (certificate_end(certificate) - datetime.now(UTC)).total_seconds()
    if left_s <= 0:
        raise ConfigInvalid(f"{certificate} has ended; issue a new one, then start the part again")
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    subject = f"CN={common_name},O={PLATFORM}"
    if _subject(parsed) != subject:
        raise ConfigInvalid(
            f"{certificate} is {_subject(parsed)}, and must be {subject}; name the part's own"
        )
    names = _names(parsed)
    if hosts and not any(_shake(client, server, host) is None for host in hosts):
        fault = _shake(client, server, hosts[0])
        raise ConfigInvalid(
            f"{certificate}: {fault}; issue it under a CA in {ca}, with {' or '.join(hosts)} among"
            " its names"
        )
    if names and not hosts and (fault := _shake(client, server, names[0])):
        raise ConfigInvalid(f"{certificate}: {fault}; issue it under a CA in {ca}")
    return f"{subject}, {_left(left_s)} left"


def look_at_pages(certificate: Path, key: Path, client_ca: Path) -> str:
    """The pages' server beyond loopback: readable, of one pair, not ended, and named. Blocks.

    Raises:
        ConfigInvalid: with what is wrong and the remedy.
    """
    server_context(certificate, key, client_ca, ca_setting="web.client_ca")
    left_s = (certificate_end(certificate) - datetime.now(UTC)).total_seconds()
    if left_s <= 0:
        raise ConfigInvalid(
            f"{certificate} has ended; put a new one in its place, the process reads it by itself"
        )
    names = _names(x509.load_pem_x509_certificate(certificate.read_bytes()))
    if not names:
        raise ConfigInvalid(
            f"{certificate} names no host; issue it with the names by which Prometheus reaches this"
            " process"
        )
    return f"for {', '.join(names)}, {_left(left_s)} left"


def _left(seconds: float) -> str:
    return f"{seconds / _DAY_S:.0f} days" if seconds >= 2 * _DAY_S else f"{seconds / 3600:.0f} h"


def _subject(certificate: x509.Certificate) -> str:
    """In Kafka's order: what brokers take the principal from."""
    found = {a.oid: a.value for a in certificate.subject}
    if found.keys() != {NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME}:
        return certificate.subject.rfc4514_string() or "nobody"
    return f"CN={found[NameOID.COMMON_NAME]!s},O={found[NameOID.ORGANIZATION_NAME]!s}"


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = [str(ip) for ip in found.get_values_for_type(x509.IPAddress)]
    return [*found.get_values_for_type(x509.DNSName), *addresses]


def _shake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> str | None:
    """Play both ends; None when they agree, else why one of them does not."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(_TURNS_MAX):
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as exc:
                return exc.verify_message
            except ssl.SSLError as exc:
                return f"its handshake fails ({exc.reason})"
        if not ends:
            return None
    return "its handshake does not end"
