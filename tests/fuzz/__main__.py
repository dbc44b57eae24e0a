"""`python -m tests.fuzz --seconds 60`: give every target its share of the time, then a table.

Inputs that reach new code are kept in .cache/fuzz and serve the next run as seeds. A finding is
left in .cache/fuzz/findings: put it into tests/fuzz/findings under `<target>-<what it is>`, see
the test fail, then mend the parser.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import atheris
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
SHARE_S_MIN = 0.2


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--target", action="append", help="only this one; may stand again")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/fuzz", help="kept inputs")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    """Fuzz; 0 without findings, 1 with, 2 for a target that there is not."""
    asked = _arguments(given)
    warnings.simplefilter("ignore")  # of certificates that are odd: they are meant to be
    sys.stderr.flush()
    with atheris.instrument_imports(include=["fabric", "tuf"], enable_loader_override=False):
        from tests.fuzz.engine import Folders, fuzz
        from tests.fuzz.targets import ALL
    unknown = set(asked.target or ()) - ALL.keys()
    if unknown:
        print(f"no target {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
        return 2
    targets = [ALL[name] for name in asked.target or ALL]
    share = max(SHARE_S_MIN, asked.seconds / len(targets))
    folders = Folders(
        corpus=asked.folder / "corpus",
        findings=asked.folder / "findings",
        logs=asked.folder / "logs",
    )
    outcomes = [fuzz(target, folders, share) for target in targets]
    table = Table("target", title=f"{len(targets)} targets, {share:.1f} s each")
    for column in ("executions", "covered by seeds", "new coverage", "findings"):
        table.add_column(column, justify="right")
    for one in outcomes:
        found = "1" if one.finding else "0"
        table.add_row(one.target, f"{one.executions:,}", str(one.seeded), str(one.new), found)
    executions = sum(one.executions for one in outcomes)
    found = [one for one in outcomes if one.finding]
    table.add_section()
    table.add_row("together", f"{executions:,}", "", str(sum(o.new for o in outcomes)),
                  str(len(found)))  # fmt: skip
    console = Console(width=100)
    console.print(table)
    for one in found:
        console.print(f"{one.target}: {one.finding}\n  see {folders.findings / one.target}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
