"""Show which streams do not go on, and why: stopped, refused by the policy, not anchored.

An entry goes when its stream goes on, or when nobody reads it any more.
"""

from collections.abc import Collection

from fabric.agent.supervisor import Board
from fabric.metrics import AgentMetrics
from fabric.model.errors import Reason
from fabric.model.names import Stream, Topic
from fabric.ports import AuditLog


class StreamBoard:
    """The streams of one agent that do not go on."""

    def __init__(self, board: Board, metrics: AgentMetrics, audit: AuditLog) -> None:
        self._board = board
        self._metrics = metrics
        self._audit = audit
        # By reader: what one of them takes says nothing of what another has stopped at.
        self._stopped: dict[Stream, dict[str, Reason]] = {}
        self._ruled_out: dict[Stream, dict[str, str]] = {}
        self._unanchored: dict[Stream, set[str]] = {}

    def stopped(self, stream: Stream, reason: Reason, reader: str, rows: int = 0) -> None:
        """A stream ended for a reader, until a person looks or its sender reads its source anew.

        A reader that starts again ends at the same block again: the audit log hears of it once.

        Args:
            reader: for whom; a later run of it has the same name.
            rows: that the header of the block it ended at names.
        """
        by_reader = self._stopped.setdefault(stream, {})
        is_new = by_reader.get(reader) is not reason
        by_reader[reader] = reason
        shown, detail = reason, "stopped; nothing more of it is applied"
        ruled_out = self._ruled_out.get(stream, {}).get(reader)
        if reason is Reason.GAP and ruled_out is not None:
            shown, detail = Reason.HISTORY_REFUSED, f"stopped at a gap: {ruled_out}"
        self._board.show(f"stream {stream}", shown, detail)
        self._metrics.rejected(stream.topic, reason, rows)
        if is_new:
            self._audit.write("stream_stopped", {"stream": str(stream), "reason": reason.value})

    def ruled_out(self, stream: Stream, reason: Reason, version: int, reader: str) -> None:
        """The policy of this version refuses a block that the stream's own sender once sent."""
        why = self._ruled_out.setdefault(stream, {})[reader] = _why(reason, version)
        if stream not in self._stopped:
            self._board.show(f"stream {stream}", Reason.HISTORY_REFUSED, why)

    def applied(self, stream: Stream, reader: str) -> None:
        """A reader's target took a block; of one that had ended: its source is read anew."""
        if self._goes_on(stream, reader):
            self._audit.write("stream_resumed", {"stream": str(stream)})

    def _goes_on(self, stream: Stream, reader: str) -> bool:
        """Whether this reader was the last one for whom the stream had ended."""
        stopped, ruled_out = self._stopped.get(stream, {}), self._ruled_out.get(stream, {})
        was_shown = bool(stopped or ruled_out)
        was_stopped = reader in stopped
        stopped.pop(reader, None)
        ruled_out.pop(reader, None)
        if not stopped:
            self._stopped.pop(stream, None)
        if not ruled_out:
            self._ruled_out.pop(stream, None)
        if was_shown and not stopped:
            self._board.forget(f"stream {stream}")
            for why in ruled_out.values():
                self._board.show(f"stream {stream}", Reason.HISTORY_REFUSED, why)
        return was_stopped and not stopped

    def unanchored(self, stream: Stream, reader: str) -> None:
        """Nothing vouches for a stream's next block: its records are passed over for now.

        Args:
            reader: who waits; a later run of it has the same name.
        """
        waiting = self._unanchored.setdefault(stream, set())
        if not waiting:
            detail = "waits for its sender's next result; its last blocks are not applied"
            self._board.show(f"anchor {stream}", Reason.UNANCHORED, detail)
            self._audit.write("stream_unanchored", {"stream": str(stream)})
        waiting.add(reader)

    def anchored(self, stream: Stream, reader: str) -> None:
        """Something vouches for what a reader waited with."""
        if self._waits_no_more(stream, reader):
            self._audit.write("stream_anchored", {"stream": str(stream)})

    def waiting(self, reader: str) -> Collection[Stream]:
        """Streams that wait for an anchor, as a reader or an earlier run of it said."""
        return {stream for stream, waiting in self._unanchored.items() if reader in waiting}

    def left(self, reader: str) -> None:
        """A reader is gone: it waits for nothing, and nothing has ended for it."""
        for stream in self.waiting(reader):
            self._waits_no_more(stream, reader)
        for stream in {*self._stopped, *self._ruled_out}:
            self._goes_on(stream, reader)

    def _waits_no_more(self, stream: Stream, reader: str) -> bool:
        """Whether this reader was the last one that waited."""
        waiting = self._unanchored.get(stream, set())
        waiting.discard(reader)
        if stream not in self._unanchored or waiting:
            return False
        del self._unanchored[stream]
        self._board.forget(f"anchor {stream}")
        return True

    def forget(self, topic: Topic, partition: int) -> None:
        """Nobody reads a partition any more: nothing of its streams is known from now on."""
        for stream in {*self._stopped, *self._ruled_out, *self._unanchored}:
            if (stream.topic, stream.partition) == (topic, partition):
                self._stopped.pop(stream, None)
                self._ruled_out.pop(stream, None)
                self._unanchored.pop(stream, None)
                self._board.forget(f"stream {stream}")
                self._board.forget(f"anchor {stream}")


def _why(reason: Reason, version: int) -> str:
    """Why blocks are refused; of a late one the log's time counts, and that is the broker's."""
    if reason is Reason.TOO_OLD:
        return (
            f"blocks were stored too long after their sender sealed them ({reason}): by the"
            f" broker, or policy version {version} has a shorter delivery_s"
        )
    return f"policy version {version} refuses blocks that its sender sealed before ({reason})"
