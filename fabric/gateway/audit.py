"""The gateway's audit: refusals without end in bounded lines, and heads under its TLS key.

A client can be refused a thousand times a second. The first refusal of a kind is
written at once, with the record's digest; how many more there were follows in one line
every half minute. Spec: docs/format.md section 12.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from fabric.attest.audit_chain import Link
from fabric.attest.audit_head import Head, head_record
from fabric.attest.keys import Alg, SigningKey, Use
from fabric.model.counting import Kinds
from fabric.model.errors import ConfigInvalid, Reason, ReasonClass, class_of
from fabric.model.limits import AUDIT_REFUSALS_REMEMBERED
from fabric.model.names import GATEWAY
from fabric.ports import AuditLog

_KINDS_PER_IDENTITY_MAX = 16
"""One host must not wash the others' lines out of the log."""
_TOPIC_CHARS_MAX = 249  # Kafka's own limit; a client may send more


class RefusalAudit:
    """Writes refusals of class hold, reseal and never; what may pass later is no event."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit
        self._kinds = Kinds[tuple[str, str, Reason]](AUDIT_REFUSALS_REMEMBERED)
        self._of: Counter[str] = Counter()

    def refused(
        self, identity: str, topic: str, partition: int, *, digest: bytes | None, reason: Reason
    ) -> None:
        """One record, or a whole request (partition -1), was refused."""
        if class_of(reason) is ReasonClass.WAIT:
            return
        key = (identity, topic[:_TOPIC_CHARS_MAX], reason)
        if key not in self._kinds and self._has_many(identity):
            key = (identity, "", reason)
        if not self._kinds.is_first(key, ("", "", reason)):
            return
        self._of[identity] += 1
        named = {"digest": digest.hex()} if digest else {}
        self._audit.write(
            "record_refused",
            {
                "identity": identity,
                "topic": key[1],
                "partition": partition,
                "reason": reason.value,
                **named,
            },
        )

    def _has_many(self, identity: str) -> bool:
        return self._of[identity] >= _KINDS_PER_IDENTITY_MAX

    def flush(self) -> None:
        """Write what was only counted; call it every FLUSH_S seconds and at the end."""
        counted, forgotten = self._kinds.flush()
        for (identity, topic, reason), records in counted:
            said = {"identity": identity, "topic": topic, "reason": reason.value}
            self._audit.write("records_refused", {**said, "records": records})
        self._of -= Counter(identity for identity, _, _ in forgotten)


def head_signer(
    certificate: Path, key: Path, now: Callable[[], datetime]
) -> Callable[[Link], tuple[bytes, bytes]]:
    """What signs the heads of this gateway's audit log: its TLS key, under its certificate.

    Raises:
        ConfigInvalid: the files do not hold a P-256 key with its certificate.
    """
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), None)
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigInvalid(f"{certificate} and {key}: cannot be read to sign with") from exc
    is_p256 = isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(
        private.curve, ec.SECP256R1
    )
    if not is_p256:
        raise ConfigInvalid(f"{key}: is not a P-256 key; issue the gateway's certificate for one")
    signer = SigningKey(Alg.ESP256, private, Use.TLS)
    der = leaf.public_bytes(Encoding.DER)

    def sign(link: Link) -> tuple[bytes, bytes]:
        head = Head(component=GATEWAY, link=link, at=now(), certificate=der)
        return head_record(head, [signer])

    return sign
