"""Continue this TPM's tally once per accepted renewal, also over a crash in between.

The step is on disk before the TPM is extended by it. When the verifier has not heard of
an extension (the agent died, the request was lost or refused), the same step is reported
again and nothing is extended. The file stands beside the state file, not in it: whoever
moves a lost state file away must not break the chain. Methods block.
"""

import threading
from pathlib import Path

from fabric.attest.messages import Challenge
from fabric.attest.tally import VALUE_BYTES, TallyReport, is_heard
from fabric.model.disk import disk_error
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import Tpm
from fabric.store.files import replace

STEP = "tally.step"


class Tally:
    """The tally of one host; `folder` keeps the step that was used last."""

    def __init__(self, folder: Path, tpm: Tpm) -> None:
        self._path = folder / STEP
        self._tpm = tpm
        self._lock = threading.Lock()

    def report(self, challenge: Challenge, qualifying: bytes) -> TallyReport:
        """Certify the tally, extended by the challenge's step unless one was not heard of.

        Raises:
            UnavailableError: TPM_UNAVAILABLE; OVERLOADED, the folder cannot be written.
        """
        with self._lock:  # a call that was given up may still be at work in its thread
            if is_heard(challenge.tally, self._tpm.tally()):
                self._keep(challenge.step)
                self._tpm.extend_tally(challenge.step)
            quote = self._tpm.certify_tally(qualifying)
            step = self._last() or challenge.step
        return TallyReport(attest=quote.attest, signature=quote.signature, step=step)

    def _keep(self, step: bytes) -> None:
        try:
            replace(self._path, step, mode=0o600)
        except OSError as exc:
            raise (
                disk_error(exc, self._path.parent)
                or UnavailableError(
                    Reason.OVERLOADED, f"{self._path} cannot be written ({exc.strerror})"
                )
            ) from exc

    def _last(self) -> bytes:
        try:
            step = self._path.read_bytes()
        except FileNotFoundError:
            step = b""
        except OSError as exc:  # not "no step": the report would look like a fork
            raise UnavailableError(
                Reason.OVERLOADED, f"{self._path} cannot be read ({exc.strerror})"
            ) from exc
        return step if len(step) == VALUE_BYTES else b""
