"""What the Sync dashboard says of streams and sources that nobody measures: asked of promtool."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.build import FOLDER
from deploy.grafana.panels import NEVER_S
from tests.support.dashboards import plain, targets

LABELS = 'agency="G02",instance="b1",level="secret",topic="{topic}",partition="{partition}"'
SOURCE = 'agency="G01",instance="a1",source="{source}"'
BEGAN = 2_000_000_000
"""Prometheus counts test time from zero, which is never: the queries get this as their now."""
OLD, AHEAD = BEGAN - 300, BEGAN + 3600


def series(name: str, labels: str, values: str) -> dict[str, str]:
    return {"series": f"fabric_{name}{{{labels}}}", "values": values}


def stream(
    topic: str, *, measured: int | None, partition: int = 0, lag: int = 7, is_known: bool = True
) -> list[dict[str, str]]:
    """A stream that was measured then (None: just now), and is never measured otherwise."""
    labels = LABELS.format(topic=topic, partition=partition)
    at = BEGAN if measured is None else measured
    stamp = series("consumer_lag_timestamp_seconds", labels, str(at))
    if not is_known:
        return [stamp]
    names = ("consumer_lag_seconds", "consumer_lag_records", "stream_silent")
    return [stamp, *(series(name, labels, str(lag)) for name in names)]


def source(name: str, beat: int) -> list[dict[str, str]]:
    labels = SOURCE.format(source=name)
    found = [series("capture_heartbeat_timestamp_seconds", labels, str(beat))]
    names = ("capture_lag_seconds", "capture_lag_bytes", "snapshot_rows_remaining")
    return found + [series(name, labels, "9") for name in names]


WORLD = [
    *stream("fresh", measured=None),
    *stream("old", measured=OLD, lag=500),
    *stream("ahead", measured=AHEAD, lag=600),
    *stream("never", measured=0, is_known=False),
    *stream("half", measured=None),
    *stream("half", measured=OLD, partition=1, lag=700),
    *source("alive", BEGAN),
    *source("gone", OLD),
]


def query(panel: str, ref: str = "A") -> str:
    board = json.loads((FOLDER / "sync.json").read_text())
    (expr,) = (e for title, letter, e in targets(board) if (title, letter) == (panel, ref))
    return plain(expr).replace("time()", str(BEGAN))


def ask(tmp_path: Path, expr: str, expected: Mapping[str, float]) -> None:
    """Hold a query's answer, value by labels, to what is expected, by promtool."""
    tool = shutil.which("promtool")
    assert tool, "promtool is missing; run deploy/setup, or apt-get install prometheus"
    samples = [{"labels": labels, "value": value} for labels, value in expected.items()]
    case: dict[str, Any] = {
        "interval": "15s",
        "input_series": WORLD,
        "promql_expr_test": [{"expr": expr, "eval_time": "0s", "exp_samples": samples}],
    }
    path = tmp_path / "case.yml"
    path.write_text(yaml.safe_dump({"rule_files": [], "tests": [case]}))
    done = subprocess.run(
        [tool, "test", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def at(topic: str) -> str:
    return f'{{agency="G02", topic="{topic}"}}'


def of(name: str) -> str:
    return f'{{agency="G01", source="{name}"}}'


@pytest.mark.parametrize(
    ("panel", "worst"),
    [
        ("Worst lag", {"{}": 7}),
        ("Records not applied", {"{}": 7}),
        ("Lag not measured", {"{}": 4}),
        ("Age of the oldest change that is not applied", {at("fresh"): 7}),
        ("Records in the log that are not applied", {at("fresh"): 7}),
        ("Age of the oldest change that the platform has not acknowledged", {of("alive"): 9}),
        ("Change log that a source's database keeps for us", {of("alive"): 9}),
        ("Snapshot rows still to be read", {of("alive"): 9}),
    ],
)
def test_a_panel_shows_only_what_was_measured_lately(
    tmp_path: Path, panel: str, worst: Mapping[str, float]
) -> None:
    ask(tmp_path, query(panel), worst)


def test_a_table_puts_datasets_first_whose_lag_nobody_knows(tmp_path: Path) -> None:
    unknown = {at(topic): NEVER_S for topic in ("old", "ahead", "never", "half")}
    ask(tmp_path, query("Datasets at their readers"), {at("fresh"): 7, **unknown})
    ask(tmp_path, query("Datasets at their readers", "B"), {at("fresh"): 7})


def test_a_dataset_that_was_never_measured_has_a_row_that_says_never(tmp_path: Path) -> None:
    ages = {at("fresh"): 0, at("old"): 300, at("ahead"): -3600, at("half"): 300}
    ask(tmp_path, query("Datasets at their readers", "C"), {**ages, at("never"): BEGAN})
    assert BEGAN > NEVER_S


def test_a_table_of_sources_says_which_are_known(tmp_path: Path) -> None:
    ask(tmp_path, query("Sources"), {of("alive"): 9, of("gone"): NEVER_S})
