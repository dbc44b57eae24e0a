"""A short run of every fuzz target; what was once found stays found; the fuzzer itself finds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.target import cut, join
from tests.fuzz.targets import ALL

ROOT = Path(__file__).parents[2]
FINDINGS = sorted((ROOT / "tests/fuzz/findings").iterdir())
SHORT_S = 10


@pytest.mark.timeout(240)
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(SHORT_S)]
    done = subprocess.run(
        [*command, "--folder", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    rows = [line.split("│") for line in done.stdout.splitlines() if line.startswith("│")]
    tried = {row[1].strip(): int(row[2].replace(",", "")) for row in rows}
    assert tried.keys() == {*ALL, "together"}
    assert not [name for name, executions in tried.items() if not executions]
    assert tried["together"] > 10_000  # a slow machine tries less


@pytest.mark.parametrize("name", ALL)
def test_a_target_comes_through_with_one_of_its_seeds(name: str) -> None:
    target = ALL[name]
    good = 0
    for seed in target.seeds():
        assert len(seed) <= target.bytes_max, "the fuzzer would cut it"
        try:
            target.parse(seed)
        except target.families:
            continue
        good += 1
    assert good, "only refused seeds: nothing behind the first check is fuzzed"


@pytest.mark.parametrize("path", FINDINGS, ids=lambda path: path.name)
def test_what_was_found_once_is_refused_in_order(path: Path) -> None:
    """A file is named `<target>--<what it was>`."""
    ALL[path.name.partition("--")[0]].run(path.read_bytes())


def test_planted_faults_are_found_and_leave_their_inputs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.planted", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout.splitlines()[-1])
    assert "ZeroDivisionError" in said["raises"][0]
    assert "AssertionError" in said["differs"][0]
    assert "out-of-memory" in said["grows"][0]
    assert said["raises"][1] == said["differs"][1] == 1
    assert said["good"] == ["", 0]


def test_two_inputs_go_into_one_and_come_out() -> None:
    for first, second in ((b"", b""), (b"key", b"value"), (b"k" * 255, b"")):
        assert cut(join(first, second)) == (first, second)
    assert cut(b"") == (b"", b"")
