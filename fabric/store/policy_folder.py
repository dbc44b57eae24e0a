"""The policy as a folder on disk, read again and again, and its last good copy.

A folder that is broken or older than what we have changes nothing: the last good
policy stays, also across restarts, and the caller says what is wrong. Writers
change the documents first and raise the version in policy.yaml last.
"""

import base64
import binascii
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fabric.model.errors import FabricError, Reason, UnavailableError, UsageError
from fabric.model.limits import POLICY_BYTES_MAX, POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX
from fabric.policy.load import load
from fabric.policy.types import Policy

_log = logging.getLogger(__name__)
_HEAD = "policy.yaml"
_SUFFIXES = frozenset({".yaml", ".yml", ".avsc", ".pem"})
_TRIES = 3


class PolicyFolder:
    """The policy in force. Its calls read files: run them in a thread. One caller at a time.

    Args:
        folder: holds policy.yaml and the rest.
        copy: file for the last good copy; None keeps none, and then a start needs the folder.
    """

    def __init__(self, folder: Path, *, copy: Path | None = None) -> None:
        self._folder = folder
        self._copy = copy
        self._head = b""
        self._policy: Policy | None = None

    @property
    def policy(self) -> Policy:
        """The policy in force; raises UnavailableError before the first `load`."""
        if self._policy is None:
            raise UnavailableError(Reason.NOT_READY, "policy is not loaded yet")
        return self._policy

    def load(self) -> Policy:
        """Take the newer of folder and copy, the folder when they are equal.

        Raises:
            UsageError: POLICY_INVALID, neither loads.
        """
        self._policy = self._from_copy()
        try:
            self.refresh()
        except UsageError:
            if self._policy is None:
                raise
        return self.policy

    def refresh(self) -> Policy | None:
        """Look at the folder; the new policy, or None when nothing has changed.

        Raises:
            UsageError: POLICY_INVALID; the folder is broken, or its version went back.
                The policy in force stays.
        """
        head = _read(self._folder / _HEAD, _HEAD)
        if head == self._head:
            return None
        files = self._consistent()
        policy = load(files)
        if self._policy is not None and policy.version < self._policy.version:
            raise UsageError(
                Reason.POLICY_INVALID,
                f"{_HEAD}: version: is {policy.version}, below {self._policy.version} that is in"
                " force; publish a greater one",
            )
        self._head, self._policy = files[_HEAD], policy
        self._keep(files)
        return policy

    def _consistent(self) -> Mapping[str, bytes]:
        """Every file, as they stood together under one policy.yaml."""
        for _ in range(_TRIES):
            files = read_files(self._folder)
            if files.get(_HEAD) == _read(self._folder / _HEAD, _HEAD):
                return files
        raise UsageError(Reason.POLICY_INVALID, f"{_HEAD}: changes all the time; publish once")

    def _from_copy(self) -> Policy | None:
        if self._copy is None:
            return None
        try:
            text = json.loads(self._copy.read_bytes())
            files = {name: base64.b64decode(data, validate=True) for name, data in text.items()}
            return load(files)
        except (OSError, ValueError, TypeError, AttributeError, binascii.Error, FabricError):
            return None  # no copy or a spoilt one: the folder must do

    def _keep(self, files: Mapping[str, bytes]) -> None:
        if self._copy is None:
            return
        text = json.dumps({name: base64.b64encode(data).decode() for name, data in files.items()})
        try:
            _replace(self._copy, text.encode())
        except OSError as exc:
            # A new policy may take something away: it must hold even when the disk is full.
            _log.warning("copy of the policy cannot be written to %s: %s", self._copy, exc.strerror)


def read_files(folder: Path) -> dict[str, bytes]:
    """Content of every policy file below `folder`, by POSIX path relative to it.

    Hidden files and folders and foreign suffixes are left out.

    Raises:
        UsageError: POLICY_INVALID; a file cannot be read or a bound is passed.
    """
    files: dict[str, bytes] = {}
    total = 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            if name.startswith(".") or path.suffix not in _SUFFIXES:
                continue
            key = path.relative_to(folder).as_posix()
            files[key] = _read(path, key)
            total += len(files[key])
            if len(files) > POLICY_FILES_MAX or total > POLICY_BYTES_MAX:
                raise UsageError(
                    Reason.POLICY_INVALID,
                    f"{folder}: files: are more than {POLICY_FILES_MAX} or {POLICY_BYTES_MAX}"
                    " bytes; remove old ones",
                )
    return files


def _read(path: Path, key: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(POLICY_FILE_BYTES_MAX + 1)
    except OSError as exc:
        raise UsageError(
            Reason.POLICY_INVALID, f"{key}: file: cannot be read ({exc.strerror}) at {path}"
        ) from exc
    if len(data) > POLICY_FILE_BYTES_MAX:
        raise UsageError(
            Reason.POLICY_INVALID, f"{key}: size: is more than {POLICY_FILE_BYTES_MAX} bytes"
        )
    return data


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, readable by its owner."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
