"""What one topic's grants say: its epoch starts and later grants, trusted when asked for. Pure.

Records are parsed as they come and verified on first use, because the result that
a start names may reach us after it. What does not verify is forgotten. Of the
wraps only this host's own is kept: a start for a thousand hosts holds a megabyte.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from fabric.admit.view import View
from fabric.attest.members import Members
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.names import HostId, Topic
from fabric.policy import decide
from fabric.seal import record
from fabric.seal.epoch import KIND as START
from fabric.seal.epoch import (
    OpenedStart,
    VerifiedStart,
    bare,
    parse_start,
    start_key,
    verify_start,
)
from fabric.seal.grant import KIND as GRANT
from fabric.seal.grant import OpenedGrant, VerifiedGrant, grant_key, parse_grant, verify_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.secret import EpochSecret

_STARTS_MAX = 20_000
_GRANTS_MAX = 100_000
_GRANTS_PER_EPOCH_MAX = 1_000
_COPIES_MAX = 8
_FROM_JOIN = "from_join"


class GrantBook:
    """Starts by hash, grants by epoch, and the secrets this host could unwrap.

    Args:
        rejected: told of every start or grant that turned out forged when it was asked for.
    """

    def __init__(
        self,
        topic: Topic,
        trust_domain: str,
        me: HostId,
        rejected: Callable[[Reason], None] = lambda _reason: None,
    ) -> None:
        self._rejected = rejected
        self._topic = topic
        self._trust_domain = trust_domain
        self._me = me
        self._opened: dict[bytes, list[OpenedStart]] = {}
        self._verified: dict[bytes, VerifiedStart] = {}
        self._mine: dict[bytes, tuple[bytes, bytes]] = {}
        self._grants: dict[bytes, list[OpenedGrant]] = {}
        self._grants_kept = 0
        self._good: dict[bytes, list[VerifiedGrant]] = {}
        self._naming_me: set[bytes] = set()
        self._secrets: dict[bytes, EpochSecret] = {}
        self._joined_at: tuple[tuple[int, int], datetime | None] = ((0, 0), None)

    def feed(self, key: bytes, value: bytes) -> None:
        """Take in one record of the grants topic.

        Raises:
            PeerError: it is no start or grant of this topic under its own key, its wraps are
                not those it names, or there are too many.
        """
        kind = record.kind_of(value)
        if kind == START:
            self._feed_start(key, value)
        elif kind == GRANT:
            self._feed_grant(key, value)
        else:
            raise Malformed("record is neither an epoch start nor a grant")

    def _feed_start(self, key: bytes, value: bytes) -> None:
        opened = parse_start(value)
        start = opened.start
        if start.topic != self._topic or key != start_key(start):
            raise Malformed("epoch start is not of this topic or not under its own key")
        wraps = record.check_wraps(start.recipients, opened.first, opened.wraps)
        if len(self._opened) >= _STARTS_MAX and opened.hash not in self._opened:
            raise PeerError(Reason.TOO_LARGE, "more epoch starts than a view holds")
        if self._me in wraps:  # what is named by digest is the same in every copy
            self._mine[opened.hash] = wraps[self._me]
        if any(recipient.host == self._me for recipient in start.recipients):
            self._naming_me.add(opened.hash)
        # The hash does not cover the signatures, so copies may differ: one of them verifies.
        copies = self._opened.setdefault(opened.hash, [])
        kept = bare(opened)
        if opened.hash in self._verified or kept in copies or len(copies) >= _COPIES_MAX:
            return
        copies.append(kept)

    def _feed_grant(self, key: bytes, value: bytes) -> None:
        opened = parse_grant(value)
        found, terms = opened.grant, opened.grant.terms
        if terms.topic != self._topic or key != grant_key(found.granter, terms.epoch_id):
            raise Malformed("grant is not of this topic or not under its own key")
        wraps = record.check_wraps(found.recipients, opened.first, opened.wraps)
        kept = self._grants.setdefault(terms.epoch_id, [])
        count = len(kept) + len(self._good.get(terms.epoch_id, ()))
        if count >= _GRANTS_PER_EPOCH_MAX or self._grants_kept >= _GRANTS_MAX:
            raise PeerError(Reason.TOO_LARGE, "more grants than a view holds")
        self._grants_kept += 1
        kept.append(_only(opened, self._me if self._me in wraps else None))
        if self._me in wraps:
            self._naming_me.add(found.start_hash)

    # Starts

    def known(self, start_hash: bytes) -> EpochSecret | None:
        """The secret of a start that was verified and unwrapped before; from any thread."""
        found = self._verified.get(start_hash)
        return None if found is None else self._secrets.get(found.start.id)

    def start(self, start_hash: bytes, members: Members) -> VerifiedStart | None:
        """The verified start of this hash, or None while it is missing.

        Raises:
            DeniedError: RESULT_UNKNOWN, the result that it names is not known yet.
        """
        found = self._verified.get(start_hash)
        if found is not None:
            return found
        for opened in [*self._opened.get(start_hash, ())]:
            result = members.result(opened.start.result_id)
            try:
                found = self._verify(opened, result, members)
            except (PeerError, DeniedError) as exc:
                self._rejected(exc.reason)
                self._opened[start_hash].remove(opened)  # a good copy may still come
                continue
            self._verified[start_hash] = found
            self._opened[start_hash].clear()
            return found
        return None

    def _verify(self, opened: OpenedStart, result: Result, members: Members) -> VerifiedStart:
        why = members.was_trusted(result, opened.start.started)
        if why is not None:
            raise PeerError(why, "epoch start was not opened by a trusted host")
        return verify_start(opened, result, self._trust_domain)

    def starts(self, members: Members) -> list[VerifiedStart]:
        """Every start that verifies now, oldest first."""
        found = []
        for start_hash in [*self._opened]:
            with suppress(DeniedError):  # the result that it names may still come
                start = self.start(start_hash, members)
                if start is not None:
                    found.append(start)
        return sorted(found, key=lambda item: (item.start.started, item.start.number))

    def is_before_join(self, started: VerifiedStart, members: Members) -> bool:
        """Whether an epoch of a `from_join` dataset began before the first that serves us.

        While none serves us nobody can tell: then the answer is no, and the reader waits.
        """
        if started.start.history != _FROM_JOIN or started.hash in self._naming_me:
            return False
        joined = self._joined(members)
        return joined is not None and started.start.started < joined

    def _joined(self, members: Members) -> datetime | None:
        """When the first epoch began that serves us; looked up anew when we have learnt more."""
        known = (len(self._naming_me), len(self._verified))
        if self._joined_at[0] != known:
            times = []
            for start_hash in self._naming_me:
                with suppress(DeniedError):
                    start = self.start(start_hash, members)
                    if start is not None:
                        times.append(start.start.started)
            known = (len(self._naming_me), len(self._verified))
            self._joined_at = (known, min(times, default=None))
        return self._joined_at[1]

    # Secrets

    def secret(self, started: VerifiedStart, keys: Sequence[HpkeKey], view: View) -> EpochSecret:
        """The epoch's secret, from its start or from a later grant.

        Args:
            keys: every HPKE key this host still holds.

        Raises:
            DeniedError: GRANT_MISSING.
            PeerError: OPEN_FAILED, the wrap for this host does not open.
        """
        known = self._secrets.get(started.start.id)
        if known is None:
            known = self._unwrap(started, keys, view)
            self._secrets[started.start.id] = known
        return known

    def _unwrap(self, started: VerifiedStart, keys: Sequence[HpkeKey], view: View) -> EpochSecret:
        mine = self._mine.get(started.hash)
        own = {} if mine is None else {self._me: mine}
        offers = [(started.start.terms, own)]
        offers += [(item.grant.terms, dict(item.wraps)) for item in self._grants_of(started, view)]
        for terms, wraps in offers:
            with suppress(DeniedError):  # not for a key that we hold: a later one may be
                return record.unwrap_one(terms, wraps, self._me, keys)
        raise DeniedError(Reason.GRANT_MISSING, "no grant of this epoch is for this host")

    def served(self, started: VerifiedStart, view: View) -> frozenset[tuple[HostId, bytes]]:
        """Whom an epoch's start and every good grant serve: (host, HPKE key's thumbprint)."""
        granted = (item.grant.recipients for item in self._grants_of(started, view))
        everyone = (started.start.recipients, *granted)
        return frozenset((r.host, r.thumbprint) for recipients in everyone for r in recipients)

    def _grants_of(self, started: VerifiedStart, view: View) -> list[VerifiedGrant]:
        """Grants of an epoch that verify now; what never can is forgotten."""
        good = self._good.setdefault(started.start.id, [])
        kept = self._grants.get(started.start.id, [])
        for opened in [*kept]:
            try:
                good.append(self._verify_grant(opened, started, view))
            except DeniedError:
                continue  # the granter's result, or a policy that names it, may still come
            except PeerError as exc:
                self._rejected(exc.reason)
                self._grants_kept -= 1  # forged or spoilt: it must not stand before a good one
            kept.remove(opened)
        return good

    def _verify_grant(
        self, opened: OpenedGrant, started: VerifiedStart, view: View
    ) -> VerifiedGrant:
        found, start = opened.grant, started.start
        result = view.members.result(found.result_id)
        why = view.members.was_trusted(result, found.granted)
        if why is not None:
            raise PeerError(why, "grant was not made by a trusted host")
        is_senders = found.granter == start.sender
        if not is_senders:
            dataset = decide.dataset_of(view.policy, str(self._topic))
            why = decide.custody(
                view.policy, dataset, standing(result), suite=start.suite, now=found.granted
            )
            if why is not None:
                raise DeniedError(why, "grant is not by the sender and not by a custodian")
        return verify_grant(opened, result, started, custodian=not is_senders)


def _only(opened: OpenedGrant, host: HostId | None) -> OpenedGrant:
    """A record of a grant with one host's wrap, or with none."""
    hosts = [recipient.host for recipient in opened.grant.recipients]
    first = 0 if host is None else hosts.index(host)
    wraps = () if host is None else (opened.wraps[first - opened.first],)
    manifest = replace(opened.manifest, first=first, wraps=wraps)
    return replace(opened, first=first, wraps=wraps, manifest=manifest)
