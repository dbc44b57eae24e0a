"""Who is a member now, and who was: a view grown from the authority's signed records.

The view is a function of the *set* of records, not of their order: feeding one
twice or late changes nothing. A host state replaces an older one; notices only
add up. A revocation is final for its approval and every earlier one. A suspension
stands until a reinstatement with a greater number, or an approval with a greater
number. A record that is hidden shows as a gap in the notices' numbers, which the
heartbeat names together with a hash over all of them. Spec: design section 6.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from fabric.attest.anchors import Anchor, Anchors
from fabric.attest.kept import KeptResults
from fabric.attest.notices import (
    NO_NOTICES,
    Heartbeat,
    HostState,
    MemberState,
    Notice,
    NoticeKind,
    heartbeat_record,
    host_record,
    listed_with,
    notice_record,
    read_member,
    result_key,
    result_record,
)
from fabric.attest.result import Result, decode
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.limits import (
    CLOCK_SKEW_S_MAX,
    HEARTBEATS_MISSED_MAX,
    HOSTS_MAX,
    NOTICES_MAX,
)
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.policy.types import Trust

_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)


class Members:
    """The view. Not thread-safe; grown by `feed`, asked by the rest.

    Args:
        trust: anchors whose verifier keys sign every record; when they change, make a
            new view and feed it from the log's start.
    """

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._hosts: dict[HostId, HostState] = {}
        self._by_host: dict[HostId, list[Notice]] = {}
        self._notices_kept = 0
        self._ahead: dict[int, Notice] = {}
        self._disputed: set[int] = set()
        self._listed = [NO_NOTICES]  # hash of the list up to each contiguous number
        self._heartbeat: Heartbeat | None = None
        self._whole_at: datetime | None = None
        self._from_future: datetime | None = None
        self._anchors = Anchors()
        self._results = KeptResults()

    def __repr__(self) -> str:
        return f"Members(hosts={len(self._hosts)}, revocation_number={self.revocation_number})"

    @property
    def hosts(self) -> Mapping[HostId, HostState]:
        """The newest state record of each host; `current` says whether it holds."""
        return MappingProxyType(self._hosts)

    @property
    def revocation_number(self) -> int:
        """Every notice up to this number is in the view."""
        return len(self._listed) - 1

    @property
    def heartbeat(self) -> datetime | None:
        """When the authority last said that it lives."""
        return self._heartbeat.at if self._heartbeat else None

    @property
    def from_future(self) -> datetime | None:
        """Time of a heartbeat that was refused as too late since one was last taken."""
        return self._from_future

    @property
    def whole_at(self) -> datetime | None:
        """Time of the newest heartbeat whose every notice was in the view; None for none.

        None also while `from_future` is set: either clock may be the wrong one, and a host
        whose clock was set back would take an old heartbeat for a new one.
        """
        return self._whole_at if self._from_future is None else None

    @property
    def is_behind(self) -> bool:
        """Whether the newest heartbeat, or a later notice, names what is not in the view."""
        return self._heartbeat is not None and not self._holds(self._heartbeat)

    def anchor(self, host: HostId, digest: bytes) -> Anchor | None:
        """What carried the envelope of this hash as a head of its sender."""
        return self._anchors.find(host, digest)

    def carried(self, host: HostId) -> tuple[bytes, ...]:
        """The heads of a host that its results in this view carried."""
        return self._anchors.carried(host)

    def knows(self, result_id: bytes) -> bool:
        """Whether the result of this id is in the view."""
        return self._results.find(result_id) is not None

    def may_have_forgotten(self, host: HostId, at: datetime) -> bool:
        """Whether a result of this host that ran at `at` may have been here and been let go."""
        return self._results.may_have_forgotten(host, at)

    def is_named(self, result_id: bytes) -> bool:
        """Whether the newest state of a host names this result, known here or not."""
        return any(state.result_id == result_id for state in self._hosts.values())

    def feed(self, topic: str, key: bytes, value: bytes, *, latest: datetime | None = None) -> None:
        """Take in one record of the members or results topic.

        Args:
            latest: a heartbeat of after it is refused; None where no age is judged. A notice
                takes away whatever its time says, and a result waits for its own.

        Raises:
            DeniedError: FROM_THE_FUTURE; the authority's clock is wrong, or the reader's.
            PeerError: the record is not the authority's (MALFORMED, BAD_SIGNATURE), does
                not fit the view's limits (TOO_LARGE), or disputes another notice of its
                number (FORK; what either takes away stays taken away).
        """
        if topic == RESULTS:
            self._feed_result(key, value)
        elif topic == MEMBERS:
            self._feed_member(key, value, latest)
        else:
            raise Malformed("record is of neither the members nor the results topic")

    def result(self, result_id: bytes) -> Result:
        """The verified result of this id, its heads left out; raises DeniedError RESULT_UNKNOWN."""
        found = self._results.find(result_id)
        if found is None:
            raise DeniedError(Reason.RESULT_UNKNOWN, "result is not known here")
        return found

    def current(self, host: HostId, now: datetime) -> Result:
        """The result that a host may act under at `now`.

        Raises:
            DeniedError: NOT_ATTESTED, HOST_REVOKED, HOST_SUSPENDED, RESULT_EXPIRED, or
                RESULT_UNKNOWN when this view has not seen the result yet.
        """
        state = self._hosts.get(host)
        if state is None:
            raise DeniedError(Reason.NOT_ATTESTED, "host has never been attested")
        why = self._why_not(state, now)
        if why is not None:
            raise DeniedError(why, f"host is not attested now: {why}")
        result = self.result(state.result_id)
        if (result.host, result.approval) != (state.host, state.approval):
            raise DeniedError(Reason.NOT_ATTESTED, "host's state names another's result")
        if result.issued > now + _SKEW:
            raise DeniedError(Reason.RESULT_UNKNOWN, "result is from the future")
        if result.expires <= now:
            raise DeniedError(Reason.RESULT_EXPIRED, "result has ended")
        return result

    def was_trusted(self, result: Result, at: datetime) -> Reason | None:
        """Why what was done under `result` at `at` must not be taken, or None.

        For readers: the result must have covered `at` (its beginning within the clock
        skew), and no revocation or suspension of its host may have stood then. `at` is
        someone's claim; who makes it is for the caller to weigh.
        """
        if at < result.issued - _SKEW:
            return Reason.NOT_ATTESTED
        if at >= result.expires:
            return Reason.RESULT_EXPIRED
        return self._stood_against(result.host, result.approval, at)

    def against(self, host: HostId, approval: int, at: datetime | None = None) -> Notice | None:
        """The notice that stood against a host under `approval` at `at`, or None.

        Args:
            at: None for what all notices together say now.
        """
        against = [n for n in self._by_host.get(host, ()) if n.approval >= approval]
        suspension: Notice | None = None
        for notice in against:
            if notice.kind == NoticeKind.REINSTATEMENT or (at is not None and at < notice.at):
                continue
            if notice.kind == NoticeKind.REVOCATION:
                return notice
            if suspension is None and not self._is_lifted(notice, against, at):
                suspension = notice
        return suspension

    def check_fresh(self, now: datetime, interval_s: float) -> None:
        """Raise DeniedError MEMBERS_STALE unless the view is complete and recent.

        Args:
            now: clocks of authority and caller must agree within the interval.
            interval_s: how often the authority sends a heartbeat, seconds.
        """
        beat = self._heartbeat
        if beat is None:
            raise DeniedError(Reason.MEMBERS_STALE, "no heartbeat of the authority was seen")
        if now - beat.at > timedelta(seconds=HEARTBEATS_MISSED_MAX * interval_s):
            raise DeniedError(Reason.MEMBERS_STALE, "last heartbeat of the authority is too old")
        if beat.at > now + _SKEW or self._from_future is not None:
            raise DeniedError(Reason.MEMBERS_STALE, "heartbeat of the authority is in the future")
        if not self._holds(beat):
            raise DeniedError(Reason.MEMBERS_STALE, "a notice of the authority is missing")

    def _feed_result(self, key: bytes, value: bytes) -> None:
        result = decode(value, self._trust)
        if key != result_key(result.id):
            raise Malformed("record does not stand under its own key")
        if self._results.add(result):
            self._anchors.add(result.host, result.heads, noticed=None)

    def _feed_member(self, key: bytes, value: bytes, latest: datetime | None) -> None:
        statement = read_member(key, value, self._trust)
        if isinstance(statement, HostState):
            self._feed_host(statement)
        elif isinstance(statement, Notice):
            self._feed_notice(statement)
        else:
            self._feed_heartbeat(statement, latest)
        if self._heartbeat is not None and self._holds(self._heartbeat):
            self._whole_at = self._heartbeat.at

    def _feed_heartbeat(self, beat: Heartbeat, latest: datetime | None) -> None:
        if latest is not None and beat.at > latest:
            self._from_future = beat.at
            raise DeniedError(Reason.FROM_THE_FUTURE, "heartbeat is later than this host's clock")
        if self._heartbeat is None or beat.at > self._heartbeat.at:
            self._heartbeat, self._from_future = beat, None

    def _holds(self, beat: Heartbeat) -> bool:
        """Whether every notice up to the heartbeat's, and no other, is in the view."""
        if self._ahead or self._disputed or beat.number > self.revocation_number:
            return False
        return self._listed[beat.number] == beat.listed

    def _feed_host(self, state: HostState) -> None:
        known = self._hosts.get(state.host)
        if known is None and len(self._hosts) >= HOSTS_MAX:
            raise PeerError(Reason.TOO_LARGE, "more hosts than a view holds")
        if known is None or _rank(state) > _rank(known):
            self._hosts[state.host] = state

    def _feed_notice(self, notice: Notice) -> None:
        if notice in self._by_host.get(notice.host, ()):
            return
        if self._notices_kept >= NOTICES_MAX:
            raise PeerError(Reason.TOO_LARGE, "more notices than a view holds")
        self._notices_kept += 1
        self._by_host.setdefault(notice.host, []).append(notice)
        if notice.number <= self.revocation_number or notice.number in self._ahead:
            self._disputed.add(notice.number)
            raise PeerError(Reason.FORK, "two notices have one number")
        self._anchors.add(notice.host, notice.heads, noticed=notice.at)
        self._ahead[notice.number] = notice
        while (following := self._ahead.pop(self.revocation_number + 1, None)) is not None:
            self._listed.append(listed_with(self._listed[-1], following))

    def _why_not(self, state: HostState, now: datetime) -> Reason | None:
        """Why the newest state of a host does not hold; a notice outweighs the state."""
        stands = self._stood_against(state.host, state.approval, None)
        if stands is not None:
            return stands
        if state.state is MemberState.REVOKED:
            return Reason.HOST_REVOKED
        if state.state is MemberState.SUSPENDED:
            return Reason.HOST_SUSPENDED
        return Reason.RESULT_EXPIRED if state.expires <= now else None

    def _stood_against(self, host: HostId, approval: int, at: datetime | None) -> Reason | None:
        notice = self.against(host, approval, at)
        if notice is None:
            return None
        is_final = notice.kind == NoticeKind.REVOCATION
        return Reason.HOST_REVOKED if is_final else Reason.HOST_SUSPENDED

    def _is_lifted(self, suspension: Notice, others: list[Notice], at: datetime | None) -> bool:
        return any(
            other.kind == NoticeKind.REINSTATEMENT
            and other.number > suspension.number
            and other.approval >= suspension.approval
            and other.number not in self._disputed
            and (at is None or at >= other.at)
            for other in others
        )


def _rank(state: HostState) -> tuple[int, datetime, bool, bytes]:
    # Of two that are otherwise equal the worse one is kept, whichever came first.
    return state.number, state.since, state.state is not MemberState.ATTESTED, state.result_id


__all__ = [
    "Heartbeat",
    "HostState",
    "MemberState",
    "Members",
    "Notice",
    "NoticeKind",
    "heartbeat_record",
    "host_record",
    "notice_record",
    "result_record",
]
