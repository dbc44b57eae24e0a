"""What one topic's grants say: its epoch starts and later grants, trusted when asked for. Pure.

Records are parsed as they come and verified on first use, because the result that
a start names may reach us after it. What does not verify is forgotten.
"""

from collections.abc import Sequence

from fabric.attest.members import Members
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.names import HostId, Topic
from fabric.seal import grant as grants
from fabric.seal import record
from fabric.seal.epoch import KIND as START
from fabric.seal.epoch import OpenedStart, VerifiedStart, parse_start, start_key, verify_start
from fabric.seal.grant import KIND as GRANT
from fabric.seal.grant import OpenedGrant, grant_key, parse_grant, verify_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.secret import EpochSecret

_STARTS_MAX = 20_000
_GRANTS_PER_EPOCH_MAX = 1_000
_COPIES_MAX = 8


class GrantBook:
    """Starts by hash, grants by epoch, and the secrets this host could unwrap."""

    def __init__(self, topic: Topic, trust_domain: str, me: HostId) -> None:
        self._topic = topic
        self._trust_domain = trust_domain
        self._me = me
        self._opened: dict[bytes, list[OpenedStart]] = {}
        self._verified: dict[bytes, VerifiedStart] = {}
        self._grants: dict[bytes, list[OpenedGrant]] = {}
        self._secrets: dict[bytes, EpochSecret] = {}

    def feed(self, key: bytes, value: bytes) -> None:
        """Take in one record of the grants topic.

        Raises:
            PeerError: it is no start or grant of this topic under its own key, or too many.
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
        if opened.start.topic != self._topic or key != start_key(opened.start):
            raise Malformed("epoch start is not of this topic or not under its own key")
        if len(self._opened) >= _STARTS_MAX:
            raise PeerError(Reason.TOO_LARGE, "more epoch starts than a view holds")
        # The hash does not cover the wraps, so copies may differ: one of them verifies.
        copies = self._opened.setdefault(opened.hash, [])
        if opened not in copies and len(copies) < _COPIES_MAX:
            copies.append(opened)

    def _feed_grant(self, key: bytes, value: bytes) -> None:
        opened = parse_grant(value)
        terms = opened.grant.terms
        if terms.topic != self._topic or key != grant_key(opened.grant.granter, terms.epoch_id):
            raise Malformed("grant is not of this topic or not under its own key")
        if self._me not in {recipient.host for recipient in opened.grant.recipients}:
            return
        kept = self._grants.setdefault(terms.epoch_id, [])
        if len(kept) >= _GRANTS_PER_EPOCH_MAX:
            raise PeerError(Reason.TOO_LARGE, "more grants of one epoch than a view holds")
        kept.append(opened)

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
            except (PeerError, DeniedError):
                self._opened[start_hash].remove(opened)  # a good copy may still come
                continue
            self._verified[start_hash] = found
            return found
        return None

    def _verify(self, opened: OpenedStart, result: Result, members: Members) -> VerifiedStart:
        why = members.was_trusted(result, opened.start.started)
        if why is not None:
            raise PeerError(why, "epoch start was not opened by a trusted host")
        return verify_start(opened, result, self._trust_domain)

    def secret(
        self, started: VerifiedStart, keys: Sequence[HpkeKey], members: Members
    ) -> EpochSecret:
        """The epoch's secret, from its start or from a later grant.

        Args:
            keys: every HPKE key this host still holds.

        Raises:
            DeniedError: GRANT_MISSING.
            PeerError: OPEN_FAILED, the wrap for this host does not open.
        """
        known = self._secrets.get(started.start.id)
        if known is None:
            known = self._unwrap(started, keys, members)
            self._secrets[started.start.id] = known
        return known

    def _unwrap(
        self, started: VerifiedStart, keys: Sequence[HpkeKey], members: Members
    ) -> EpochSecret:
        try:
            return grants.unwrap_secret(started, self._me, keys)
        except DeniedError:
            pass  # a later grant may serve us, or a key that we have now
        kept = self._grants.get(started.start.id, [])
        for opened in [*reversed(kept)]:
            try:
                result = members.result(opened.grant.result_id)
                verified = verify_grant(opened, result, started)
                return grants.unwrap_secret(verified, self._me, keys)
            except DeniedError:
                continue
            except PeerError:
                kept.remove(opened)  # forged or spoilt: it must not stand before a good one
        raise DeniedError(Reason.GRANT_MISSING, "no grant of this epoch is for this host")
