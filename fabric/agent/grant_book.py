"""What one topic's grants say: its epoch starts and later grants, trusted when asked for. Pure.

Records are parsed as they come and verified on first use, because the result that
a start names may reach us after it. What does not verify is forgotten, and until it
does it says nothing, not even that it names us. Of the wraps only this host's own is
kept: a start for a thousand hosts holds a megabyte. What one writer wrote takes no
other writer's room. Of a sender's starts the newest are kept: its blocks go on there.
Anybody can write a start in its name, so before one has to go they are verified.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

from fabric.admit.view import View
from fabric.agent.offers import Offers
from fabric.agent.room import NewestRoom, Room
from fabric.attest.members import Members
from fabric.attest.result import Result, standing
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.names import HostId, Topic
from fabric.policy import decide
from fabric.policy.types import Policy
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
from fabric.seal.record import Terms
from fabric.seal.secret import EpochSecret

_STARTS_MAX = (20_000, 4_000)
"""In all, and of one sender; who has too many loses its oldest."""
_GRANTS_MAX = (100_000, 20_000, 1_000)
"""In all, of one granter, and of one granter for one epoch; so many for us, so many for others."""
_COPIES_MAX = 8
_FROM_JOIN = "from_join"
_Place: TypeAlias = tuple[bytes, str]
"""Epoch id and sender: whoever grants under another's epoch id has a place of its own."""
_Pending: TypeAlias = tuple[bytes, bool, tuple[tuple[bytes, bytes], ...]]
"""A grant's hash, whether we keep our wrap of it, and its signatures, which no hash covers."""


class GrantBook:
    """Starts by hash, grants by epoch, and the secrets this host could unwrap.

    Args:
        rejected: told of every start or grant that turned out forged when it was asked for,
            once of every wrap for us that does not open, and of every start that had to go.
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
        self._starts_room = NewestRoom(*_STARTS_MAX)
        self._grants: dict[_Place, dict[_Pending, OpenedGrant]] = {}
        self._good: dict[_Place, dict[tuple[bytes, bool], VerifiedGrant]] = {}
        self._grants_room = {mine: Room("grants", _GRANTS_MAX) for mine in (True, False)}
        self._naming_me: set[bytes] = set()
        self._offered = Offers()
        self._spoilt: set[bytes] = set()
        self._secrets: dict[bytes, EpochSecret] = {}
        self._joined_at: tuple[int | None, datetime | None] = (None, None)
        self._joined_before: datetime | None = None
        self._news = 0

    def feed(self, key: bytes, value: bytes, members: Members | None = None) -> None:
        """Take in one record of the grants topic.

        Args:
            members: by them a sender's starts are told from forged ones before any has to go.

        Raises:
            PeerError: it is no start or grant of this topic under its own key, its wraps are
                not those it names, or there are too many of too many writers.
        """
        kind = record.kind_of(value)
        if kind == START:
            self._feed_start(key, value, members)
        elif kind == GRANT:
            self._feed_grant(key, value)
        else:
            raise Malformed("record is neither an epoch start nor a grant")

    def _feed_start(self, key: bytes, value: bytes, members: Members | None) -> None:
        opened = parse_start(value)
        start = opened.start
        if start.topic != self._topic or key != start_key(start):
            raise Malformed("epoch start is not of this topic or not under its own key")
        wraps = record.check_wraps(start.recipients, opened.first, opened.wraps)
        if len(self._opened.get(opened.hash, ())) >= _COPIES_MAX:
            self._try(opened.hash, members)  # forged copies must not stand before a good one
        is_new = opened.hash not in self._opened
        if self._me in wraps:  # what is named by digest is the same in every copy
            self._mine[opened.hash] = wraps[self._me]
        if any(recipient.host == self._me for recipient in start.recipients):
            self._naming_me.add(opened.hash)  # the hash covers the names: no copy has others
        # The hash does not cover the signatures, so copies may differ: one of them verifies.
        copies = self._opened.setdefault(opened.hash, [])
        kept = bare(opened)
        if opened.hash in self._verified or kept in copies or len(copies) >= _COPIES_MAX:
            return
        copies.append(kept)
        self._news += 1
        if is_new:
            self._starts_room.take(start.sender, opened.hash)
            self._make_room(start.sender, opened.hash, members)

    def _make_room(self, sender: HostId, start_hash: bytes, members: Members | None) -> None:
        for gone in self._starts_room.excess(sender, lambda name: self._try(name, members)):
            self._let_go(gone)
            if gone == start_hash:  # it alone is what its sender has, and so it is with everybody
                raise PeerError(Reason.TOO_LARGE, "more epoch starts than a view holds")
            self._rejected(Reason.TOO_LARGE)

    def _try(self, start_hash: bytes, members: Members | None) -> None:
        if members is not None:
            with suppress(DeniedError):  # the result that it names may still come
                self.start(start_hash, members)

    def _let_go(self, start_hash: bytes) -> None:
        """Forget a start, and what rests on it, except since when we may read."""
        found = self._verified.pop(start_hash, None)
        del self._opened[start_hash]
        if found is not None and (start_hash in self._naming_me or found in self._offered):
            at = found.start.started
            self._joined_before = min(self._joined_before or at, at)
        self._mine.pop(start_hash, None)
        self._naming_me.discard(start_hash)
        if found is None:  # whoever wrote it: grants of that epoch id may be another start's
            return
        self._secrets.pop(found.start.id, None)
        place = _place(found.start.terms)
        for key in [*self._grants.get(place, ())]:
            self._drop(place, key)
        self._grants.pop(place, None)
        for (_, mine), good in self._good.pop(place, {}).items():
            self._grants_room[mine].give_back(good.grant.granter, place)

    def _feed_grant(self, key: bytes, value: bytes) -> None:
        opened = parse_grant(value)
        found, terms = opened.grant, opened.grant.terms
        if terms.topic != self._topic or key != grant_key(found.granter, terms.epoch_id):
            raise Malformed("grant is not of this topic or not under its own key")
        wraps = record.check_wraps(found.recipients, opened.first, opened.wraps)
        mine, place = self._me in wraps, _place(terms)
        pending = (opened.manifest.hash, mine, opened.manifest.signed.signatures)
        if pending[:2] in self._good.get(place, ()) or pending in self._grants.get(place, ()):
            return
        self._grants_room[mine].take(found.granter, place)
        kept = _only(opened, self._me if mine else None)
        self._grants.setdefault(place, {})[pending] = kept
        if self._offered.add(kept):
            self._news += 1

    # Starts

    def is_too_old(self, sender: HostId, number: int, members: Members) -> bool:
        """Whether a start had to go and comes no more: what is kept of its sender is later."""
        kept = self._starts_room.names(sender) if self._starts_room.has_let_go else ()
        oldest = next(self._good_of(kept, members), None)
        return oldest is not None and number < oldest.start.number

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
                self._forget(opened)  # a good copy may still come
                continue
            self._verified[start_hash] = found
            self._starts_room.prove(found.start.sender, start_hash)
            self._news += 1
            self._opened[start_hash].clear()
            return found
        return None

    def _forget(self, opened: OpenedStart) -> None:
        copies = self._opened[opened.hash]
        copies.remove(opened)
        if not copies:
            del self._opened[opened.hash]
            self._mine.pop(opened.hash, None)
            self._naming_me.discard(opened.hash)
            self._starts_room.give_back(opened.start.sender, opened.hash)

    def _verify(self, opened: OpenedStart, result: Result, members: Members) -> VerifiedStart:
        why = members.was_trusted(result, opened.start.started)
        if why is not None:
            raise PeerError(why, "epoch start was not opened by a trusted host")
        return verify_start(opened, result, self._trust_domain)

    def starts(self, members: Members) -> list[VerifiedStart]:
        """Every start that verifies now, oldest first."""
        found = self._good_of([*self._opened], members)
        return sorted(found, key=lambda item: (item.start.started, item.start.number))

    def _good_of(self, hashes: Sequence[bytes], members: Members) -> Iterator[VerifiedStart]:
        for start_hash in hashes:
            with suppress(DeniedError):  # the result that it names may still come
                if (start := self.start(start_hash, members)) is not None:
                    yield start

    def is_before_join(self, started: VerifiedStart, members: Members) -> bool:
        """Whether an epoch of a `from_join` dataset began before the first that serves us.

        While none serves us nobody can tell: then the answer is no, and the reader waits.
        Only its sender's word counts: a custodian hands an epoch on to whom it had served.
        """
        if started.start.history != _FROM_JOIN or self._serves_me(started, members):
            return False
        joined = self._joined(members)
        return joined is not None and started.start.started < joined

    def _joined(self, members: Members) -> datetime | None:
        """When the first epoch began that serves us; looked up anew when we have learnt more."""
        if self._joined_at[0] != self._news:
            times = [self._joined_before] if self._joined_before else []
            is_whole = True
            for start_hash in self._naming_me | self._offered.among(self._opened):
                try:
                    start = self.start(start_hash, members)
                except DeniedError:  # the result that it names may still come
                    is_whole = False
                    continue
                if start is not None and self._serves_me(start, members):
                    times.append(start.start.started)
                elif start is not None and start in self._offered:
                    is_whole = False
            self._joined_at = (self._news if is_whole else None, min(times, default=None))
        return self._joined_at[1]

    def _serves_me(self, started: VerifiedStart, members: Members) -> bool:
        """Whether the start, or a good grant by its sender, has a wrap for us."""
        if started in self._offered and started.hash not in self._naming_me:
            self._grants_of(started, members)
        return started.hash in self._naming_me

    # Secrets

    def secret(self, started: VerifiedStart, keys: Sequence[HpkeKey], view: View) -> EpochSecret:
        """The epoch's secret, from its start or from a later grant.

        Args:
            keys: every HPKE key this host still holds.

        Raises:
            DeniedError: GRANT_MISSING, also where no wrap for this host opens: a good one
                may still come.
        """
        known = self._secrets.get(started.start.id)
        if known is None:
            known = self._secrets[started.start.id] = self._unwrap(started, keys, view)
        return known

    def _unwrap(self, started: VerifiedStart, keys: Sequence[HpkeKey], view: View) -> EpochSecret:
        failed: PeerError | None = None
        for terms, wrap in self._offers(started, view):
            mark = _mark(terms.info(self._me, wrap[0]), wrap[1])
            if mark in self._spoilt:
                continue
            try:
                return record.unwrap_one(terms, {self._me: wrap}, self._me, keys)
            except DeniedError:
                continue  # not for a key that we hold: a later one may be
            except PeerError as exc:
                failed = exc
                self._spoilt.add(mark)  # it is spoilt for good; whoever made it, others may be well
                self._rejected(exc.reason)
        raise DeniedError(
            Reason.GRANT_MISSING, "no grant of this epoch is for this host and opens"
        ) from failed

    def _offers(
        self, started: VerifiedStart, view: View
    ) -> Iterator[tuple[Terms, tuple[bytes, bytes]]]:
        """Wraps for this host, with what they are bound to; grants are looked at when needed."""
        if started.hash in self._mine:
            yield started.start.terms, self._mine[started.hash]
        for item in self._grants_of(started, view.members, view.policy):
            if self._me in item.wraps:
                yield item.grant.terms, item.wraps[self._me]

    def served(self, started: VerifiedStart, view: View) -> frozenset[tuple[HostId, bytes]]:
        """Whom an epoch's start and every good grant serve: (host, HPKE key's thumbprint)."""
        good = self._grants_of(started, view.members, view.policy)
        granted = (item.grant.recipients for item in good)
        everyone = (started.start.recipients, *granted)
        return frozenset((r.host, r.thumbprint) for recipients in everyone for r in recipients)

    def _grants_of(
        self, started: VerifiedStart, members: Members, policy: Policy | None = None
    ) -> list[VerifiedGrant]:
        """Grants of an epoch that verify now; what never can is forgotten.

        Args:
            policy: says who is a custodian; without it only the sender's are looked at.
        """
        place = _place(started.start.terms)
        pending = self._grants.get(place, {})
        for key, opened in [*pending.items()]:
            try:
                found = self._verify_grant(opened, started, members, policy)
            except DeniedError:
                continue  # the granter's result, or a policy that names it, may still come
            except PeerError as exc:
                self._rejected(exc.reason)  # forged or spoilt: it must not stand before a good one
                self._drop(place, key)
                continue
            if key[:2] in self._good.setdefault(place, {}):
                self._drop(place, key)
                continue
            self._offered.drop(pending.pop(key))
            self._good[place][key[:2]] = found
            if self._me in found.wraps and found.grant.granter == started.start.sender:
                self._naming_me.add(started.hash)
        return [*self._good.get(place, {}).values()]

    def _drop(self, place: _Place, key: _Pending) -> None:
        opened = self._grants[place].pop(key)
        self._offered.drop(opened)
        self._grants_room[key[1]].give_back(opened.grant.granter, place)

    def _verify_grant(
        self, opened: OpenedGrant, started: VerifiedStart, members: Members, policy: Policy | None
    ) -> VerifiedGrant:
        found, start = opened.grant, started.start
        is_senders = found.granter == start.sender
        if not is_senders and policy is None:
            raise DeniedError(Reason.NOT_A_CUSTODIAN, "only the sender's grants are asked for")
        result = members.result(found.result_id)
        why = members.was_trusted(result, found.granted)
        if why is not None:
            raise PeerError(why, "grant was not made by a trusted host")
        if policy is not None and not is_senders:
            dataset = decide.dataset_of(policy, str(self._topic))
            why = decide.accept_grant(
                policy, dataset, standing(result), suite=start.suite, now=found.granted
            )
            if why is not None:
                raise DeniedError(why, "grant is not by the sender and not by a custodian")
        return verify_grant(opened, result, started, custodian=not is_senders)


def _place(terms: Terms) -> _Place:
    return terms.epoch_id, terms.sender


def _mark(info: bytes, wrapped: bytes) -> bytes:
    """What tells a wrap from every other: for whom, by whom, of what epoch, and its bytes."""
    return hashlib.sha256(info + wrapped).digest()


def _only(opened: OpenedGrant, host: HostId | None) -> OpenedGrant:
    """A record of a grant with one host's wrap, or with none."""
    hosts = [recipient.host for recipient in opened.grant.recipients]
    first = 0 if host is None else hosts.index(host)
    wraps = () if host is None else (opened.wraps[first - opened.first],)
    manifest = replace(opened.manifest, first=first, wraps=wraps)
    return replace(opened, first=first, wraps=wraps, manifest=manifest)
