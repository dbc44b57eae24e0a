"""The files of a policy in memory that load, for tests to change one thing in."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from fabric.policy import load as loading
from fabric.policy.types import Policy
from tests.fakes.clock import START

VERSION = 7
EXPIRES = datetime(2027, 1, 1, tzinfo=UTC)
TOPIC = "secret.G01.residents"
OPEN_TOPIC = "public.G01.wards"
SENDER = "G01/registry/host-a"
READER = "G02/health/host-b"
SCHEMA = b"""{"type": "record", "name": "Resident", "fields": [
    {"name": "id", "type": "long"},
    {"name": "name", "type": "string"},
    {"name": "phone", "type": ["null", "string"], "default": null}]}"""


@cache
def certificate(begin: datetime = START) -> bytes:
    """Any certificate, PEM: the loader looks at its shape alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "any")])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(Encoding.PEM)


def _level(name: str, host_level: int, suites: list[str], *, padding: bool) -> dict[str, Any]:
    return {
        "name": name,
        "sealed": bool(suites),
        "suites": suites,
        "host_level_min": host_level,
        "evidence": ["tpm2"],
        "result_lifetime_s": 600,
        "delivery_s": 60,
        "coding": "zstd" if suites else "none",
        "padding": padding,
        "citation": "a law",
    }


def documents() -> dict[str, Any]:
    """Every document by file, as Python values; change them and give them to `files`."""
    dataset = {
        "level": "secret",
        "label": "secret+personal-data",
        "schema": "schemas/G01/residents.avsc",
        "key": ["id"],
        "suite": "hybrid",
        "partitions": 1,
        "salt": "5a" * 32,
        "retention_s": 604_800,
        "producers": ["G01/registry/registry"],
        "consumers": ["G02/health", "G03/statistics/host-c"],
        "history": "retained",
        "on_unappliable": "quarantine",
        "schema_id": 1,
        "tags": {"name": "personal-data:basic"},
        "legal_basis": "a law",
    }
    opened = {"level": "public", "label": "public", "suite": "", "schema_id": 2, "tags": {}}
    approval = {
        "number": 1,
        "ek_sha256": "01" * 32,
        "ak_name": None,
        "security_level": 4,
        "clearance": "secret+personal-data",
        "pcrs": [0, 1, 7],
        "digests": ["02" * 32],
        "not_before": "2026-08-01T00:00:00Z",
        "not_after": "2026-10-01T00:00:00Z",
    }
    return {
        "policy.yaml": {
            "trust": {
                "trust_domain": "fabric.example",
                "verifier": {
                    "name": "verifier",
                    "keys": [
                        {"alg": -19, "public": "03" * 32},
                        {"alg": -49, "public": "04" * 1952},
                    ],
                },
                "ca": "trust/ca.pem",
                "ek_ca": "trust/ek-ca.pem",
            },
        },
        "levels.yaml": [
            _level("public", 1, [], padding=False),
            _level("internal", 1, [], padding=False),
            _level("confidential", 3, ["hybrid", "classic"], padding=False),
            _level("secret", 4, ["hybrid"], padding=True),
            _level("top-secret", 5, ["hybrid"], padding=True),
        ],
        "suites.yaml": [
            {"id": "classic", "status": "approved"},
            {"id": "hybrid", "status": "approved"},
        ],
        "floors.yaml": {"floors": {"G01/residents": "secret+personal-data", "G01/wards": "public"}},
        "agencies/G01.yaml": {"name": "Registry"},
        "agencies/G02.yaml": {"name": "Health"},
        "agencies/G03.yaml": {"name": "Statistics"},
        f"approvals/{SENDER}.yaml": approval,
        f"approvals/{READER}.yaml": {**approval, "ek_sha256": "05" * 32},
        "datasets/G01/residents.yaml": dataset,
        "datasets/G01/wards.yaml": {**dataset, **opened},
    }


def files(changed: Mapping[str, Any] | None = None, agency: str = "G01") -> dict[str, bytes]:
    """The folder's files; `changed` are documents, `documents()` when None."""
    source = documents() if changed is None else changed
    text = {name: yaml.safe_dump(value).encode() for name, value in source.items()}
    pem = {"trust/ca.pem": certificate(), "trust/ek-ca.pem": certificate()}
    return {**text, **pem, f"schemas/{agency}/residents.avsc": SCHEMA}


def load(content: Mapping[str, bytes]) -> Policy:
    """Load files as if they came from a signed repository."""
    return loading.load(content, version=VERSION, expires=EXPIRES)


def policy(changed: Mapping[str, Any] | None = None) -> Policy:
    """The loaded policy."""
    return load(files(changed))
