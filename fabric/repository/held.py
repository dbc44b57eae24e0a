"""A verified repository in memory, and its last good copy in one file.

The copy is verified again from the trust anchor whenever it is read, without network
and clock: a start goes by it when nobody answers, also when it has ended meanwhile.
"""

import base64
import binascii
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path

from fabric.model.errors import Reason, UnavailableError
from fabric.policy.load import load
from fabric.policy.signed import SignedPolicy, verify
from fabric.policy.types import Policy

_log = logging.getLogger(__name__)
_COPY = "policy.copy"
_COPY_BYTES_MAX = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A verified repository: the bytes that were signed, and what follows from them.

    Attributes:
        roots: trust anchor first.
        metadata: by role name, without root.
        files: content by path.
    """

    roots: Sequence[bytes]
    metadata: Mapping[str, bytes]
    files: Mapping[str, bytes]
    signed: SignedPolicy
    policy: Policy

    @classmethod
    def of(
        cls, roots: Sequence[bytes], metadata: Mapping[str, bytes], files: Mapping[str, bytes]
    ) -> "Held":
        """Verify and load; raises PeerError or UsageError POLICY_INVALID."""
        signed = verify(roots, metadata)
        taken = {path: signed.take(path, files.get(path, b"")) for path in signed.files}
        policy = load(taken, version=signed.version, expires=signed.expires)
        policy = replace_fields(policy, renew_by=signed.renew_by)
        return cls(roots=roots, metadata=metadata, files=taken, signed=signed, policy=policy)


def read_copy(anchor: bytes, state: Path) -> Held:
    """The last good copy below `state`, verified again from the trust anchor.

    Raises:
        UnavailableError: NOT_READY, there is none.
        PeerError: it is spoilt, or belongs to another trust anchor.
    """
    try:
        with (state / _COPY).open("rb") as file:
            text = json.loads(file.read(_COPY_BYTES_MAX))
        roots = [_bytes(data) for data in text["roots"]]
        metadata = {name: _bytes(data) for name, data in text["metadata"].items()}
        files = {name: _bytes(data) for name, data in text["files"].items()}
    except OSError as exc:
        raise UnavailableError(Reason.NOT_READY, f"no policy was fetched yet to {state}") from exc
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise UnavailableError(Reason.NOT_READY, f"the copy below {state} is spoilt") from exc
    if roots[:1] != [anchor]:
        raise UnavailableError(Reason.NOT_READY, "the copy belongs to another trust anchor")
    return Held.of(roots, metadata, files)


def keep_copy(state: Path, held: Held) -> None:
    """Write the last good copy; a full disk is said and does not hold a new policy back."""
    text = json.dumps(
        {
            "roots": [base64.b64encode(data).decode() for data in held.roots],
            "metadata": {k: base64.b64encode(v).decode() for k, v in held.metadata.items()},
            "files": {k: base64.b64encode(v).decode() for k, v in held.files.items()},
        }
    )
    try:
        replace(state / _COPY, text.encode())
    except OSError as exc:
        # A new policy may take something away: it must hold even when it cannot be kept.
        _log.warning("copy of the policy cannot be written: %s", exc.strerror)


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all; raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise TypeError
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as exc:
        raise ValueError from exc
