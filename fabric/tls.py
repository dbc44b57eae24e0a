"""TLS contexts: version 1.3 only, both sides with certificates, no tickets.

This is the only place that makes an SSL context. Certificates follow the two
profiles of the platform: SVIDs of hosts and certificates of platform parts.
"""

import socket
import ssl
from datetime import datetime
from pathlib import Path

from cryptography import x509

from fabric.model.errors import ConfigInvalid


def client_context(cert: Path | None, key: Path | None, ca: Path) -> ssl.SSLContext:
    """A client's context: checks the server's chain against `ca` and its name.

    Args:
        cert: our certificate chain, PEM; None only before the first attestation.
        key: its private key, PEM.

    Raises:
        ConfigInvalid: a file cannot be read or does not fit; names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ca)
    if cert is not None:
        _load_own(context, cert, key)
    return context


def server_context(
    cert: Path, key: Path, ca: Path, *, demand: bool = True, ca_setting: str = "tls.ca"
) -> ssl.SSLContext:
    """A server's context.

    Args:
        demand: refuse clients without a certificate that chains to `ca`; False asks for
            one and checks it when given (enrolment comes before any certificate).
        ca_setting: key of `ca` in the settings, for errors.

    Raises:
        ConfigInvalid: a file cannot be read or does not fit; names the file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, ca, ca_setting)
    context.verify_mode = ssl.CERT_REQUIRED if demand else ssl.CERT_OPTIONAL
    # A resumed session would outlive the certificate that opened it.
    context.num_tickets = 0
    _load_own(context, cert, key)
    return context


def certificate_end(cert: Path) -> datetime:
    """When the first certificate of a PEM file ends, aware UTC; raises ConfigInvalid."""
    try:
        return x509.load_pem_x509_certificate(cert.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as exc:
        raise ConfigInvalid(f"{cert}: holds no certificate that can be read") from exc


def why_not(exc: Exception) -> str:
    """Why a TLS connection did not come about or broke, in words for a person."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {exc.verify_message}"
    if isinstance(exc, ssl.SSLError):
        told = getattr(exc, "reason", None) or type(exc).__name__
        return f"it refuses our certificate, or speaks no TLS 1.3 ({told})"
    if isinstance(exc, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(exc, socket.gaierror):
        return "its name does not resolve"
    if isinstance(exc, TimeoutError):
        return "it does not answer in time"
    if isinstance(exc, ConnectionError | EOFError):
        return "it hangs up; it may not take our certificate"
    return f"cannot connect ({type(exc).__name__})"


def _restrict(context: ssl.SSLContext, ca: Path, setting: str = "tls.ca") -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=str(ca))
    except (OSError, ssl.SSLError) as exc:
        raise ConfigInvalid(
            f"{setting}: {ca} holds no CA certificates that can be read; name a PEM file that does"
        ) from exc


def _load_own(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        # An empty password, so that OpenSSL asks nobody for one on the terminal.
        context.load_cert_chain(str(cert), str(key) if key else None, password="")
    except (OSError, ssl.SSLError) as exc:
        raise ConfigInvalid(
            f"{cert} and {key}: not a readable certificate with its key;"
            " correct `certificate` and `key` in section tls, admin or web"
        ) from exc
