"""docs/threat-model.md keeps its word: each promise names tests, and the tests are there.

The convention: a table of the page with a column `held by test` names in that column, in
backticks, at least one `tests/<file>.py::<test>` or `tests/vectors/<vector>.json` a row. Names
of that form are checked everywhere in the page, also in its text.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/threat-model.md").read_text()
COLUMN = "held by test"
NAMED = re.compile(r"`(tests/[^`\s]+(?:::[^`\s]+|\.json))`")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def promises(page: str) -> dict[str, str]:
    """First cell and cell of the column, for every row of every table that has the column."""
    found: dict[str, str] = {}
    at: int | None = None
    for line in page.splitlines():
        if not line.startswith("|"):
            at = None
        elif at is None:
            names = cells(line)
            at = names.index(COLUMN) if COLUMN in names else -1
        elif at >= 0 and set(line) - set("|-: "):
            row = cells(line)
            found[row[0]] = row[at] if at < len(row) else ""
    return found


@cache
def names_in(file: Path) -> frozenset[str]:
    """Names of the tests in a file that nothing skips or expects to fail."""
    return frozenset(
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not re.search(r"mark\.(skip\b|xfail)", " ".join(map(ast.unparse, node.decorator_list)))
    )


def missing(name: str) -> bool:
    """Whether a named test or vector is not there."""
    file, _, test = name.partition("::")
    path = ROOT / file
    if not path.is_file():
        return True
    if path.suffix == ".json":
        return bool(test)
    return path.suffix != ".py" or test.rpartition("::")[2].partition("[")[0] not in names_in(path)


def test_the_page_makes_promises() -> None:
    assert len(promises(PAGE)) >= 12


@pytest.mark.parametrize(("promise", "held"), promises(PAGE).items())
def test_a_promise_names_the_tests_that_hold_it(promise: str, held: str) -> None:
    assert NAMED.findall(held), f"`{promise}` names no test"


@pytest.mark.parametrize("name", sorted(set(NAMED.findall(PAGE))))
def test_a_named_test_exists(name: str) -> None:
    assert not missing(name), f"{name} is named in docs/threat-model.md and is not there"


def test_names_that_are_not_there_are_noticed() -> None:
    this = "tests/test_threat_model.py"
    assert missing(f"{this}::test_of_nothing")
    assert missing(f"{this}::cells")
    assert missing(this)
    assert missing("tests/test_of_nothing.py::test_the_page_makes_promises")
    assert missing("tests/vectors/of-nothing.json")
    assert not missing(f"{this}::test_the_page_makes_promises")
    assert not missing("tests/vectors/chain-fork.json")


def test_a_row_without_its_last_cell_names_no_test() -> None:
    page = f"| promise | {COLUMN} |\n|---|---|\n| kept | `tests/a.py::test_b` |\n| bare |\n"
    assert promises(page) == {"kept": "`tests/a.py::test_b`", "bare": ""}
