"""The sample documents load beside the policy pack, and show every key that there is."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from fabric.model.names import HostId
from fabric.policy.documents import ApprovalDocument, DatasetDocument, Document
from fabric.policy.review import review
from fabric.policy.types import Policy
from fabric.repository.source import read_files
from tests.fakes.policy_files import documents, files, load

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "deploy" / "policy" / "sample"
PACK = ROOT / "deploy" / "policy" / "vn"
NOW = datetime(2026, 12, 2, tzinfo=UTC)
TOPIC = "secret.G01.residents"


def loaded() -> Policy:
    own = documents()
    for name in [name for name in own if name.startswith(("approvals/", "datasets/"))]:
        del own[name]
    own["floors.yaml"] = {"floors": {"G01/residents": "secret+personal-data"}}
    own["agencies/G02.yaml"] = {"name": "Health"}
    content = {k: v for k, v in files(own).items() if not k.startswith("schemas/")}
    for name in ("levels.yaml", "suites.yaml"):
        content[name] = (PACK / name).read_bytes()
    return load(content | read_files(SAMPLE))


def test_sample_loads_and_may_be_published() -> None:
    policy = loaded()
    review(None, policy, NOW)
    assert [*policy.datasets] == [TOPIC]
    assert policy.approvals[HostId.parse("G01/registry/host-a")].ak_name is None
    assert policy.approvals[HostId.parse("G02/health/host-b")].ak_name is not None


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [("approvals/*/*/host-a.yaml", ApprovalDocument), ("datasets/*/*.yaml", DatasetDocument)],
    ids=["approval", "dataset"],
)
def test_sample_shows_every_key(pattern: str, kind: type[Document]) -> None:
    (path,) = SAMPLE.glob(pattern)
    wanted = {field.alias or name for name, field in kind.model_fields.items()}
    shown = yaml.safe_load(path.read_text())
    assert shown.keys() <= wanted
    text = path.read_text()
    for key in wanted - shown.keys():
        assert f"`{key}`" in text or f"# {key}:" in text, key


def test_a_page_leads_to_the_sample() -> None:
    pages = [path.read_text() for path in (ROOT / "docs").glob("*.md")]
    assert any("deploy/policy/sample" in page for page in pages)
