"""Dashboards: what is committed is what the code builds, and every query can be parsed."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from deploy.grafana.build import FOLDER, PAGES, build
from deploy.grafana.panels import Page
from tests.support.catalogue import families, series
from tests.support.dashboards import VARIABLES, plain, targets

ROOT = Path(__file__).parents[3]
NAMES = [page.name for page in PAGES]
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
RUNBOOKS = ROOT / "docs" / "runbooks"
HISTOGRAM = ("bucket", "sum", "count")
METRIC = re.compile(r"\bfabric_[a-z0-9_]+")
UNSHOWN = {
    "fabric_build_info",  # never changes while a process lives
    "fabric_sealed_blocks_total",  # rows tell more
    "fabric_opened_blocks_total",
    "fabric_applied_blocks_total",
    "fabric_rejected_rows_total",  # what was refused, and why, records and blocks tell
    "fabric_refused_rows_total",
    "fabric_audit_events_total",  # only what is not written asks for somebody
    "fabric_opened_bytes_total",  # what was sent is shown
    "fabric_capture_released_bytes",  # how far it is from the log's end tells more
}


def committed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def queries() -> Iterator[Any]:
    for name in NAMES:
        for title, ref, expr in targets(committed(name)):
            yield pytest.param(expr, id=f"{name}: {title} {ref}")


def named_in(texts: Iterable[str]) -> set[str]:
    """Metrics that PromQL texts name, by their names in docs/metrics.md."""
    found = {name for text in texts for name in METRIC.findall(text)}
    return {name for name in families() if found & {name, *(f"{name}_{end}" for end in HISTOGRAM)}}


def shown() -> set[str]:
    return named_in(expr for name in NAMES for _, _, expr in targets(committed(name)))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_committed_dashboard_is_what_the_code_builds(page: Page) -> None:
    text = (FOLDER / f"{page.name}.json").read_text()
    assert text == build(page), "run .venv/bin/python -m deploy.grafana.build and commit"


def test_no_other_dashboard_is_committed() -> None:
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted(NAMES)


@pytest.mark.parametrize("expr", list(queries()))
def test_query_is_promql_and_names_metrics_that_exist(expr: str) -> None:
    text = plain(expr)
    assert "$" not in text
    promql_parser.parse(text)
    assert set(METRIC.findall(text)) <= series()


def test_every_metric_is_on_a_dashboard_or_left_out_with_a_reason() -> None:
    assert set(families()) - shown() == UNSHOWN


def test_every_metric_that_a_rule_asks_for_is_on_a_dashboard() -> None:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    asked = named_in(rule["expr"] for rule in group["rules"])
    assert asked
    assert asked <= shown()


@pytest.mark.parametrize("name", NAMES)
def test_dashboard_has_its_variables_and_no_fixed_data_source(name: str) -> None:
    board = committed(name)
    variables = {item["name"]: item for item in board["templating"]["list"]}
    assert set(variables) == {"datasource", "runbooks", *VARIABLES}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["runbooks"]["type"] == "textbox"
    assert "DS_PROMETHEUS" not in json.dumps(board)
    for panel in board["panels"]:
        for item in (panel, *panel.get("targets", ())):
            assert item.get("datasource", {"uid": "${datasource}"})["uid"] == "${datasource}"


@pytest.mark.parametrize("name", NAMES)
def test_panels_have_numbers_titles_references_and_places_of_their_own(name: str) -> None:
    panels = committed(name)["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        taken |= cells
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)
        assert panel["type"] == "row" or references


def test_every_alert_has_a_panel_that_links_to_its_runbook_and_no_link_leads_nowhere() -> None:
    pages = {page.name for page in RUNBOOKS.glob("*.md")} - {"README.md"}
    linked = {
        link["url"]
        for name in NAMES
        for panel in committed(name)["panels"]
        for link in panel.get("links", ())
    }
    assert linked == {f"${{runbooks}}/{page}" for page in pages}


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_means_that_nothing_is_there(name: str) -> None:
    panels = [panel for panel in committed(name)["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["fieldConfig"]["defaults"]["noValue"]
        assert panel["type"] != "stat" or panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_without_a_value_has_no_colour_of_good_or_bad(name: str) -> None:
    nothing = {"match": "null", "result": {"text": "–", "color": "text"}}
    for panel in committed(name)["panels"]:
        for override in panel["fieldConfig"]["overrides"] if panel["type"] == "table" else ():
            properties = {item["id"]: item["value"] for item in override["properties"]}
            if "thresholds" in properties:
                assert {"type": "special", "options": nothing} in properties["mappings"]


def test_no_panel_shows_a_figure_of_a_reader_or_a_source_without_the_age_of_it() -> None:
    ages = {
        "consumer_lag_(seconds|records)|stream_silent": "consumer_lag_timestamp_seconds",
        "capture_lag_(seconds|bytes)|snapshot_rows": "capture_heartbeat_timestamp_seconds",
    }
    found = 0
    for _, _, expr in targets(committed("sync")):
        for figure, age in ages.items():
            if re.search(figure, expr):
                found += 1
                assert f"abs(time() - fabric_{age}" in expr
    assert found == 13


def test_provisioning_files_say_what_grafana_expects() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "fabric.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    (provider,) = yaml.safe_load((folder / "dashboards" / "fabric.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"].startswith("/")
