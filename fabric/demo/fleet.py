"""The fabric's own processes in the demo: authority, gateway and agents, by config file."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fabric.demo.process import spawn, stop
from fabric.model.errors import Reason, UnavailableError

_POLL_S = 0.05
_LINE_MAX = 300


@dataclass(slots=True)
class Part:
    """One process of the fabric: `fabric <kind> run <config>`."""

    name: str
    kind: str
    config: Path
    web: str
    keep: bool = False
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.config.parent / f"{self.kind}.log"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._child.pid if self._child and self._child.poll() is None else None

    def start(self) -> None:
        """Start the process; wait with `await_ready` or `await_that`."""
        command = [sys.executable, "-m", "fabric.cli", self.kind, "run", str(self.config)]
        self._child = spawn(command, self.log, keep=self.keep)

    def stop(self, *, kill: bool = False) -> None:
        """SIGTERM and wait, or SIGKILL."""
        stop(self._child, kill=kill, wait_s=25)
        self._child = None

    def health(self) -> tuple[bool, Mapping[str, object]]:
        """Whether /readyz says yes, and its JSON body."""
        try:
            with urllib.request.urlopen(f"{self.web}/readyz", timeout=2) as answer:  # noqa: S310
                return True, json.load(answer)
        except urllib.error.HTTPError as exc:
            return False, json.load(exc)
        except (OSError, ValueError):
            return False, {}

    def metrics(self) -> str:
        """The text of /metrics."""
        with urllib.request.urlopen(f"{self.web}/metrics", timeout=5) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of `name` that carry these labels."""
        total = 0.0
        for line in self.metrics().splitlines():
            if not line.startswith(name):
                continue
            series, _, value = line.rpartition(" ")
            wanted = (f'{key}="{text}"' for key, text in labels.items())
            if series.partition("{")[0] == name and all(want in series for want in wanted):
                total += float(value)
        return total

    def check_runs(self) -> None:
        """Raise UnavailableError NOT_READY, with its last line, when the process has ended."""
        if self.pid is None:
            said = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
            last = f"its last line: {said[-1][:_LINE_MAX]}; " if said else ""
            raise UnavailableError(Reason.NOT_READY, f"{self.name} ended; {last}see {self.log}")

    def await_ready(self, wait_s: float = 40) -> None:
        """Wait until /readyz says yes; raises UnavailableError with the last reasons."""
        await_that(lambda: self.health()[0], f"{self.name} to be ready", wait_s=wait_s, part=self)


def await_that(
    condition: Callable[[], bool],
    what: str,
    *,
    wait_s: float,
    part: Part | None = None,
    poll_s: float = _POLL_S,
) -> None:
    """Poll until `condition` holds; raises UnavailableError that says what was awaited."""
    end = time.monotonic() + wait_s
    while not condition():
        if part is not None:
            part.check_runs()
        if time.monotonic() > end:
            why = f"; it says {json.dumps(part.health()[1])}, see {part.log}" if part else ""
            raise UnavailableError(Reason.NOT_READY, f"waited {wait_s:.0f} s for {what}{why}")
        time.sleep(poll_s)
