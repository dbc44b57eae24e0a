"""Child processes of the demo and the tests: started, watched and ended by their pid.

A child dies with its parent (PR_SET_PDEATHSIG) unless it is to be kept, writes
into a log file of its own, and is ended by its process id, never by name. The
death signal follows the *thread* that started the child: start from the main one.
"""

import ctypes
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path

from fabric.model.errors import Reason, UnavailableError

_PR_SET_PDEATHSIG = 1
_PORT_FIRST, _PORT_LAST = 20_000, 32_000  # below the ephemeral range, so clients do not take them
_STRIDE = 509  # between two processes that start one after the other; a prime
_TURN = count(os.getpid() * _STRIDE)


def free_port() -> int:
    """A loopback TCP port that nobody listens on now, and that this process gives out once.

    A port is used seconds later only. Drawn at random, two of one demo, or of two that start
    at the same time, are the same once in a while, and a part of it ends at its start.
    """
    for _ in range(200):
        port = _PORT_FIRST + next(_TURN) % (_PORT_LAST - _PORT_FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UnavailableError(Reason.OVERLOADED, "no free loopback port was found")


def _prepare(uid: int | None, gid: int | None, keep: bool) -> Callable[[], None]:
    def prepare() -> None:
        if uid is not None and gid is not None:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        if keep:
            os.setsid()
        else:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def spawn(
    command: Sequence[str | Path],
    log: Path,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    keep: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a child whose output goes to `log`.

    Args:
        user: run as this user; matters only when we are root.
        keep: let the child outlive us, in a session of its own.
    """
    uid = gid = None
    if user is not None and os.geteuid() == 0:
        entry = pwd.getpwnam(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    with log.open("ab") as out:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            # safe here: children are started from the main thread before others run
            preexec_fn=_prepare(uid, gid, keep),  # noqa: PLW1509
        )


def stop(child: subprocess.Popen[bytes] | None, *, kill: bool = False, wait_s: float = 15) -> None:
    """End a child: SIGTERM (or SIGKILL), then SIGKILL when it does not go in time."""
    if child is None or child.poll() is not None:
        return
    child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait(wait_s)


def await_that(
    condition: Callable[[], bool], what: str, *, wait_s: float, child: subprocess.Popen[bytes]
) -> None:
    """Poll until `condition` holds; raises UnavailableError when the child dies or time is up."""
    end = time.monotonic() + wait_s
    while not condition():
        if child.poll() is not None:
            raise UnavailableError(Reason.NOT_READY, f"{what} ended at start; see its log")
        if time.monotonic() > end:
            raise UnavailableError(Reason.NOT_READY, f"{what} did not start in {wait_s:.0f} s")
        time.sleep(0.02)


def is_listening(port: int) -> bool:
    """Whether someone accepts TCP connections on the loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
