"""Streams that do not go on."""

from fabric.agent.stream_board import StreamBoard
from fabric.model.errors import Reason
from fabric.model.names import Stream
from tests.fakes.platform import ORIGIN, SECRET, TestHost

STREAM = Stream(ORIGIN, SECRET, 0)
ANCHOR = f"anchor {STREAM}"
SHOWN = f"stream {STREAM}"


def streams(a: TestHost) -> StreamBoard:
    return a.host.telemetry.streams


def told(a: TestHost) -> list[str]:
    return [event for event, _ in a.audit.events]


def test_a_gap_after_a_dataset_was_withdrawn_and_came_back_is_called_a_gap(a: TestHost) -> None:
    it = streams(a)
    it.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "reader")
    it.forget(SECRET, 0)
    assert a.board.parts == {}
    it.stopped(STREAM, Reason.GAP, "reader")
    assert a.board.reasons() == {f"stream {STREAM}": Reason.GAP}


def test_a_stream_that_ends_again_after_a_restart_is_audited_once_for_a_reason(a: TestHost) -> None:
    it = streams(a)
    for _ in range(3):
        it.stopped(STREAM, Reason.GAP, "reader")
    it.stopped(STREAM, Reason.FORK, "reader")
    it.applied(STREAM, "reader")
    it.stopped(STREAM, Reason.FORK, "reader")
    assert told(a) == ["stream_stopped"] * 2 + ["stream_resumed", "stream_stopped"]


def test_a_block_that_was_stored_late_is_not_laid_to_the_policy_alone(a: TestHost) -> None:
    streams(a).ruled_out(STREAM, Reason.TOO_OLD, 8, "reader")
    (said,) = a.board.problems.values()
    assert said == (
        "history_refused: blocks were stored too long after their sender sealed them (too_old):"
        " by the broker, or policy version 8 has a shorter delivery_s"
    )


def test_the_success_of_one_reader_hides_no_stop_of_another(a: TestHost) -> None:
    it = streams(a)
    it.stopped(STREAM, Reason.GAP, "subscriber")
    it.stopped(STREAM, Reason.GAP, "target")
    it.applied(STREAM, "target")
    it.applied(STREAM, "target")
    assert a.board.reasons() == {SHOWN: Reason.GAP}
    assert told(a) == ["stream_stopped", "stream_stopped"]
    it.applied(STREAM, "subscriber")
    assert a.board.parts == {}
    assert told(a)[2:] == ["stream_resumed"]


def test_the_success_of_one_reader_hides_no_block_that_is_ruled_out_of_another(
    a: TestHost,
) -> None:
    it = streams(a)
    it.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "subscriber")
    it.applied(STREAM, "target")
    it.stopped(STREAM, Reason.GAP, "subscriber")
    it.applied(STREAM, "target")
    assert a.board.reasons() == {SHOWN: Reason.HISTORY_REFUSED}
    it.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "target")
    it.applied(STREAM, "subscriber")
    (said,) = a.board.problems.values()
    assert said.startswith("history_refused: policy version 8 refuses blocks")
    it.applied(STREAM, "target")
    assert a.board.parts == {}


def test_a_stopped_reader_that_leaves_takes_its_stop_along_and_nothing_has_resumed(
    a: TestHost,
) -> None:
    it = streams(a)
    it.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "subscriber")
    it.stopped(STREAM, Reason.GAP, "subscriber")
    it.stopped(STREAM, Reason.GAP, "target")
    it.left("subscriber")
    assert SHOWN in a.board.parts
    it.left("target")
    assert a.board.parts == {}
    assert told(a) == ["stream_stopped", "stream_stopped"]


def test_a_stream_waits_for_an_anchor_until_the_last_of_its_readers_has_one(a: TestHost) -> None:
    it = streams(a)
    it.unanchored(STREAM, "one")
    it.unanchored(STREAM, "other")
    it.anchored(STREAM, "one")
    assert a.board.reasons() == {ANCHOR: Reason.UNANCHORED}
    it.anchored(STREAM, "other")
    it.anchored(STREAM, "other")
    assert a.board.parts == {}
    assert told(a) == ["stream_unanchored", "stream_anchored"]


def test_a_reader_that_waits_again_after_a_restart_is_audited_once(a: TestHost) -> None:
    it = streams(a)
    for _ in range(2):
        it.unanchored(STREAM, "reader")
        assert it.waiting("reader") == {STREAM}
        assert it.waiting("other") == set()
    assert told(a) == ["stream_unanchored"]


def test_who_leaves_waits_for_nothing_and_nothing_has_come(a: TestHost) -> None:
    it = streams(a)
    it.unanchored(STREAM, "reader")
    it.left("reader")
    assert a.board.parts == {}
    assert told(a) == ["stream_unanchored"]


def test_of_a_partition_that_nobody_reads_nothing_is_shown(a: TestHost) -> None:
    it, other = streams(a), Stream(ORIGIN, SECRET, 1)
    for stream in (STREAM, other):
        it.stopped(stream, Reason.GAP, "reader")
        it.unanchored(stream, "reader")
    it.forget(SECRET, 0)
    assert a.board.parts.keys() == {f"stream {other}", f"anchor {other}"}
