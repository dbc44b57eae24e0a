"""Every scenario beside this file: given a client and a view, when a request comes, then this.

Words of requests and records are those of tests/fakes/gateway_play.py. The broker
answers every forward, or is `away`. `forwarded` leaves ticket numbers out.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.gateway_play import Stage

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.rglob("*.yaml"))


def prepare(given: dict[str, Any]) -> Stage:
    stage = Stage(
        given.get("client", "a"),
        nodes=tuple(given.get("nodes", (1,))),
        view=given.get("view", "fresh"),
    )
    if given.get("leaders") == "none":
        stage.forget_leaders()
        stage.broker.leaders = {}
    for words in given.get("before", ()):
        if words == "suspended":
            stage.suspend()
        else:
            run(stage, words, "here")
    return stage


def run(stage: Stage, words: str, broker: str) -> list[str]:
    """A request, and the broker's part until nothing more is asked."""
    said = stage.request(words)
    while stage.forwards:
        ticket = next(iter(stage.forwards))
        said += stage.fail(ticket) if broker == "away" else stage.answer(ticket)
    return said


def of_kind(said: list[str], kind: str) -> list[str]:
    return [line.removeprefix(f"{kind} ") for line in said if line.startswith(f"{kind} ")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_scenario(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text())
    given = scenario.get("given", {})
    assert scenario.keys() <= {"case", "given", "when", "then"}
    said = run(prepare(given), scenario["when"], given.get("broker", "here"))
    closed = [line.removeprefix("close").strip() or "in peace" for line in said if "close" in line]
    then = {
        "replies": of_kind(said, "reply"),
        "forwarded": [line.split(" to ", 1)[1] for line in of_kind(said, "forward")],
        "notes": of_kind(said, "note"),
        "closes": closed[0] if closed else False,
    }
    assert then == scenario["then"], scenario["case"]


def test_every_served_api_has_scenarios() -> None:
    folders = {path.parent.name for path in FILES}
    assert folders == {"produce", "metadata", "api_versions", "init_producer_id", "other"}
