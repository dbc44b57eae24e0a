"""docs/operations.md knows the checks that the three doctors print, and no others."""

import re
from pathlib import Path

import pytest

from tests.fakes.agent_page import APPLYING, SENDING, write_config
from tests.fakes.platform_files import write_platform

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/operations.md").read_text()
TABLE = PAGE[PAGE.index("| check | of | looks at |") :].partition("\n\n")[0]
NAMED = re.findall(r"`([^`]+)`", " ".join(row.split("|")[1] for row in TABLE.splitlines()))
OUTBOX = '[outbox]\ntopics = ["secret.G01.notes"]\n'


def is_named(check: str) -> bool:
    """A word in capitals stands for one of them; a part's own name may follow."""
    words = [re.sub(r"[A-Z]+", r"\\S+", name.removesuffix(" ...")) for name in NAMED]
    return any(re.fullmatch(rf"{word}( .*)?", check) for word in words)


@pytest.mark.parametrize("doctor", ["agent", "gateway", "authority"])
def test_every_check_that_is_printed_is_in_the_table(fabric, tmp_path: Path, doctor: str) -> None:
    if doctor == "agent":
        command = ("doctor", write_config(tmp_path, SENDING + APPLYING + OUTBOX))
    else:
        command = (doctor, "doctor", getattr(write_platform(tmp_path), doctor))
    done = fabric(*command, "-o", "json")
    assert len(done.json) > 10
    assert [item["check"] for item in done.json if not is_named(item["check"])] == []


def test_every_check_in_the_table_is_one() -> None:
    sources = [*(ROOT / "fabric/cli").glob("*.py"), *(ROOT / "fabric/database").glob("*.py")]
    code = "".join(path.read_text() for path in sources)
    firsts = {re.split(r" (?:[A-Z]|\.\.\.)", name)[0] for name in NAMED}
    assert len(firsts) > 20
    assert [first for first in firsts if not _is_written(first, code)] == []


def _is_written(name: str, code: str) -> bool:
    part = name.removeprefix("outbox ")
    return any(f'"{text}' in code for text in (name, part, f"{part} ")) or name.startswith("web.")
