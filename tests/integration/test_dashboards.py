"""A Prometheus scrapes a running fabric: every query of every panel has an answer."""

import json
import math
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.grafana.build import FOLDER, PAGES
from deploy.prometheus import demo
from fabric.demo.fleet import await_that
from fabric.demo.process import free_port, spawn, stop
from fabric.demo.world import World, write_endpoints
from tests.support.dashboards import plain, targets
from tests.support.world import running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_SETTLE_S = 90
_ROWS = 20


@dataclass(slots=True)
class Watched:
    """A world, and the address of the Prometheus that scrapes it."""

    world: World
    prometheus: str
    _next: int = 50_000

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of one answer of Prometheus's API."""
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def figures(self, expr: str) -> list[float]:
        """Values of an instant query; what is not a number is no answer."""
        found = [float(item["value"][1]) for item in self.ask("query", query=expr)["result"]]
        return [value for value in found if not math.isnan(value)]

    def change(self) -> None:
        """Host A's application writes something."""
        assert self.world.registry is not None
        self.world.registry.change(self._next, _ROWS)
        self._next += _ROWS

    def is_up(self) -> bool:
        """Whether Prometheus has started."""
        try:
            with urllib.request.urlopen(f"{self.prometheus}/-/ready", timeout=2) as answer:
                return int(answer.status) == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    assert shutil.which("prometheus"), (
        "prometheus is missing; run deploy/setup, or apt-get install prometheus"
    )
    out: Path = tmp_path_factory.mktemp("prometheus")
    with running_world() as world:
        write_endpoints(world)
        port = free_port()
        child = spawn(
            demo.command(demo.write(world.layout.folder, out), port), out / "prometheus.log"
        )
        try:
            found = Watched(world, f"http://127.0.0.1:{port}")
            await_that(found.is_up, "Prometheus to start", wait_s=30)
            yield found
        finally:
            stop(child, wait_s=10)


def test_every_query_of_every_panel_has_an_answer_while_rows_move(watched: Watched) -> None:
    waiting = {
        (page.name, title, ref): plain(expr)
        for page in PAGES
        for title, ref, expr in targets(json.loads((FOLDER / f"{page.name}.json").read_text()))
    }

    def answered() -> bool:
        watched.change()
        for name in [name for name, expr in waiting.items() if watched.figures(expr)]:
            del waiting[name]
        return not waiting

    try:
        await_that(answered, "every query to have an answer", wait_s=_SETTLE_S)
    finally:
        assert not waiting


def test_every_target_answers_and_every_rule_can_be_evaluated(watched: Watched) -> None:
    def evaluated() -> bool:
        (group,) = watched.ask("rules")["groups"]
        return all(rule["health"] != "unknown" for rule in group["rules"])

    await_that(evaluated, "rules to be evaluated", wait_s=30)
    (group,) = watched.ask("rules")["groups"]
    assert {
        rule["name"]: rule.get("lastError") for rule in group["rules"] if "lastError" in rule
    } == {}
    up = watched.ask("query", query='up{job=~"fabric-.+"}')["result"]
    seen = {(item["metric"]["role"], item["metric"]["agency"]): item["value"][1] for item in up}
    assert seen == {
        ("agent", "G01"): "1",
        ("agent", "G02"): "1",
        ("gateway", "platform"): "1",
        ("authority", "platform"): "1",
    }


def test_no_alert_of_loss_or_attack_is_raised_by_a_sound_fabric(watched: Watched) -> None:
    raised = {alert["labels"]["alertname"] for alert in watched.ask("alerts")["alerts"]}
    assert not raised & {
        "ProcessDown",
        "StreamStopped",
        "IntegrityRefusal",
        "PlaintextOnSealedTopic",
        "GatewayRefusals",
        "AttestationExpiring",
        "RevocationListStale",
        "RevocationNotEverywhere",
        "PolicyRefused",
        "AuditGap",
    }
