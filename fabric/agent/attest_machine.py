"""The life of a host's attestation: enrol once, attest, renew at half life. Pure.

    Started -> Enrol or Attest          Enrolled -> Attest
    Attested -> Show(None), Sleep(half the result's life, with jitter)
    Refused  -> Show(reason), Sleep     Woke -> the same again

A refusal of class wait is retried with short pauses; everything else slowly, but
for ever, so that a host that is approved again comes back by itself.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.limits import RETRY_S_MAX, RETRY_S_MIN

_HALF = 0.5
_JITTER = 0.1
_RENEWAL_S_MIN = 1.0
_HOLD_S_MIN = 5.0
_HOLD_S_MAX = 30.0
_HOLD_GROWTH = 1.5
_FRESH = frozenset({Reason.NONCE_REFUSED})
"""Refused for lateness alone: a new challenge is enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The agent begins; whether this TPM's key was activated in an earlier life."""

    enrolled: bool


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The authority has activated the attestation key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """A new result; `jitter` in 0..1 spreads the renewals of many hosts."""

    issued: datetime
    expires: datetime
    jitter: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Enrolment or attestation failed."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Woke:
    """The last Sleep is over, or was cut short because the policy changed."""


@dataclass(frozen=True, slots=True)
class Enrol:
    """Prove that the attestation key lives in the endorsed TPM."""


@dataclass(frozen=True, slots=True)
class Attest:
    """Ask for a challenge, quote, and fetch a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Wait, then answer with Woke."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Tell people how it stands; None means well."""

    reason: Reason | None


Event: TypeAlias = Started | Enrolled | Attested | Refused | Woke
Command: TypeAlias = Enrol | Attest | Sleep | Show


class AttestMachine:
    """The machine of one host."""

    def __init__(self) -> None:
        self._enrolled = False
        self._has_lost_us = False
        self._waits = 0
        self._holds = 0

    def step(self, event: Event, now: datetime) -> tuple[Command, ...]:
        """Take one event; what is to be done, in order."""
        match event:
            case Started():
                self._enrolled = event.enrolled
                return (self._next(),)
            case Enrolled():
                self._enrolled = True
                return (Attest(),)
            case Attested():
                self._waits = self._holds = 0
                self._has_lost_us = False
                return Show(reason=None), Sleep(seconds=_renewal_s(event, now))
            case Refused():
                return Show(reason=event.reason), Sleep(seconds=self._pause_s(event.reason))
            case Woke():
                return (self._next(),)

    def _next(self) -> Command:
        return Attest() if self._enrolled else Enrol()

    def _pause_s(self, reason: Reason) -> float:
        if reason is Reason.NOT_ENROLLED and self._enrolled:
            self._enrolled = False  # the authority lost us: prove the key again
            is_first, self._has_lost_us = not self._has_lost_us, True
            if is_first:  # one that loses us each time is not asked without a pause
                return 0.0
        if reason in _FRESH or class_of(reason) is ReasonClass.WAIT:
            self._waits += 1
            return min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(self._waits, 10))
        self._holds += 1
        return min(_HOLD_S_MAX, _HOLD_S_MIN * _HOLD_GROWTH ** min(self._holds - 1, 10))


def _renewal_s(event: Attested, now: datetime) -> float:
    """Until half of the result's life is over, give or take a tenth."""
    life_s = (event.expires - event.issued).total_seconds()
    share = _HALF + _JITTER * (event.jitter - _HALF)
    age_s = max(0.0, (now - event.issued).total_seconds())
    return max(_RENEWAL_S_MIN, life_s * share - age_s)
