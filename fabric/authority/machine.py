"""What the authority keeps in mind between two requests, and which notices stand. Pure.

Challenges and enrolments that wait for an answer are few, short-lived and used
once; nobody's questions can crowd out another's. Notices are numbered 1, 2, 3 for all
hosts together and never taken back.
"""

import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from fabric.attest.appraise import Enrolment
from fabric.attest.members import Notice, NoticeKind
from fabric.model.errors import DeniedError, PeerError, Reason, UnavailableError
from fabric.model.limits import (
    CHALLENGE_LIFETIME_S,
    CHALLENGES_MAX,
    ENROLMENT_LIFETIME_S,
    ENROLMENTS_PENDING_MAX,
    NONCE_BYTES,
    PEERS_REMEMBERED_MAX,
    PENDING_PER_ASKER_MAX,
    PENDING_PER_HOST_MAX,
    PENDING_PER_PEER_MAX,
    REQUESTS_BURST_MAX,
    REQUESTS_PER_S_MAX,
)
from fabric.model.names import HostId

ID_BYTES = 16
SECRET_BYTES = 32

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenChallenge:
    """A nonce that one host may answer once, until `expires`."""

    session: bytes
    nonce: bytes
    host: HostId
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingEnrolment:
    """An enrolment whose activation secret has been sent and not come back yet."""

    id: bytes
    enrolment: Enrolment
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[_T]):
    item: _T
    host: HostId
    peer: str
    expires: datetime


class _Pending(Generic[_T]):
    """Items by id, each for the same time, taken once; bounded in all and for each peer.

    Those that name one host are few, and fewer of one peer: there the oldest goes, so that
    nobody who names a host keeps that host from asking. Where all are too many, the oldest
    goes too: strangers from very many networks hold up an honest one no longer than they
    last.
    """

    def __init__(self, total_max: int, lifetime_s: float) -> None:
        self._items: OrderedDict[bytes, _Waiting[_T]] = OrderedDict()  # in the order of their end
        self._per_peer: Counter[str] = Counter()
        self._of_host: dict[HostId, OrderedDict[bytes, str]] = {}  # id and peer, oldest first
        self._total_max = total_max
        self._lifetime = timedelta(seconds=lifetime_s)

    def __len__(self) -> int:
        return len(self._items)

    def expires(self, now: datetime) -> datetime:
        return now + self._lifetime

    def put(self, ident: bytes, item: _T, host: HostId, peer: str, now: datetime) -> None:
        self._purge(now)
        self._make_room(host, peer)
        if self._per_peer[peer] >= PENDING_PER_PEER_MAX:
            raise UnavailableError(Reason.OVERLOADED, "too many requests of this peer wait")
        if len(self._items) >= self._total_max:
            self._drop(next(iter(self._items)))
        self._items[ident] = _Waiting(item, host, peer, self.expires(now))
        self._of_host.setdefault(host, OrderedDict())[ident] = peer
        self._per_peer[peer] += 1

    def find(self, ident: bytes, now: datetime) -> _T | None:
        self._purge(now)
        waiting = self._items.get(ident)
        return waiting.item if waiting is not None else None

    def take(self, ident: bytes, now: datetime) -> _T | None:
        self._purge(now)
        if ident not in self._items:
            return None
        return self._drop(ident)

    def _purge(self, now: datetime) -> None:
        while self._items:
            ident, oldest = next(iter(self._items.items()))
            if oldest.expires > now:
                return
            self._drop(ident)

    def _make_room(self, host: HostId, peer: str) -> None:
        """Let the oldest go of those that name a host, first of the peer's own."""
        named: Mapping[bytes, str] = self._of_host.get(host, {})
        mine = [ident for ident, asker in named.items() if asker == peer]
        if len(mine) >= PENDING_PER_ASKER_MAX:
            self._drop(mine[0])
        elif len(named) >= PENDING_PER_HOST_MAX:
            self._drop(next(iter(named)))

    def _drop(self, ident: bytes) -> _T:
        waiting = self._items.pop(ident)
        self._per_peer[waiting.peer] -= 1
        if not self._per_peer[waiting.peer]:
            del self._per_peer[waiting.peer]
        del self._of_host[waiting.host][ident]
        if not self._of_host[waiting.host]:
            del self._of_host[waiting.host]
        return waiting.item


class Challenges:
    """Nonces that are out: 256 bits, bound to session and host, single use, for seconds.

    Hosts that show their certificate have room of their own, which no stranger fills.
    """

    def __init__(self) -> None:
        self._known, self._strange = (
            _Pending[OpenChallenge](CHALLENGES_MAX, CHALLENGE_LIFETIME_S) for _ in range(2)
        )

    def __len__(self) -> int:
        return len(self._known) + len(self._strange)

    def open(
        self, host: HostId, peer: str, now: datetime, *, is_known: bool = False
    ) -> OpenChallenge:
        """Draw a fresh challenge for `host`; raises UnavailableError OVERLOADED.

        Args:
            peer: who asks (identity or network): its share is bounded.
            is_known: it showed the host's own certificate.
        """
        pending = self._known if is_known else self._strange
        challenge = OpenChallenge(
            session=secrets.token_bytes(ID_BYTES),
            nonce=secrets.token_bytes(NONCE_BYTES),
            host=host,
            expires=pending.expires(now),
        )
        pending.put(challenge.session, challenge, host, peer, now)
        return challenge

    def check(self, session: bytes, host: HostId, now: datetime) -> None:
        """Whether `take` would give it; it stays. Raises PeerError NONCE_REFUSED.

        For what comes before anything is proved: nobody uses up what others were given.
        """
        _given_to(self._known.find(session, now) or self._strange.find(session, now), host)

    def take(self, session: bytes, host: HostId, now: datetime) -> OpenChallenge:
        """Use a challenge up, whatever comes of it; raises PeerError NONCE_REFUSED."""
        return _given_to(self._known.take(session, now) or self._strange.take(session, now), host)


def _given_to(challenge: OpenChallenge | None, host: HostId) -> OpenChallenge:
    # One error for every cause, so that nobody learns which sessions there are.
    if challenge is None or challenge.host != host:
        raise PeerError(Reason.NONCE_REFUSED, "session is unknown, used, expired or another host's")
    return challenge


class Enrolments:
    """Enrolments that wait for their activation secret; one try each."""

    def __init__(self) -> None:
        self._pending = _Pending[PendingEnrolment](ENROLMENTS_PENDING_MAX, ENROLMENT_LIFETIME_S)

    def __len__(self) -> int:
        return len(self._pending)

    def open(self, enrolment: Enrolment, peer: str, now: datetime) -> PendingEnrolment:
        """Draw a fresh secret for one try; raises UnavailableError OVERLOADED."""
        pending = PendingEnrolment(
            id=secrets.token_bytes(ID_BYTES),
            enrolment=enrolment,
            secret=secrets.token_bytes(SECRET_BYTES),
        )
        self._pending.put(pending.id, pending, enrolment.host, peer, now)
        return pending

    def take(self, ident: bytes, secret: bytes, now: datetime) -> Enrolment:
        """The enrolment whose TPM recovered the secret; raises DeniedError ACTIVATION_FAILED."""
        pending = self._pending.take(ident, now)
        # One error for every cause, and equal work, so that nothing can be told apart.
        expected = pending.secret if pending is not None else secrets.token_bytes(SECRET_BYTES)
        if not hmac.compare_digest(expected, secret) or pending is None:
            raise DeniedError(
                Reason.ACTIVATION_FAILED, "activation failed: enrol again from the start"
            )
        return pending.enrolment


class Quota:
    """Requests a peer may make: a bucket of tokens each, refilled with time."""

    def __init__(self, rate: tuple[int, int] | None = None) -> None:
        """`rate`: requests a second and at once; None is that of the authority's operations."""
        self._rate = rate
        self._buckets: dict[str, tuple[float, datetime]] = {}  # least recently asked first

    def spend(self, peer: str, now: datetime, cost: int = 1) -> None:
        """Take `cost` tokens of `peer`; raises UnavailableError OVERLOADED when it has fewer.

        Then none is taken: of many behind one address, who asks in vain delays nobody.
        """
        per_s, burst = self._rate or (REQUESTS_PER_S_MAX, REQUESTS_BURST_MAX)
        tokens, since = self._buckets.pop(peer, (float(burst), now))
        passed = max(0.0, (now - since).total_seconds())
        tokens = min(float(burst), tokens + passed * per_s)
        self._buckets[peer] = (tokens - cost if tokens >= cost else tokens, now)
        if len(self._buckets) > PEERS_REMEMBERED_MAX:
            del self._buckets[next(iter(self._buckets))]
        if tokens < cost:
            raise UnavailableError(Reason.OVERLOADED, "too many requests; slow down")


def check_same(known: Enrolment | None, enrolment: Enrolment) -> None:
    """A host's TPM never changes under its name; raises DeniedError ENROLMENT_CONFLICT."""
    if known is not None and known != enrolment:
        raise DeniedError(
            Reason.ENROLMENT_CONFLICT,
            f"host {enrolment.host} is enrolled with another TPM or attestation key;"
            " the administrator must forget that enrolment first",
        )


def stands(notices: Iterable[Notice], approval: int) -> Reason | None:
    """What one host's notices say against it under this approval; None lets it be attested.

    A suspension or revocation holds for its approval and every earlier one: only an
    approval with a greater number ends it.
    """
    kinds = {notice.kind for notice in notices if notice.approval >= approval}
    if NoticeKind.REVOCATION in kinds:
        return Reason.HOST_REVOKED
    return Reason.HOST_SUSPENDED if NoticeKind.SUSPENSION in kinds else None


def needs_notice(notices: Iterable[Notice], kind: NoticeKind, approval: int) -> bool:
    """Whether a notice of `kind` would say anything new; a refused host may try for ever."""
    said = stands(notices, approval)
    if kind is NoticeKind.SUSPENSION:
        return said is None
    return said is not Reason.HOST_REVOKED


def forbid(reason: Reason | None, host: HostId) -> None:
    """Raise DeniedError when a notice stands; the message names the remedy."""
    if reason is not None:
        raise DeniedError(
            reason, f"host {host} needs an approval with a greater number before it attests again"
        )
