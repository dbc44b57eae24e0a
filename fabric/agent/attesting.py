"""Keep this host attested: run what the attest machine says, against TPM and authority."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from fabric.agent.attest_machine import (
    Attest,
    Attested,
    AttestMachine,
    Enrol,
    Enrolled,
    Event,
    Refused,
    Show,
    Sleep,
    Started,
    Woke,
)
from fabric.agent.identity import Identity
from fabric.agent.keyring import KeySet, plan_for
from fabric.agent.supervisor import Board
from fabric.agent.tally import Tally
from fabric.agent.view import WorldView
from fabric.attest.binding import qualifying
from fabric.attest.messages import AttestRequest, Challenge, EnrolRequest
from fabric.attest.resident import ResidentReport
from fabric.attest.result import Result, decode
from fabric.model.errors import ConfigInvalid, DeniedError, FabricError, Reason, UnavailableError
from fabric.model.limits import EVENT_LOG_BYTES_MAX, REQUEST_S_MAX
from fabric.policy import decide
from fabric.policy.types import Policy
from fabric.ports import Tpm
from fabric.store.clock import SystemClock
from fabric.store.tpm_keys import TpmKeys
from fabric.web.authority import AuthorityClient

PART = "attestation"
_ENROLLED = "enrolled"
_TPM_S_MAX = 60.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What attesting asks of and tells the rest of the agent.

    Attributes:
        heads: hashes of the last acknowledged envelopes, carried in results.
        attested: called with each new result.
        failed: called with the reason of each failure.
    """

    heads: Callable[[], tuple[bytes, ...]]
    attested: Callable[[Result], None]
    failed: Callable[[Reason], None]


class Attesting:
    """The attesting part of an agent.

    Attributes:
        ready: set once the state file is open and there is a certificate to show.
    """

    def __init__(
        self,
        identity: Identity,
        view: WorldView,
        *,
        tpm: Tpm,
        authority: AuthorityClient,
        clock: SystemClock,
        board: Board,
        hooks: Hooks,
        event_log: Path | None = None,
    ) -> None:
        self._identity = identity
        self._view = view
        self._tpm = tpm
        self._tally = Tally(identity.folder, tpm)
        self._authority = authority
        self._clock = clock
        self._board = board
        self._hooks = hooks
        self._event_log = event_log
        self._detail = ""
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Attest and renew, for ever; raises FabricError while the state file does not open."""
        if not self.ready.is_set():
            await self._go_on()
        enrolled = self._identity.is_open and self._identity.state.get(_ENROLLED) is not None
        machine = AttestMachine()
        event: Event = Started(enrolled=enrolled)
        while True:
            for command in machine.step(event, self._clock.now()):
                match command:
                    case Enrol():
                        event = await self._tried(self._enrol())
                    case Attest():
                        event = await self._tried(self._attest())
                    case Show():
                        self._show(command.reason)
                    case Sleep():
                        await self._view.changed_policy.wait(command.seconds)
                        event = Woke()

    async def _go_on(self) -> None:
        """Open what an earlier life left, and go on under its result while that lives."""
        is_open = self._identity.is_open  # still, when trust anchors have changed
        if not is_open and not await self._in_thread(self._identity.open_existing):
            return
        result = self._identity.last_result(self._view.policy.trust)
        if result is None:
            return
        self._clock.observe(result.issued)
        if self._identity.go_on(result, self._clock.now()):
            self._hooks.attested(result)
            self.ready.set()

    def _show(self, reason: Reason | None) -> None:
        self._board.show(PART, reason, self._detail if reason else "")

    async def _tried(self, work: Coroutine[object, object, Event]) -> Event:
        try:
            return await work
        except FabricError as exc:
            self._detail = str(exc.args[0])
            self._hooks.failed(exc.reason)
            return Refused(reason=exc.reason)

    async def _enrol(self) -> Event:
        request = EnrolRequest(
            host=self._view.me,
            ek_certificate=await self._in_thread(self._tpm.ek_certificate),
            ak_public=await self._in_thread(self._tpm.ak_public),
        )
        challenge = await self._authority.enrol(request)
        secret = await self._in_thread(
            lambda: self._tpm.activate(challenge.credential, challenge.secret)
        )
        await self._authority.activate(challenge.enrolment, secret)
        if self._identity.is_open:
            await self._in_thread(lambda: self._identity.state.put(_ENROLLED, b"1"))
        return Enrolled()

    async def _attest(self) -> Event:
        challenge = await self._authority.challenge(self._view.me)
        if not self._identity.is_open:
            await self._in_thread(lambda: self._identity.create(challenge.pcrs))
            await self._in_thread(lambda: self._identity.state.put(_ENROLLED, b"1"))
        policy = self._view.policy
        plan, life = plan_for(decide.suites_of(policy, self._view.me)), longest_result(policy)
        keys = await self._in_thread(lambda: self._identity.keys(self._clock.now(), plan, life))
        request = await self._in_thread(lambda: self._request(challenge))
        answer = await self._authority.attest(request)
        result = decode(answer.result, self._view.policy.trust)
        if result.issued > self._clock.latest():  # kept, it would hold this host up for as long
            raise DeniedError(
                Reason.CLOCK_WENT_BACK, "the new result is ahead of this machine's clock"
            )
        await self._in_thread(lambda: self._identity.take(answer.svid_pem, answer.result, keys))
        accepted, kept = self._accepted(challenge.pcrs), longest_retention(policy)
        await self._in_thread(lambda: self._identity.keep_sealed(challenge.pcrs, accepted))
        # One clock that is ahead, this host's or the authority's, must not erase what is needed.
        no_later = min(self._clock.now(), result.issued)
        await self._in_thread(lambda: self._identity.erase_keys(no_later, kept))
        self._clock.observe(result.issued)
        self._hooks.attested(result)
        self.ready.set()
        jitter = random.random()  # noqa: S311  # spreads load, is no secret
        return Attested(issued=result.issued, expires=result.expires, jitter=jitter)

    def _accepted(self, pcrs: tuple[int, ...]) -> tuple[bytes, ...]:
        """The states over `pcrs` that this host's approval accepts."""
        approval = self._view.policy.approvals.get(self._view.me)
        return approval.digests if approval is not None and approval.pcrs == pcrs else ()

    def _request(self, challenge: Challenge) -> bytes:
        """Quote over the challenge and our keys, signed by every key it binds."""
        keys = self._identity.keyring.newest
        assert keys is not None
        extra = qualifying(
            challenge.nonce,
            challenge.session,
            verifier=challenge.verifier,
            spiffe=self._view.me.spiffe(self._view.trust_domain),
            keys=keys.bound,
        )
        tally = self._tally.report(challenge, extra)
        quote = self._tpm.quote(challenge.pcrs, extra)
        body = AttestRequest(
            session=challenge.session,
            host=self._view.me,
            quote_attest=quote.attest,
            quote_signature=quote.signature,
            keys=keys.bound,
            heads=self._hooks.heads(),
            tally=tally,
            event_log=read_event_log(self._event_log) if self._event_log else b"",
            resident=self._resident(keys, extra),
        )
        return body.encode(keys.signers)

    def _resident(self, keys: KeySet, extra: bytes) -> ResidentReport | None:
        """Proof of the signing key that lives in the TPM, if the set has one."""
        store = TpmKeys(self._tpm)
        for held in keys.signing:
            if held.store == store.name:
                return store.certify(held.reference, extra)
        return None

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        """Run a blocking call beside the loop; its deadline is the TPM's own, seconds."""
        try:
            async with asyncio.timeout(_TPM_S_MAX + REQUEST_S_MAX):
                return await asyncio.to_thread(work)
        except TimeoutError as exc:
            raise UnavailableError(Reason.TPM_UNAVAILABLE, "TPM does not answer") from exc


def longest_result(policy: Policy) -> timedelta:
    """How long a result may live by any rule of the policy."""
    lives = [rule.result_lifetime_s for rule in policy.rules.values()]
    return timedelta(seconds=max(lives, default=0))


def longest_retention(policy: Policy) -> timedelta | None:
    """How long the log keeps what it keeps longest; None when the policy names no dataset."""
    kept = [dataset.retention_s for dataset in policy.datasets.values()]
    return timedelta(seconds=max(kept)) if kept else None


def read_event_log(path: Path) -> bytes:
    """Firmware's log of this boot.

    Raises:
        ConfigInvalid: it cannot be read or is longer than EVENT_LOG_BYTES_MAX.
    """
    try:
        with path.open("rb") as file:  # its size is not known before: read one byte too many
            data = file.read(EVENT_LOG_BYTES_MAX + 1)
    except OSError as exc:
        raise ConfigInvalid(f"tpm.event_log: {path} cannot be read ({exc.strerror})") from exc
    if len(data) > EVENT_LOG_BYTES_MAX:
        raise ConfigInvalid(f"tpm.event_log: {path} is longer than {EVENT_LOG_BYTES_MAX} bytes")
    return data


__all__ = ["PART", "Attesting", "read_event_log"]
