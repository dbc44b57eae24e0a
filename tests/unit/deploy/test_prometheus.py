"""Scrape configuration and rules: what promtool says of them, and that nothing is forgotten."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus import demo
from tests.support.catalogue import series

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
SEVERITIES = {"critical", "warning"}


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    assert tool, "promtool is missing; run deploy/setup, or apt-get install prometheus"
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases(alert: str) -> list[list[dict[str, Any]]]:
    """Evaluations of an alert, by test group, in the order of time."""
    document = yaml.safe_load((FOLDER / "rules_test.yml").read_text())
    found = [
        [case for case in test.get("alert_rule_test", ()) if case["alertname"] == alert]
        for test in document["tests"]
    ]
    return [group for group in found if group]


def test_scrape_configuration_is_accepted() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yml"))


def test_rules_are_accepted_without_a_warning() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(FOLDER / "rules.yml"))


def test_alerts_fire_stay_silent_and_clear_as_their_cases_say() -> None:
    promtool("test", "rules", str(FOLDER / "rules_test.yml"))


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_that_is_silent_fires_and_clears(alert: str) -> None:
    groups = cases(alert)
    assert groups, f"{alert} has no case in rules_test.yml"
    for group in groups:
        fires = [bool(case["exp_alerts"]) for case in group]
        assert fires == [False, True, False], f"{alert}: {fires}"


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_says_what_it_is_and_has_a_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    page = ROOT / rule["annotations"]["runbook_url"]
    assert page == RUNBOOKS / f"{alert}.md"
    text = page.read_text()
    for heading in ("What it means", "Likely causes", "What to do first", "How it clears"):
        assert f"\n## {heading}\n\n" in text
    assert f"Severity {rule['labels']['severity']}, fires " in text


def test_no_runbook_is_left_without_its_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"} == set(ALERTS)


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_links_between_runbooks_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        assert (page.parent / target.partition("#")[0]).exists(), target


def test_rules_use_only_metrics_that_the_code_has() -> None:
    known = series()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        expr = rule["expr"]
        for record in recorded:
            expr = expr.replace(record, "")
        used = set(re.findall(r"\bfabric_[a-z0-9_]+", expr))
        assert used <= known, f"{rule.get('alert', rule.get('record'))}: {used - known}"


@pytest.mark.parametrize("name", ["prometheus.yml", "remote.yml"])
def test_every_target_file_that_is_scraped_exists_and_names_its_targets(name: str) -> None:
    config = yaml.safe_load((FOLDER / name).read_text())
    for job in config["scrape_configs"]:
        for discovery in job["file_sd_configs"]:
            for name in discovery["files"]:
                for group in yaml.safe_load((FOLDER / name).read_text()):
                    assert set(group["labels"]) == {"agency", "role", "instance"}
                    assert job["job_name"] == f"fabric-{group['labels']['role']}"


def test_the_remote_scrape_is_the_local_one_over_tls_with_a_certificate() -> None:
    local, remote = (
        yaml.safe_load((FOLDER / name).read_text()) for name in ("prometheus.yml", "remote.yml")
    )
    for job in remote["scrape_configs"]:
        assert job.pop("scheme") == "https"
        tls = job.pop("tls_config")
        assert set(tls) == {"ca_file", "cert_file", "key_file", "min_version"}
        assert tls["min_version"] == "TLS13"
    assert remote == local


def test_targets_of_a_demo_carry_agency_role_and_instance() -> None:
    endpoints: dict[str, Any] = {
        "hosts": {"A": {"host": "G01/registry/host-a"}},
        "metrics": {
            "authority": "http://127.0.0.1:1/metrics",
            "gateway": "http://127.0.0.1:2/metrics",
            "A": "http://127.0.0.1:3/metrics",
        },
    }
    found = demo.targets(endpoints)
    assert set(found) == {"authority.yml", "gateways.yml", "agents.yml"}
    assert found["agents.yml"] == [
        {
            "targets": ["127.0.0.1:3"],
            "labels": {"agency": "G01", "role": "agent", "instance": "G01/registry/host-a"},
        }
    ]
    assert found["gateways.yml"][0]["labels"] == {
        "agency": "platform",
        "role": "gateway",
        "instance": "gateway-1",
    }
