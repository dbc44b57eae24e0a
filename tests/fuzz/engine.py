"""Run one target in a process of its own under libFuzzer (atheris), and read what it says.

The parent has imported and instrumented everything once; each target is a fork of it, because
libFuzzer never returns and a parser may take its process along.
"""

import os
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import atheris

from tests.fuzz.target import Target

INPUT_S_MAX = 5
"""Longest time that one input may take, seconds; a parser that takes longer hangs."""
RSS_MIB_MAX = 1_024
"""Memory that a process may take, with every module of the fabric loaded; MiB."""
GRACE_S = 2 * INPUT_S_MAX + 5
_SEED = 1
_COVERED = re.compile(r"^#\d+\s+(\w+)\s+cov: (\d+)", re.M)
_UNITS = re.compile(r"^stat::number_of_executed_units:\s+(\d+)", re.M)
_RAISED = re.compile(r"^ === Uncaught Python exception: ===\n(.+)", re.M)
_DIED = re.compile(r"^SUMMARY: libFuzzer: (.+)", re.M)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where a run keeps things: inputs that reach new code, findings, what libFuzzer says."""

    corpus: Path
    findings: Path
    logs: Path

    def of(self, target: Target) -> "Folders":
        """The same for one target, made when missing."""
        made = Folders(
            corpus=self.corpus / target.name, findings=self.findings / target.name, logs=self.logs
        )
        for folder in (made.corpus, made.findings, made.logs):
            folder.mkdir(parents=True, exist_ok=True)
        return made


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one target: inputs tried, edges covered by the seeds and found since."""

    target: str
    executions: int
    seeded: int
    new: int
    finding: str
    """Why it died; empty when it did not."""


def fuzz(target: Target, folders: Folders, seconds: float) -> Outcome:
    """Fuzz one target for `seconds`."""
    mine = folders.of(target)
    log = mine.logs / f"{target.name}.log"
    for number, seed in enumerate(target.seeds()):
        (mine.corpus / f"seed-{number}").write_bytes(seed[: target.bytes_max])
    child = os.fork()
    if child == 0:
        _become(target, mine, log)
    status = _wait(child, seconds)
    return _outcome(target, log.read_text(errors="replace"), status)


def _become(target: Target, folders: Folders, log: Path) -> NoReturn:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(out, stream)
    options = [
        f"-seed={_SEED}",
        f"-max_len={target.bytes_max}",
        f"-timeout={INPUT_S_MAX}",
        f"-rss_limit_mb={RSS_MIB_MAX}",
        f"-artifact_prefix={folders.findings}/",
        "-print_final_stats=1",
        "-use_value_profile=0",
        "-reload=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(folders.corpus)], target.run)
    atheris.Fuzz()
    os._exit(0)


def _wait(child: int, seconds: float) -> int:
    """The child's end; asked to end after `seconds`, and made to a while later."""
    _, status = _within(child, seconds) or (0, None)
    for ending in (signal.SIGUSR1, signal.SIGKILL):
        if status is None:
            os.kill(child, ending)
            _, status = _within(child, GRACE_S) or (0, None)
    return 0 if status is None else status


def _within(child: int, seconds: float) -> tuple[int, int] | None:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done or time.monotonic() >= end:
            return (done, status) if done else None
        time.sleep(0.02)


def _outcome(target: Target, said: str, status: int) -> Outcome:
    covered = [(word, int(number)) for word, number in _COVERED.findall(said)]
    seeded = next((number for word, number in covered if word == "INITED"), 0)
    units = _UNITS.search(said)
    why = _RAISED.search(said) or _DIED.search(said)
    finding = "" if status == 0 else (why[1] if why else f"ended with status {status}")
    return Outcome(
        target=target.name,
        executions=int(units[1]) if units else 0,
        seeded=seeded,
        new=max((number for _, number in covered), default=0) - seeded,
        finding=finding,
    )


__all__ = ["Folders", "Outcome", "fuzz"]
