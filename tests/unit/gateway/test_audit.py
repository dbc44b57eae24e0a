"""The gateway's audit: every kind of refusal is on record, and a flood is a few lines."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fabric.attest.audit_chain import Link
from fabric.attest.audit_head import parse_head, verify_head
from fabric.authority.pki import issue_platform, make_ca
from fabric.gateway.audit import RefusalAudit, head_signer
from fabric.model.errors import ConfigInvalid, Reason
from fabric.model.limits import AUDIT_REFUSALS_REMEMBERED
from fabric.policy.types import Trust
from tests.fakes.audit import MemoryAudit

LINK = Link(log=bytes(16), number=1, hash=bytes(32))


def refuse(log: RefusalAudit, identity: str = "G02/health/b1", **changes: object) -> None:
    known = {"topic": "secret.G01.notes", "partition": 0, "digest": b"d" * 32}
    said = {**known, "reason": Reason.BAD_SIGNATURE, **changes}
    topic, partition = said.pop("topic"), said.pop("partition")
    log.refused(identity, topic, partition, **said)  # type: ignore[arg-type]


def test_the_first_refusal_of_a_kind_is_written_at_once_and_the_rest_are_counted() -> None:
    audit = MemoryAudit()
    log = RefusalAudit(audit)
    for _ in range(1_000):
        refuse(log)
    refuse(log, reason=Reason.REPLAYED, digest=None)
    log.flush()
    log.flush()
    assert [event for event, _ in audit.events] == [
        "record_refused",
        "record_refused",
        "records_refused",
    ]
    assert audit.events[0][1] == {
        "identity": "G02/health/b1",
        "topic": "secret.G01.notes",
        "partition": 0,
        "reason": "bad_signature",
        "digest": "64" * 32,
    }
    assert audit.events[2][1]["records"] == 999


def test_a_kind_that_rests_is_new_when_it_comes_again() -> None:
    audit = MemoryAudit()
    log = RefusalAudit(audit)
    refuse(log)
    for _ in range(8):
        log.flush()
    refuse(log)
    assert [event for event, _ in audit.events] == ["record_refused"] * 2


def test_what_may_pass_later_is_no_event() -> None:
    audit = MemoryAudit()
    refuse(RefusalAudit(audit), reason=Reason.MEMBERS_STALE)
    assert audit.events == []


def test_many_identities_fill_neither_memory_nor_disk() -> None:
    audit = MemoryAudit()
    log = RefusalAudit(audit)
    for n in range(3 * AUDIT_REFUSALS_REMEMBERED):
        refuse(log, f"G02/health/b{n}", topic="x" * 1_000)
    log.flush()
    assert len(audit.events) == AUDIT_REFUSALS_REMEMBERED + 1
    assert audit.events[-1] == (
        "records_refused",
        {
            "identity": "",
            "topic": "",
            "reason": "bad_signature",
            "records": 2 * AUDIT_REFUSALS_REMEMBERED,
        },
    )


def test_one_identity_washes_no_other_out_of_the_log() -> None:
    audit = MemoryAudit()
    log = RefusalAudit(audit)
    for n in range(1_000):
        refuse(log, topic=f"topic-{n}")
    refuse(log, "G03/other/c1")
    log.flush()
    mine = [fields for _, fields in audit.events if fields["identity"] == "G02/health/b1"]
    assert len(mine) == 18
    assert mine[-1] == {
        "identity": "G02/health/b1",
        "topic": "",
        "reason": "bad_signature",
        "records": 983,
    }
    assert audit.events[-2][1]["identity"] == "G03/other/c1"


def test_heads_are_signed_with_the_tls_key(tmp_path: Path) -> None:
    ca = make_ca("platform")
    certificate, key = tmp_path / "gateway.pem", tmp_path / "gateway.key"
    pem, private = issue_platform(ca, "gateway", hosts=["localhost"], days=1)
    certificate.write_bytes(pem)
    key.write_bytes(private)
    sign = head_signer(certificate, key, lambda: datetime.now(UTC))
    trust = Trust(
        trust_domain="x", verifier_name="v", verifier_keys=(), ca_pem=ca.cert_pem, ek_ca_pem=b""
    )
    head = verify_head(parse_head(*sign(LINK)), trust, lambda _: pytest.fail("no result"))
    assert (head.component, head.link) == ("gateway", LINK)


def test_a_key_that_cannot_sign_heads_is_told_at_the_start(tmp_path: Path) -> None:
    certificate, key = tmp_path / "gateway.pem", tmp_path / "gateway.key"
    certificate.write_bytes(issue_platform(make_ca("p"), "gateway", hosts=[], days=1)[0])
    key.write_bytes(
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
    )
    with pytest.raises(ConfigInvalid, match="P-256"):
        head_signer(certificate, key, lambda: datetime.now(UTC))
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        head_signer(certificate, tmp_path / "none", lambda: datetime.now(UTC))
