"""Tell people how the agent fares: status board, metrics and audit log, from one place.

What is audited is what was refused
and what stopped; values are names, numbers and reasons, never row data.
"""

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fabric.agent.epoch_machine import Wanted, Why
from fabric.agent.measures import Measures
from fabric.agent.reached import UNKNOWN, Behind, Reached
from fabric.agent.sparing import STANDING_S, Sparing
from fabric.agent.stream_board import StreamBoard
from fabric.agent.supervisor import Board
from fabric.attest.result import Result
from fabric.metrics import ATTESTATIONS, AgentMetrics
from fabric.metrics_audit import RECEIPTS
from fabric.metrics_lag import WAYS
from fabric.model.block import Block
from fabric.model.errors import FabricError, Reason, ReasonClass, class_of
from fabric.model.limits import SILENCE_INTERVAL_S, SILENCES_MISSED_MAX
from fabric.model.names import HostId, Stream, Topic
from fabric.policy.types import Policy
from fabric.ports import Applied, AuditLog
from fabric.repository.audited import PolicyAudit

_DUPLICATES = frozenset({"duplicate", "superseded"})
PAUSE_AUDIT_S = 10.0
"""A pause that is shorter is the usual lag of control topics; a longer one is audited, once."""


@dataclass(slots=True, kw_only=True)
class _Pause:
    """A wait: for what, since when (monotonic seconds), whether the audit log knows of it."""

    reason: Reason
    since: float
    is_told: bool = False


class Telemetry(Measures):
    """Board, metrics and audit of one agent.

    Attributes:
        streams: those that are read and do not go on.
    """

    def __init__(
        self, board: Board, metrics: AgentMetrics, audit: AuditLog, *, policy: PolicyAudit
    ) -> None:
        super().__init__(metrics)
        self.board = board
        self.streams = StreamBoard(board, metrics, audit)
        self._audit = audit
        self._policy = policy
        self._sparing = Sparing()
        self._standing = Sparing(events_max=1, period_s=STANDING_S)
        self._readers: dict[tuple[Topic, int], set[object]] = {}
        self._reached = Reached()
        self._pauses: dict[str, _Pause] = {}
        self._repeating: set[Topic] = set()
        self._silent: set[tuple[Topic, int]] = set()
        self._unfit: dict[tuple[Topic, str], frozenset[HostId]] = {}

    # Lanes

    def publishes_no_more(self, topic: Topic) -> None:
        """A dataset was withdrawn: its lane is gone, and nobody will replace its epoch."""
        self.board.forget(f"publish {topic}")
        self._metrics.forget_epoch(topic)

    def held(self, topic: Topic, reason: Reason | None, detail: str) -> None:
        """A lane cannot go on for `reason`; None: it goes on."""
        self.board.show(f"publish {topic}", reason, detail)

    def refused(self, topic: Topic, reason: Reason, *, loud: bool, rows: int = 0) -> None:
        """A block of so many row changes was refused; `loud` ones are audited, sparingly."""
        self._metrics.refused(topic, reason, rows)
        if loud:
            self._seldom("block_refused", topic=str(topic), reason=reason.value)

    def log_went_back(self, stream: Stream) -> None:
        """Our last acknowledged block of a stream is gone from the log: a new generation."""
        topic, reason = stream.topic, Reason.LOG_WENT_BACK
        self.held(topic, reason, "acknowledged blocks are gone from the log; reading anew")
        self._metrics.refused(topic, reason)
        self._audit.write("log_went_back", {"stream": str(stream)})

    def stored(self, block: Block, suite: str, plaintext_bytes: int, sent_bytes: int) -> None:
        """A block was acknowledged; `suite` is empty for the open form."""
        topic = block.stream.topic
        self._metrics.sealed(
            topic,
            suite,
            changes=block.count,
            plaintext_bytes=plaintext_bytes,
            sealed_bytes=sent_bytes,
        )
        self._metrics.captured(block.stream.origin.source, topic.level, block.count)
        if block.runs:
            self._metrics.moved(topic, WAYS[0], block.runs[-1].commit_us / 1e6)

    def epoch_opened(self, topic: Topic, why: Why, number: int, started: datetime) -> None:
        """A new epoch was acknowledged."""
        self._metrics.epoch(topic, number, started)
        self._audit.write("epoch_opened", {"topic": str(topic), "why": why.value, "epoch": number})

    def epoch_serves(self, topic: Topic, hosts: int) -> None:
        """The current epoch is granted to so many hosts."""
        self._metrics.epoch_serves(topic, hosts)

    def chosen(self, topic: Topic, suite: str, wanted: Wanted) -> None:
        """Recipients were chosen; a host to whose key nothing can be wrapped is audited, once.

        The others go on, so it is no problem of ours: the host's own part shows one.
        """
        unfit = frozenset(
            host for host, reason in wanted.refused.items() if reason is Reason.MALFORMED
        )
        before = self._unfit.get((topic, suite), frozenset())
        self._unfit[topic, suite] = unfit
        for host in sorted(unfit - before):
            self._often(
                "recipient_refused",
                topic=str(topic),
                host=str(host),
                reason=Reason.MALFORMED.value,
            )

    # Sources

    def waits(self, part: str, why: str | None) -> None:
        """A capture that is open waits for what the words say; None: it goes on."""
        self.board.show(part, Reason.NOT_READY if why else None, why or "")

    # Readers

    def begins(self, reader: object, topic: Topic, partition: int) -> None:
        """Somebody is to read a stream: it is shown as not measured until it is measured.

        Args:
            reader: equal to itself alone; the same one may begin again.
        """
        self._readers.setdefault((topic, partition), set()).add(reader)
        self._metrics.reads_stream(topic, partition)

    def ends(self, reader: object, topic: Topic, partition: int) -> None:
        """Somebody reads a stream no more; what nobody reads is shown no more."""
        readers = self._readers.get((topic, partition), set())
        readers.discard(reader)
        if (topic, partition) not in self._readers or readers:
            return
        del self._readers[topic, partition]
        self._metrics.forget_stream(topic, partition)
        self._forget_streams(topic, partition)
        if not any(place[0] == topic for place in self._readers):
            self._metrics.forget_applied(topic)

    def _forget_streams(self, topic: Topic, partition: int) -> None:
        """Take what was shown of one partition's streams off the board."""
        self._reached.forget((topic, partition))
        self._silent.discard((topic, partition))
        self.board.forget(f"silence {topic}:{partition}")
        self.streams.forget(topic, partition)

    def paused(self, part: str, reason: Reason | None, why: str = "") -> None:
        """A reader waits for `reason`, and for what the words say; None: it goes on."""
        self.board.show(part, reason, (why or "waiting") if reason else "")
        if reason is None:
            self._pauses.pop(part, None)
            return
        now = time.monotonic()
        pause = self._pauses.get(part)
        if pause is None or pause.reason is not reason:
            pause = self._pauses[part] = _Pause(reason=reason, since=now)
        if not pause.is_told and now - pause.since >= PAUSE_AUDIT_S:
            pause.is_told = True
            self._seldom("reader_paused", part=part, reason=reason.value)

    def read_anew(self, topic: Topic, partition: int) -> None:
        """The log is not the one that a reader's hints are from: it is read from its beginning."""
        reason = Reason.HISTORY_LOST.value
        self._seldom("read_anew", topic=str(topic), partition=partition, reason=reason)

    def dropped(
        self, topic: Topic, offset: int, reason: Reason | None, outcome: str, rows: int = 0
    ) -> None:
        """A record was passed over; one with a reason is audited.

        Args:
            rows: that its verified header names; 0 where nothing verified.
        """
        if reason is not None:
            self._metrics.rejected(topic, reason, rows)
            self._often("record_dropped", topic=str(topic), offset=offset, reason=reason.value)
        elif outcome in _DUPLICATES:
            self._metrics.applied(topic, "duplicate")
            self._metrics.applied_block(topic, "duplicate")
            self._repeated(topic, offset, outcome)
        elif outcome == Reason.UNANCHORED:
            self._metrics.rejected(topic, Reason.UNANCHORED, rows)

    def _repeated(self, topic: Topic, offset: int, outcome: str) -> None:
        """Audit the first of repeated records that follow each other: a log may hold millions."""
        if topic not in self._repeating:
            self._repeating.add(topic)
            self._often("records_repeated", topic=str(topic), offset=offset, reason=outcome)

    def opened(self, block: Block, suite: str, *, sealed_bytes: int, seconds: float) -> None:
        """A block was verified and opened; `suite` is empty for the open form."""
        topic = block.stream.topic
        self._metrics.opened(
            topic, suite, changes=block.count, sealed_bytes=sealed_bytes, seconds=seconds
        )

    def applied(self, block: Block, applied: Applied, reader: str) -> None:
        """A block's changes are in a reader's target."""
        topic = block.stream.topic
        self.streams.applied(block.stream, reader)
        self._repeating.discard(topic)
        self._metrics.applied(topic, "applied", applied.applied)
        self._metrics.applied_block(topic, "applied")
        if applied.quarantined:
            self._metrics.applied(topic, "quarantined", applied.quarantined)
            told = {"offset": applied.state.offset - 1, "changes": applied.quarantined}
            event, stream = "change_quarantined", str(block.stream)
            self._spare(self._sparing, (event, stream), event, {"stream": stream, **told})
        self._metrics.incomplete(topic, applied.state.incomplete)
        if block.runs:
            commit = block.runs[-1].commit_us / 1e6
            self._reached.reach((topic, block.stream.partition), commit)
            self._metrics.end_to_end(topic, time.time() - commit)
            self._metrics.moved(topic, WAYS[1], commit)

    def lag(
        self,
        topic: Topic,
        partition: int,
        *,
        records: int,
        heard_s: float,
        behind: Behind = UNKNOWN,
    ) -> bool:
        """How many records the log is ahead of the target; seconds since one came.

        Returns:
            Whether it is known how old what is unapplied may be. If not, nothing was
            measured: a backlog of unknown age must not look like none.
        """
        now, place = time.time(), (topic, partition)
        if records <= 0:
            self._reached.reach(place, now)
        since = self._reached.since(place, behind)
        if since is not None:
            self._metrics.lag(topic, partition, records=records, seconds=now - since, measured=now)
        self._silence(place, heard_s)
        return since is not None

    def _silence(self, place: tuple[Topic, int], heard_s: float) -> None:
        topic, partition = place
        silent = heard_s > SILENCES_MISSED_MAX * SILENCE_INTERVAL_S
        self._metrics.silent(topic, partition, silent)
        if silent and place not in self._silent:
            self._audit.write(
                "stream_silent",
                {"topic": str(topic), "partition": partition, "reason": Reason.SILENT.value},
            )
        (self._silent.add if silent else self._silent.discard)(place)
        part = f"silence {topic}:{partition}"
        if silent:
            self.board.show(part, Reason.SILENT, f"nothing heard for {heard_s:.0f} s")
        else:
            self.board.forget(part)

    # Receipts

    def receipts_for(self, topic: Topic) -> None:
        """Receipts are issued for a dataset."""
        self._metrics.receipts_for(topic)

    def receipt_sent(self, topic: Topic) -> None:
        """A receipt was acknowledged."""
        self._metrics.receipt(topic, RECEIPTS[0])

    def receipt_lost(self, topic: Topic, reason: Reason) -> None:
        """A receipt was given up; the next one covers what it said."""
        self._metrics.receipt(topic, RECEIPTS[1])
        self._seldom("receipt_lost", topic=str(topic), reason=reason.value)

    # Trust

    def approved(self, policy: Policy, me: HostId) -> None:
        """A policy is in force, in which this host may have an approval."""
        self._metrics.policy(policy.version, policy.expires)
        self._policy.taken(policy)
        approval = policy.approvals.get(me)
        if approval is not None:
            self._metrics.approved_until(approval.not_after)

    def policy_refused(self, error: FabricError, in_force: Policy) -> None:
        """What the policy repository serves is not taken."""
        self._metrics.policy_refused()
        self.board.show("policy", error.reason, str(error.args[0]))
        self._policy.refused(error, in_force)
        self._policy.looked(in_force)

    def policy_stands(
        self, in_force: Policy, now: datetime, fault: FabricError | None = None
    ) -> None:
        """A look at the policy repository found nothing wrong there, or nobody.

        Args:
            fault: why what it finds cannot be kept on this host.
        """
        if now >= in_force.expires:
            self.board.show("policy", Reason.POLICY_EXPIRED)
        elif fault is not None:
            self.board.show("policy", fault.reason, str(fault.args[0]))
        else:
            self.board.show("policy", None)
        self._policy.looked(in_force)

    def attested(self, result: Result) -> None:
        """The host has a new result."""
        self._metrics.attestation(ATTESTATIONS[0])
        self._metrics.attested(result.level, result.issued, result.expires)

    def not_attested(self, reason: Reason) -> None:
        """Enrolment or attestation failed."""
        waits = class_of(reason) is ReasonClass.WAIT
        self._metrics.attestation(ATTESTATIONS[2 if waits else 1])
        if not waits:
            self._seldom("attestation_refused", reason=reason.value)

    def control_rejected(self, topic: str, reason: Reason) -> None:
        """A control record was bad."""
        self._often("control_record_dropped", topic=topic, reason=reason.value)

    def _often(self, event: str, **fields: str | int) -> None:
        """Audit what others decide the number of; `unsaid` counts those that were left out."""
        self._spare(self._sparing, (event, fields["topic"], fields["reason"]), event, fields)

    def _seldom(self, event: str, **fields: str | int) -> None:
        """Audit what is met again at every try for as long as its cause stands."""
        self._spare(self._standing, (event, *fields.values()), event, fields)

    def _spare(
        self, by: Sparing, kind: Hashable, event: str, fields: Mapping[str, str | int]
    ) -> None:
        unsaid = by.unsaid(kind, time.monotonic())
        if unsaid is not None:
            self._audit.write(event, {**fields, "unsaid": unsaid} if unsaid else fields)
