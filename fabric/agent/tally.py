"""Continue this TPM's tally once per accepted renewal, also over a crash in between.

The step is on disk before the TPM is extended by it. When the verifier has not heard of
an extension (the agent died, the request was lost or refused), the same step is reported
again and nothing is extended. The file stands beside the state file, not in it: whoever
moves a lost state file away must not break the chain. Methods block.
"""

from pathlib import Path

from fabric.attest.messages import Challenge
from fabric.attest.tally import VALUE_BYTES, TallyReport, is_outstanding
from fabric.model.errors import Reason, UnavailableError
from fabric.ports import Tpm
from fabric.store.files import replace

STEP = "tally.step"


class Tally:
    """The tally of one host; `folder` keeps the step that was used last."""

    def __init__(self, folder: Path, tpm: Tpm) -> None:
        self._path = folder / STEP
        self._tpm = tpm

    def report(self, challenge: Challenge, qualifying: bytes) -> TallyReport:
        """Extend the tally by the challenge's step, or stay at one not heard of; certify it.

        Raises:
            UnavailableError: TPM_UNAVAILABLE; OVERLOADED, the folder cannot be written.
        """
        value, step = self._tpm.tally(), self._last()
        if not is_outstanding(challenge.tally, value, step):
            step = challenge.step
            self._keep(step)
            self._tpm.extend_tally(step)
        quote = self._tpm.certify_tally(qualifying)
        return TallyReport(attest=quote.attest, signature=quote.signature, step=step)

    def _keep(self, step: bytes) -> None:
        try:
            replace(self._path, step, mode=0o600)
        except OSError as exc:
            raise UnavailableError(
                Reason.OVERLOADED, f"{self._path} cannot be written ({exc.strerror})"
            ) from exc

    def _last(self) -> bytes:
        try:
            return self._path.read_bytes()[: VALUE_BYTES + 1]
        except FileNotFoundError:
            return b""
        except OSError as exc:  # not "no step": extending anew would break the chain
            raise UnavailableError(
                Reason.OVERLOADED, f"{self._path} cannot be read ({exc.strerror})"
            ) from exc
