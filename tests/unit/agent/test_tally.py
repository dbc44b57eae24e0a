"""The agent's side of the tally: one extension per accepted renewal, whatever happens between."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fabric.agent.tally import STEP, Tally
from fabric.attest.messages import Challenge
from fabric.attest.tally import START, extended
from fabric.model.errors import UnavailableError
from tests.fakes.tpm import FakeTpm

EXTRA = bytes(32)
TPM = FakeTpm(elliptic=True)


def challenge(last: bytes, step: bytes) -> Challenge:
    return Challenge(
        session=bytes(16),
        nonce=bytes(32),
        verifier="verifier",
        pcrs=(0,),
        expires_ms=1,
        tally=last,
        step=step * 32,
    )


@pytest.fixture
def tpm() -> FakeTpm:
    return TPM.copy()


def test_each_accepted_renewal_extends_by_its_own_step(tmp_path: Path, tpm: FakeTpm) -> None:
    mine = Tally(tmp_path, tpm)
    mine.report(challenge(b"", b"a"), EXTRA)
    first = extended(START, b"a" * 32)
    assert tpm.tally() == first
    report = mine.report(challenge(first, b"b"), EXTRA)
    assert report.step == b"b" * 32
    assert tpm.tally() == extended(first, b"b" * 32)


def test_a_report_that_was_not_heard_is_repeated_without_extension(
    tmp_path: Path, tpm: FakeTpm
) -> None:
    """MUST-9.8."""
    Tally(tmp_path, tpm).report(challenge(START, b"a"), EXTRA)
    for later in (b"b", b"c", b"d"):  # refused or lost again and again: the TPM does not wear
        report = Tally(tmp_path, tpm).report(challenge(START, later), EXTRA)
        assert report.step == b"a" * 32
    assert tpm.tally() == extended(START, b"a" * 32)


def test_a_crash_before_the_extension_costs_nothing(tmp_path: Path, tpm: FakeTpm) -> None:
    class Died(Exception):
        pass

    def die(step: bytes) -> None:
        raise Died

    tpm.extend_tally = die  # type: ignore[method-assign]
    with pytest.raises(Died):
        Tally(tmp_path, tpm).report(challenge(START, b"a"), EXTRA)
    assert (tmp_path / STEP).read_bytes() == b"a" * 32
    del tpm.extend_tally  # type: ignore[attr-defined]
    report = Tally(tmp_path, tpm).report(challenge(START, b"b"), EXTRA)
    assert report.step == b"b" * 32
    assert tpm.tally() == extended(START, b"b" * 32)


def test_a_crash_after_the_extension_is_caught_up(tmp_path: Path, tpm: FakeTpm) -> None:
    def die(qualifying: bytes) -> None:
        raise KeyboardInterrupt

    tpm.certify_tally = die  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        Tally(tmp_path, tpm).report(challenge(START, b"a"), EXTRA)
    del tpm.certify_tally  # type: ignore[attr-defined]
    report = Tally(tmp_path, tpm).report(challenge(START, b"b"), EXTRA)
    assert report.step == b"a" * 32


def test_a_fork_is_reported_and_does_not_wear_the_tpm(tmp_path: Path, tpm: FakeTpm) -> None:
    mine = Tally(tmp_path, tpm)
    mine.report(challenge(START, b"a"), EXTRA)
    value = tpm.tally()
    for step in (b"b", b"c"):
        mine.report(challenge(b"\7" * 32, step), EXTRA)
    assert tpm.tally() == value


def test_a_lost_step_file_still_gives_a_report(tmp_path: Path, tpm: FakeTpm) -> None:
    mine = Tally(tmp_path, tpm)
    mine.report(challenge(START, b"a"), EXTRA)
    for content in (b"", b"short", bytes(33)):
        (tmp_path / STEP).write_bytes(content)
        assert mine.report(challenge(START, b"b"), EXTRA).step == b"b" * 32


def test_a_report_that_was_given_up_and_the_next_one_do_not_mix(
    tmp_path: Path, tpm: FakeTpm
) -> None:
    """The TPM is so slow that the agent asks for a new challenge meanwhile."""
    mine = Tally(tmp_path, tpm)
    slow, go_on = threading.Event(), threading.Event()
    extend = tpm.extend_tally

    def late(step: bytes) -> None:
        slow.set()
        assert go_on.wait(10)
        extend(step)

    tpm.extend_tally = late  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(mine.report, challenge(START, b"a"), EXTRA)
        assert slow.wait(10)
        second = threads.submit(mine.report, challenge(START, b"b"), EXTRA)
        go_on.set()
        assert first.result(10).step == second.result(10).step == b"a" * 32
    assert tpm.tally() == extended(START, b"a" * 32)


def test_a_folder_that_cannot_be_written_extends_nothing(tmp_path: Path, tpm: FakeTpm) -> None:
    (tmp_path / "folder").write_bytes(b"a file in its place")
    with pytest.raises(UnavailableError, match="folder"):
        Tally(tmp_path / "folder", tpm).report(challenge(START, b"a"), EXTRA)
    assert tpm.tally() == START


def test_a_tpm_without_power_is_unavailable(tmp_path: Path, tpm: FakeTpm) -> None:
    tpm.available = False
    with pytest.raises(UnavailableError):
        Tally(tmp_path, tpm).report(challenge(START, b"a"), EXTRA)


def test_a_step_that_a_full_disk_does_not_take_is_told(
    tmp_path: Path, tpm: FakeTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, mode: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fabric.agent.tally.replace", full)
    with pytest.raises(UnavailableError, match=f"no room on the disk of {tmp_path}"):
        Tally(tmp_path, tpm).report(challenge(b"", b"a"), EXTRA)
    assert tpm.tally() == START
