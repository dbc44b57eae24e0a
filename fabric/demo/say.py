"""What the demo tells: steps as they pass, a progress bar, a table at the end; or JSON."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_PLAIN_EVERY_S = 10.0


@dataclass(slots=True)
class Step:
    """One step or proof: what was done, what was seen, how long it took."""

    kind: str
    name: str
    seen: str = ""
    seconds: float = 0.0
    held: bool = False


@dataclass(slots=True)
class Teller:
    """Prints steps to standard error; keeps them for the report."""

    is_json: bool = False
    steps: list[Step] = field(default_factory=list)
    _console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False))

    @contextmanager
    def step(self, name: str, *, kind: str = "step") -> Iterator[Step]:
        """Time a step; it held when the body came to its end, and is printed then."""
        step = Step(kind, name)
        began = time.monotonic()
        try:
            yield step
            step.held = True
        except BaseException as error:
            step.seen = step.seen or str(error)
            raise
        finally:
            step.seconds = round(time.monotonic() - began, 2)
            self.steps.append(step)
            self._print(step)

    def proof(self, name: str) -> AbstractContextManager[Step]:
        """A step that shows a promise by doing it."""
        return self.step(name, kind="proof")

    def _print(self, step: Step) -> None:
        mark = "[green]✓[/]" if step.held else "[red]✗[/]"
        seen = f"  [dim]{step.seen}[/]" if step.seen else ""
        line = f"{mark} {step.name}{seen}  [dim]{step.seconds:.1f} s[/]"
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator["Bar"]:
        """A bar on a terminal, one plain line each ten seconds elsewhere."""
        if not self._console.is_terminal:
            yield Bar(self._console, what, total)
            return
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(
            *columns, TimeElapsedColumn(), console=self._console, transient=True
        ) as shown:
            task = shown.add_task(what, total=total)
            yield Bar(self._console, what, total, lambda done: shown.update(task, completed=done))

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """A table of two columns, the second as long as it is."""
        self._console.print(title, style="italic")
        width = max(len(left) for left, _ in rows)
        for left, right in rows:
            self._console.print(f"{left:<{width}}  {right}", soft_wrap=True, markup=False)

    def say(self, text: str) -> None:
        """A line for people, who may copy it: where it is too long, the terminal breaks it."""
        self._console.print(text, soft_wrap=True)

    def finish(self, summary: dict[str, object]) -> None:
        """Print the whole report as JSON on standard output when asked to."""
        if self.is_json:
            steps = [
                {
                    "kind": step.kind,
                    "name": step.name,
                    "seen": step.seen,
                    "seconds": step.seconds,
                    "held": step.held,
                }
                for step in self.steps
            ]
            json.dump({**summary, "steps": steps}, sys.stdout, ensure_ascii=False, indent=2)
            sys.stdout.write("\n")


class Bar:
    """Progress of one long step."""

    def __init__(
        self, console: Console, what: str, total: int, show: Callable[[int], None] | None = None
    ) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._show = show
        self._said = time.monotonic()

    def update(self, done: int) -> None:
        """Tell how much is done."""
        if self._show is not None:
            self._show(done)
        elif time.monotonic() - self._said >= _PLAIN_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"  {self._what}: {done} of {self._total}")
