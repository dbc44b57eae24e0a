"""A demo whose servers do not all start leaves none of them running."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric.demo import world
from fabric.demo.say import Teller
from fabric.demo.world import Wish, build
from fabric.model.errors import Reason, UnavailableError


@pytest.mark.parametrize("culprit", ["_broker", "_postgres", "make_machines", "PolicyWriter"])
def test_what_was_started_is_stopped_when_something_fails(
    culprit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []

    def starts(name: str, made: Any) -> Callable[..., Any]:
        def start(*arguments: Any, **_: Any) -> Any:
            started.append(name)
            arguments[2].append(lambda: started.remove(name))
            if name == culprit:
                raise UnavailableError(Reason.BROKER_UNAVAILABLE, "does not start")
            return made

        return start

    def policy(_layout: object) -> None:
        assert len(started) == 3
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, "cannot be written")

    monkeypatch.setattr(world, "create_papers", lambda _layout: "")
    monkeypatch.setattr(world, "_broker", starts("_broker", None))
    monkeypatch.setattr(world, "_postgres", starts("_postgres", None))
    monkeypatch.setattr(world, "make_machines", starts("make_machines", (None, {})))
    monkeypatch.setattr(world, "PolicyWriter", policy)
    with pytest.raises(UnavailableError):
        build(Wish(folder=tmp_path / "demo", rows=1, source="sqlite", target="sqlite"), Teller())
    assert started == []
