"""`fabric policy check` on bad policies, one for each reason: each is named by file and key."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.policy_files import SCHEMA, SENDER
from tests.fakes.policy_workspace import live_files, make_workspace, publish_all

RESIDENTS, AVSC = "datasets/G01/residents.yaml", "schemas/G01/residents.avsc"
APPROVAL = f"approvals/{SENDER}.yaml"
Source = dict[str, bytes]


def doc(file: str, **fields: Any) -> Callable[[Source], None]:
    """Change keys of one document."""

    def edit(source: Source) -> None:
        source[file] = yaml.safe_dump({**yaml.safe_load(source[file]), **fields}).encode()

    return edit


def level(name: str, **fields: Any) -> Callable[[Source], None]:
    """Change one level."""

    def edit(source: Source) -> None:
        levels = yaml.safe_load(source["levels.yaml"])
        next(item for item in levels if item["name"] == name).update(fields)
        source["levels.yaml"] = yaml.safe_dump(levels).encode()

    return edit


def suite(at: int, status: str, **fields: Any) -> Callable[[Source], None]:
    def edit(source: Source) -> None:
        suites = yaml.safe_load(source["suites.yaml"])
        suites[at] |= {"status": status, **fields}
        source["suites.yaml"] = yaml.safe_dump(suites).encode()

    return edit


def raw(file: str, data: bytes) -> Callable[[Source], None]:
    return lambda source: source.update({file: data})


def schema(field: str) -> Callable[[Source], None]:
    text = f'{{"type":"record","name":"R","fields":[{{"name":"id","type":"long"}},{field}]}}'
    return raw(AVSC, text.encode())


BAD: dict[str, tuple[Callable[[Source], None], str]] = {
    "schema that does not parse": (raw(AVSC, b"{"), f"{RESIDENTS}: schema or key: {AVSC}: "),
    "schema that is recursive": (
        schema('{"name":"n","type":["null","R"]}'),
        "schema is recursive",
    ),
    "schema with an unbounded array of nulls": (
        schema('{"name":"n","type":{"type":"array","items":"null"}}'),
        "array or map of nothing",
    ),
    "schema that cannot read the published one": (
        raw(AVSC, SCHEMA.replace(b'"string"}', b'"long"}')),
        f"{RESIDENTS}: schema: cannot read what the published one wrote",
    ),
    "schema that changes the key": (
        doc(RESIDENTS, key=["id", "name"]),
        f"{RESIDENTS}: schema: changes the key",
    ),
    "schema that another agency signs": (
        doc(RESIDENTS, schema="schemas/G02/x.avsc"),
        "must lie below schemas/G01/",
    ),
    "column label above the dataset": (
        doc(RESIDENTS, tags={"name": "label:top-secret"}),
        f"{RESIDENTS}: tags.name: column rises above the label",
    ),
    "personal data without its compartment": (
        doc(RESIDENTS, label="secret"),
        "label must be secret+personal-data",
    ),
    "two producers of the same keys": (
        doc(RESIDENTS, producers=["G01/registry/a", "G01/registry/b"]),
        f"{RESIDENTS}: producers: must be one origin",
    ),
    "host level below the law's": (
        level("secret", host_level_min=3),
        "levels.yaml: secret.host_level_min: must be at least 4",
    ),
    "protected level that is open": (
        level("confidential", sealed=False, suites=[], coding="none"),
        "confidential.sealed: must be true",
    ),
    "level weaker than the one below it": (
        level("internal", sealed=True, suites=["classic"], host_level_min=4),
        "confidential: is weaker than the level below it",
    ),
    "suite that the level does not have": (
        doc(RESIDENTS, suite="classic"),
        f"{RESIDENTS}: suite: must be one of its level's",
    ),
    "suite that is deprecated": (
        suite(1, "deprecated", until="2026-08-01T00:00:00Z"),
        f"{RESIDENTS}: suite: is not approved",
    ),
    "suite that is refused": (suite(0, "refused"), "confidential.suites: classic is refused"),
    "approval that has ended": (
        doc(APPROVAL, not_after="2026-08-02T00:00:00Z"),
        f"{APPROVAL}: not_after: has passed",
    ),
    "one TPM in two approvals": (doc(APPROVAL, ek_sha256="05" * 32), "is the TPM of"),
    "label below its floor": (
        doc(RESIDENTS, level="internal", label="internal", suite=""),
        f"{RESIDENTS}: label: is below the floor",
    ),
    "floor that sinks itself": (
        doc("floors.yaml", floors={"G01/residents": "internal", "G01/wards": "public"}),
        "floors.G01/residents: must not sink",
    ),
    "dataset without a floor": (
        doc("floors.yaml", floors={"G01/wards": "public"}),
        "floors.G01/residents: is missing",
    ),
    "agency that nobody knows": (doc(RESIDENTS, consumers=["G09/x"]), "agency: G09 is unknown"),
    "topic level other than the label's": (
        doc(RESIDENTS, label="top-secret"),
        "must be of the topic's level, secret",
    ),
    "schema id taken twice": (doc(RESIDENTS, schema_id=2), "schema_id: is that of"),
    "key that no document knows": (doc(RESIDENTS, colour="red"), f"{RESIDENTS}: colour: is not a"),
    "agency without a signing role": (
        raw("datasets/G02/x.yaml", b"level: public"),
        "datasets/G02/x.yaml: ",
    ),
    "trust anchor that is none": (raw("trust/ca.pem", b"x"), "trust.ca: trust/ca.pem holds no"),
    "YAML that means two things": (
        raw("agencies/G01.yaml", b"name: A\nname: B\n"),
        "agencies/G01.yaml: document: a key stands twice",
    ),
    "file in a place that means nothing": (raw("notes.yaml", b"a: 1"), "notes.yaml: path"),
}


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose policy is published and good."""
    folder = tmp_path_factory.mktemp("bad")
    publish_all(make_workspace(folder), datetime.now(UTC))
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_policy_is_refused_with_its_own_reason(fabric, folder: Path, name: str) -> None:
    edit, named = BAD[name]
    source = live_files()
    edit(source)
    workspace = make_workspace(folder, source)
    try:
        done = fabric("policy", "check", workspace.folder)
    finally:
        for file in source:
            (workspace.source / file).unlink()
    assert done.code == 2, done.out
    assert named in done.err
    assert done.err.startswith("fabric: policy_invalid: ")


def test_good_policy_passes(fabric, folder: Path) -> None:
    assert fabric("policy", "check", make_workspace(folder).folder).code == 0
