"""Run a command line in this process, as a shell would see it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fabric.cli.app import main


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)


Fabric = Callable[..., Done]


@pytest.fixture
def fabric(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fabric:
    """Run `fabric ARGUMENTS...` and tell its exit code and output."""

    def run(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["fabric", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        shown = capsys.readouterr()
        assert isinstance(code, int)
        return Done(code=code, out=shown.out, err=shown.err)

    return run
