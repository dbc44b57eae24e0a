"""The demo's policy: levels by the law's defaults, three datasets, approvals per host.

Two persons sign what the authority says, the registry signs its own datasets.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from fabric.demo.layout import OTHER, PCRS, PUBLIC, SECRET, SOURCE_NAME, TRUST_DOMAIN, Host, Layout
from fabric.repository import keys, roster
from fabric.repository.publishing import OnlineKeys, publish
from fabric.repository.staging import Workspace, sign

RESULT_LIFETIME_S = 20
_LAW = "Decision 1562/QD-TTg of 2025; Law 117/2025/QH15"
_SCHEMAS = Path(__file__).parents[2] / "schemas"


def _sealed(name: str, host_level: int) -> dict[str, Any]:
    return {
        "name": name,
        "sealed": True,
        "suites": ["hybrid"] if name != "confidential" else ["hybrid", "classic"],
        "host_level_min": host_level,
        "evidence": ["tpm2"],
        "result_lifetime_s": RESULT_LIFETIME_S,
        "delivery_s": 60,
        "coding": "zstd",
        "padding": name != "confidential",
        "citation": f"{_LAW}; host level {host_level} is our inference",
    }


def _open(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "sealed": False,
        "suites": [],
        "host_level_min": 1,
        "evidence": ["tpm2"],
        "result_lifetime_s": RESULT_LIFETIME_S,
        "delivery_s": 60,
        "coding": "none",
        "padding": False,
        "citation": "Decision 1562/QD-TTg of 2025",
    }


LEVELS = [
    _open("public"),
    _open("internal"),
    _sealed("confidential", 3),
    _sealed("secret", 4),
    _sealed("top-secret", 5),
]


_PERSONS = ("an", "binh")
_SNAPSHOT, _TIMESTAMP = "snapshot", "timestamp"
_AGENCY = "G01"


class PolicyWriter:
    """Writes the policy's documents, and has them signed and published."""

    def __init__(self, layout: Layout) -> None:
        self._folder = layout.policy
        self._layout = layout
        self._workspace = Workspace(layout.workspace)
        self._keys = layout.pki / "policy"
        self._approvals: dict[str, dict[str, Any]] = {}

    def create(self, verifier_keys: list[tuple[int, bytes]], ek_ca: bytes) -> None:
        """Write everything but the approvals, and publish."""
        for name in ("trust", "agencies", "schemas/G01", "datasets/G01"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        self._make_keys()
        (self._folder / "trust" / "ca.pem").write_bytes(self._layout.ca.read_bytes())
        (self._folder / "trust" / "ek-ca.pem").write_bytes(ek_ca)
        self._write("levels.yaml", LEVELS)
        suites = [{"id": name, "status": "approved"} for name in ("classic", "hybrid")]
        self._write("suites.yaml", suites)
        for code, name in (("G01", "Registry"), ("G02", "Health"), ("G03", "Statistics")):
            self._write(f"agencies/{code}.yaml", {"name": name})
        for name in ("wards", "residents", "notes"):
            text = (_SCHEMAS / f"{name}.avsc").read_bytes()
            (self._folder / "schemas" / _AGENCY / f"{name}.avsc").write_bytes(text)
        self._write_datasets()
        trust = {
            "trust_domain": TRUST_DOMAIN,
            "verifier": {
                "name": "verifier",
                "keys": [{"alg": alg, "public": public.hex()} for alg, public in verifier_keys],
            },
            "ca": "trust/ca.pem",
            "ek_ca": "trust/ek-ca.pem",
        }
        self._write("policy.yaml", {"trust": trust})
        self.publish()

    def _make_keys(self) -> None:
        """A key for each of the two persons, for the agency, and for the authority's service."""
        self._keys.mkdir(parents=True, exist_ok=True)
        made = {
            name: keys.make_key(self._keys / f"{name}.pem")
            for name in (*_PERSONS, _AGENCY, _SNAPSHOT, _TIMESTAMP)
        }
        persons = {name: made[name] for name in _PERSONS}
        text = roster.first_roster(
            persons,
            {_AGENCY: made[_AGENCY]},
            snapshot=made[_SNAPSHOT],
            timestamp=made[_TIMESTAMP],
        )
        (self._workspace.folder / roster.FILE).write_bytes(text)

    def _write_datasets(self) -> None:
        named = ["G02/health", "G03/statistics"]
        common = {
            "partitions": 1,
            "retention_s": 7 * 24 * 3600,
            "consumers": named,
            "history": "retained",
            "on_unappliable": "quarantine",
            "legal_basis": _LAW,
        }
        wards = {
            **common,
            "level": PUBLIC.level,
            "label": "public",
            "schema": "schemas/G01/wards.avsc",
            "key": ["code"],
            "suite": "",
            "producers": [f"G01/registry/{SOURCE_NAME}"],
            "schema_id": 1,
            "tags": {},
        }
        residents = {
            **common,
            "level": SECRET.level,
            "label": "secret+personal-data",
            "schema": "schemas/G01/residents.avsc",
            "key": ["id"],
            "suite": "hybrid",
            "producers": [f"G01/registry/{SOURCE_NAME}"],
            "schema_id": 2,
            "tags": {
                "full_name": "personal-data:basic",
                "birth_date": "personal-data:basic",
                "id_number": "personal-data:basic",
                "phone": "personal-data:basic",
                "address": "personal-data:basic",
            },
        }
        notes = {
            **residents,
            "level": OTHER.level,
            "schema": "schemas/G01/notes.avsc",
            "producers": ["G01/registry/outbox"],
            "schema_id": 3,
            "tags": {"text": "personal-data:basic"},
        }
        for name, document in (("wards", wards), ("residents", residents), ("notes", notes)):
            salt = os.urandom(32).hex()
            self._write(f"datasets/G01/{name}.yaml", {**document, "salt": salt})

    def approve(self, host: Host, **fields: Any) -> None:
        """Write or change a host's approval; call `publish` when all is written."""
        now = datetime.now(UTC)
        document = self._approvals.setdefault(
            str(host.id),
            {
                "number": 1,
                "ak_name": None,
                "security_level": host.level,
                "clearance": host.clearance,
                "pcrs": list(PCRS),
                "not_before": (now - timedelta(minutes=5)).isoformat(),
                "not_after": (now + timedelta(days=30)).isoformat(),
            },
        )
        document.update(fields)
        self._write(f"approvals/{host.id}.yaml", document)

    def approval_number(self, host: Host) -> int:
        """Number of the host's current approval."""
        return int(self._approvals[str(host.id)]["number"])

    def publish(self) -> int:
        """Sign and publish: what was written takes effect at the next refresh; its version.

        The authority's persons set the floor of each new dataset where its label is.
        """
        self._write("floors.yaml", {"floors": self._labels()})
        signers = {
            name: keys.open_signer(str(self._keys / f"{name}.pem"))
            for name in (*_PERSONS, _AGENCY, _SNAPSHOT, _TIMESTAMP)
        }
        now = datetime.now(UTC)
        for name in (*_PERSONS, _AGENCY):
            sign(self._workspace, signers[name], now)
        online = OnlineKeys(snapshot=signers[_SNAPSHOT], timestamp=signers[_TIMESTAMP])
        return publish(self._workspace, online, now).version

    def _labels(self) -> dict[str, str]:
        labels = {}
        for path in sorted((self._folder / "datasets").glob("*/*.yaml")):
            name = f"{path.parent.name}/{path.stem}"
            labels[name] = str(yaml.safe_load(path.read_text())["label"])
        return labels

    def _write(self, name: str, document: Any) -> None:
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
        part.replace(path)
