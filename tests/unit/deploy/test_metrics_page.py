"""docs/metrics.md lists exactly what the code has: names, types, labels, roles."""

import re
from pathlib import Path

from tests.support.catalogue import families

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(fabric_[a-z0-9_]+)` \| (\w+) \| ([^|]*) \| ([^|]*) \| (.+) \|$", re.M)


ABSENT = re.compile(r"`(fabric_[a-z0-9_]+)`")


def words(cell: str) -> list[str]:
    return re.findall(r"[a-z_]+", cell)


def test_page_lists_every_metric_once_with_its_type_labels_and_roles() -> None:
    rows = ROW.findall(PAGE.read_text())
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names)
    listed = {
        name: (kind, words(labels), set(words(roles))) for name, kind, labels, roles, _ in rows
    }
    assert listed == {
        name: (family.type, list(family.labels), family.roles)
        for name, family in families().items()
    }


def test_what_the_page_calls_absent_is_absent_and_what_it_names_instead_is_there() -> None:
    _, _, table = PAGE.read_text().partition("| Not there | Why |")
    rows = [row.strip("|").split(" | ") for row in table.splitlines() if "`" in row]
    absent = {name for row in rows for name in ABSENT.findall(row[0])}
    instead = {name for row in rows for name in ABSENT.findall(row[1])}
    assert absent
    assert not absent & families().keys()
    assert instead <= families().keys()
