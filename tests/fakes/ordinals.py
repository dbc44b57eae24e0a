"""Runs that tell how often somebody counted all of their ordinals."""

import pytest

from fabric.model.change import Run


def counting_ordinals(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """The runs whose ordinals are counted from now on, each as often as they are."""
    counted: list[Run] = []
    known = Run.ordinals

    def ordinals(run: Run) -> object:
        counted.append(run)
        return known.__get__(run)

    monkeypatch.setattr(Run, "ordinals", property(ordinals))
    return counted
