"""`fabric audit verify` on logs that somebody edited, with and without signed heads."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fabric.attest.audit_chain import read_line
from fabric.attest.audit_head import Head, head_record
from fabric.cli import audit as command
from fabric.config import AgentConfig
from fabric.model.names import AUDIT, RESULTS
from fabric.store.audit import Bounds, FileAudit, rotated
from tests.fakes.agent_page import write_config
from tests.fakes.clock import START, ManualClock
from tests.fakes.log import MemoryLog
from tests.fakes.verifier import Verifier


@dataclass
class Site:
    """A log of ten lines, a verifier that signs its heads, and an agent.toml that trusts it."""

    folder: Path
    path: Path
    config: Path
    verifier: Verifier
    log: MemoryLog

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def write(self, lines: list[bytes]) -> None:
        self.path.write_bytes(b"".join(lines))

    def sign(self, number: int, verifier: Verifier | None = None) -> None:
        line = read_line(self.lines()[number - 1].rstrip())
        head = Head(component="verifier", link=line.link, at=START)
        self.log.put(AUDIT, 0, *head_record(head, (verifier or self.verifier).signers))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    path, verifier, log = tmp_path / "audit.jsonl", Verifier(), MemoryLog()
    audit = FileAudit(path, ManualClock(), failed=lambda: None)
    for n in range(9):
        audit.write("record_refused", {"n": n})
    audit.close()
    config = write_config(tmp_path)
    real = command.policy_of

    @contextlib.asynccontextmanager
    async def opened(config: AgentConfig) -> AsyncIterator[MemoryLog]:
        yield log

    @dataclass
    class Policy:
        trust = verifier.trust

    assert real(AgentConfig.load(config)).trust
    monkeypatch.setattr(command, "log_of", opened)
    monkeypatch.setattr(command, "policy_of", lambda _: Policy())
    return Site(tmp_path, path, config, verifier, log)


def test_an_honest_log_holds(fabric, site: Site) -> None:
    done = fabric("audit", "verify", site.path, "-o", "json")
    assert done.code == 0
    told = done.json
    assert (told["holds"], told["lines"], told["first"], told["last"]) == (True, 10, 1, 10)
    assert (told["signed_up_to"], told["not_signed_yet"]) == (0, 10)


def test_an_honest_log_holds_against_the_brokers_heads(fabric, site: Site) -> None:
    for number in (3, 8):
        site.sign(number)
    site.sign(5, Verifier())  # a stranger's head proves nothing
    done = fabric(
        "audit", "verify", site.path, "--heads", "broker", "-c", site.config, "-o", "json"
    )
    told = done.json
    assert (done.code, told["signed_up_to"], told["not_signed_yet"]) == (0, 8, 2)
    assert told["heads_refused"] == 1


@pytest.mark.parametrize(
    ("what", "line", "why"),
    [
        ("edited", 5, "was changed"),
        ("removed", 5, "numbers 5 to 5 were taken out"),
        ("inserted", 6, "was put in"),
        ("first removed", 1, "has number 2"),
        ("torn", 10, "torn"),
    ],
)
def test_the_first_wrong_line_is_named(fabric, site: Site, what: str, line: int, why: str) -> None:
    lines = site.lines()
    if what == "edited":
        lines[4] = lines[4].replace(b'"n":3', b'"n":4')
    elif what == "removed":
        del lines[4]
    elif what == "inserted":
        lines.insert(5, lines[2])
    elif what == "first removed":
        del lines[0]
    else:
        lines[9] = lines[9][:40]
    site.write(lines)
    done = fabric("audit", "verify", site.path)
    assert (done.code, done.out) == (1, "")
    assert f"{site.path}: line {line} " in done.err
    assert why in done.err
    told = fabric("audit", "verify", site.path, "-o", "json")
    assert (told.code, told.json["holds"], told.json["line"]) == (1, False, line)
    assert told.json["file"] == str(site.path)


def test_a_log_that_was_cut_short_is_told_by_a_file_of_heads(fabric, site: Site) -> None:
    site.sign(8)
    heads = site.folder / "heads.jsonl"
    done = fabric("audit", "heads", "-c", site.config)
    heads.write_text(done.out)
    assert done.code == 0
    verify = ("audit", "verify", site.path, "--heads", heads, "-c", site.config)
    assert fabric(*verify).code == 0
    site.write(site.lines()[:6])
    assert fabric("audit", "verify", site.path).code == 0, "nothing shows without heads"
    done = fabric(*verify)
    assert done.code == 1
    assert f"{site.path}: line 7 is missing: a signed head says" in done.err


def test_another_log_in_its_place_has_no_head(fabric, site: Site) -> None:
    site.sign(8)
    site.path.unlink()
    FileAudit(site.path, ManualClock(), failed=lambda: None).write("nothing", {})
    done = fabric("audit", "verify", site.path, "--heads", "broker", "-c", site.config)
    assert done.code == 1
    assert "of which there is no signed head" in done.err


def test_full_files_beside_it_are_read_first(fabric, site: Site) -> None:
    audit = FileAudit(
        site.path,
        ManualClock(),
        failed=lambda: None,
        bounds=Bounds(file_bytes_max=4_000, files_max=50),
    )
    for n in range(40):
        audit.write("record_refused", {"n": n})
    audit.close()
    full = rotated(site.path)
    assert len(full) > 2
    done = fabric("audit", "verify", site.path, "-o", "json")
    assert (done.code, done.json["lines"], done.json["files"]) == (0, 50, len(full) + 1)
    text = full[1].read_bytes()
    full[1].write_bytes(text.replace(b'"reason"', b'"season"').replace(b"refused", b"refusec", 1))
    done = fabric("audit", "verify", site.path)
    assert f"{full[1]}: line 1 was changed" in done.err


def test_a_part_of_a_log_may_be_looked_at_alone(fabric, site: Site) -> None:
    site.write(site.lines()[4:])
    done = fabric("audit", "verify", site.path, "--part", "-o", "json")
    assert (done.code, done.json["first"], done.json["lines"]) == (0, 5, 6)


def test_heads_need_an_agent_and_a_file_that_is_one(fabric, site: Site) -> None:
    assert fabric("audit", "verify", site.path, "--heads", "broker").code == 2
    bad = site.folder / "bad.jsonl"
    bad.write_text(json.dumps({"topic": RESULTS, "key": "?", "value": ""}))
    for name, code in ((bad, 1), (site.folder / "none", 2)):
        done = fabric("audit", "verify", site.path, "--heads", name, "-c", site.config)
        assert done.code == code


def test_an_empty_log_is_no_log(fabric, site: Site) -> None:
    site.write([])
    assert fabric("audit", "verify", site.path).code == 1
