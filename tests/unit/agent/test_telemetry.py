"""Board, metrics and audit say the same."""

import time
from collections.abc import Callable

import pytest

from fabric.agent.epoch_machine import Wanted, Why
from fabric.agent.measures import Waiting
from fabric.agent.sparing import EVENTS_MAX
from fabric.model.block import Block
from fabric.model.change import Op, Run, Sequence
from fabric.model.errors import Reason
from fabric.model.names import HostId, Stream
from fabric.ports import Applied, StreamState
from tests.fakes.platform import ORIGIN, SECRET, B, TestHost
from tests.fakes.verifier import NOW, a_result

STREAM = Stream(ORIGIN, SECRET, 0)


def block(count: int = 2) -> Block:
    now_us = time.time_ns() // 1000 - 3_000_000
    rows = [{"id": i, "text": "a secret text"} for i in range(count)]
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=now_us, rows=rows)
    return Block(stream=STREAM, after=Sequence(0, 0, 0), upto=Sequence(1, 1, count), runs=(run,))


def applied(quarantined: int = 0) -> Applied:
    state = StreamState(
        high=Sequence(1, 1, 2), chain=b"", offset=5, cluster="c", topic_id="t", incomplete=True
    )
    return Applied(state=state, applied=2 - quarantined, quarantined=quarantined)


def test_a_held_topic_shows_until_it_goes_on(a: TestHost) -> None:
    it = a.host.telemetry
    it.held(SECRET, Reason.HOST_SUSPENDED, "suspended")
    assert a.board.problems == {"publish secret.G01.notes": "host_suspended: suspended"}
    it.held(SECRET, None, "")
    assert a.board.is_ready


def test_refusals_are_counted_and_loud_ones_audited(a: TestHost) -> None:
    it = a.host.telemetry
    it.refused(SECRET, Reason.RESULT_UNKNOWN, loud=False)
    it.refused(SECRET, Reason.BAD_SIGNATURE, loud=True, rows=3)
    assert a.audit.events == [("block_refused", {"topic": str(SECRET), "reason": "bad_signature"})]
    for reason in ("result_unknown", "bad_signature"):
        assert a.metric("fabric_refused_blocks_total", level="secret", reason=reason) == 1
    assert a.metric("fabric_refused_rows_total", level="secret", reason="bad_signature") == 3


def test_a_cause_that_stands_is_one_line_in_ten_minutes_and_counted(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, now = a.host.telemetry, [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tell: list[Callable[[], None]] = [
        lambda: it.refused(SECRET, Reason.HOST_SUSPENDED, loud=True),
        lambda: it.not_attested(Reason.STATE_REFUSED),
        lambda: it.receipt_lost(SECRET, Reason.GATEWAY_UNAVAILABLE),
        lambda: it.read_anew(SECRET, 0),
    ]
    for second in range(600):
        now[0] = 1000.0 + second
        for each in tell:
            each()
    once = ["block_refused", "attestation_refused", "receipt_lost", "read_anew"]
    assert [event for event, _ in a.audit.events] == once
    now[0] = 1600.0
    for each in tell:
        each()
    assert [event for event, _ in a.audit.events] == once * 2
    assert {fields.get("unsaid") for _, fields in a.audit.events[4:]} == {599}


def test_a_reader_that_pauses_again_and_again_is_one_line_in_ten_minutes(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, now = a.host.telemetry, [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for second in range(500):
        now[0] = 1000.0 + second
        it.paused("apply x:0", Reason.RESULT_UNKNOWN if second % 20 else None)
    assert [event for event, _ in a.audit.events] == ["reader_paused"]


def test_blocks_whose_changes_are_all_quarantined_are_some_lines_a_minute(a: TestHost) -> None:
    for _ in range(1_000):
        a.host.telemetry.applied(block(), applied(quarantined=1), "reader")
    assert len(a.audit.events) <= 2 * EVENTS_MAX


def test_a_stored_block_counts_changes_blocks_and_bytes(a: TestHost) -> None:
    a.host.telemetry.stored(block(), "classic", 100, 300)
    labels = {"level": "secret", "suite": "classic"}
    assert a.metric("fabric_sealed_records_total", **labels) == 2
    assert a.metric("fabric_sealed_blocks_total", **labels) == 1
    assert a.metric("fabric_sealed_bytes_total", **labels) == 300
    assert a.metric("fabric_capture_changes_total", source="main", level="secret") == 2


def test_an_applied_block_counts_and_its_quarantine_is_audited(a: TestHost) -> None:
    it = a.host.telemetry
    it.applied(block(), applied(quarantined=1), "reader")
    assert a.metric("fabric_applied_records_total", level="secret", outcome="quarantined") == 1
    assert a.audit.events[0][0] == "change_quarantined"
    assert a.audit.events[0][1]["offset"] == 4
    topic = {"topic": str(SECRET), "level": "secret"}
    assert a.metric("fabric_dataset_incomplete", **topic) == 1
    place = {"topic": str(SECRET), "partition": "0", "level": "secret"}
    it.lag(SECRET, 0, records=4, heard_s=31)
    assert a.metric("fabric_consumer_lag_records", **place) == 4
    assert 2 < a.metric("fabric_consumer_lag_seconds", **place) < 30
    assert a.metric("fabric_stream_silent", **place) == 1
    it.lag(SECRET, 0, records=0, heard_s=1)
    assert a.metric("fabric_consumer_lag_seconds", **place) == 0
    assert a.metric("fabric_stream_silent", **place) == 0


def test_dropped_records_are_told_apart(a: TestHost) -> None:
    it = a.host.telemetry
    it.dropped(SECRET, 1, Reason.NOT_SEALED, "")
    it.dropped(SECRET, 2, None, "duplicate", 9)
    it.dropped(SECRET, 3, None, "superseded")
    it.dropped(SECRET, 4, None, "before_join")
    assert a.metric("fabric_rejected_records_total", level="secret", reason="not_sealed") == 1
    assert a.metric("fabric_applied_records_total", level="secret", outcome="duplicate") == 2
    assert a.metric("fabric_rejected_rows_total") == 0
    assert [(e, fields["offset"]) for e, fields in a.audit.events] == [
        ("record_dropped", 1),
        ("records_repeated", 2),
    ]


def test_repeats_that_follow_each_other_are_one_line_of_the_audit_log(a: TestHost) -> None:
    """A log that is read again from its start repeats millions; they must not bury the rest."""
    it = a.host.telemetry
    for offset in range(50):
        it.dropped(SECRET, offset, None, "duplicate")
    it.applied(block(), applied(), "reader")
    it.dropped(SECRET, 60, None, "superseded")
    assert [fields["offset"] for _, fields in a.audit.events] == [0, 60]


def test_a_long_pause_is_audited_once_and_a_short_one_is_not(
    a: TestHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    it, now = a.host.telemetry, [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for second in range(8):
        now[0] = 1000.0 + second
        it.paused("apply x:0", Reason.RESULT_UNKNOWN)
    it.paused("apply x:0", None)
    assert a.audit.events == []
    for second in range(40):
        now[0] = 2000.0 + second
        it.paused("apply x:0", Reason.GRANT_MISSING)
    assert a.audit.events == [("reader_paused", {"part": "apply x:0", "reason": "grant_missing"})]


def test_silence_is_audited_when_it_begins(a: TestHost) -> None:
    it = a.host.telemetry
    for heard_s in (1, 31, 41, 2, 35):
        it.lag(SECRET, 0, records=0, heard_s=heard_s)
    assert [event for event, _ in a.audit.events] == ["stream_silent"] * 2


def test_trust_shows(a: TestHost) -> None:
    it, result = a.host.telemetry, a_result()
    it.attested(result)
    it.not_attested(Reason.STATE_REFUSED)
    it.not_attested(Reason.AUTHORITY_UNAVAILABLE)
    assert a.metric("fabric_attestation_expiry_timestamp_seconds") == result.expires.timestamp()
    for what in ("attested", "refused", "unavailable"):
        assert a.metric("fabric_attestation_attempts_total", result=what) == 1
    assert a.audit.events == [("attestation_refused", {"reason": "state_refused"})]


def test_epochs_and_sources_show(a: TestHost) -> None:
    it = a.host.telemetry
    it.epoch_opened(SECRET, Why.LOST, 12, NOW)
    assert a.metric("fabric_key_epoch", topic=str(SECRET), level="secret") == 12
    it.figures(
        "main",
        {"lag_seconds": 3, "lag_bytes": 9, "snapshot_rows": 40, "snapshot_total": 100},
        NOW,
    )
    assert a.metric("fabric_snapshot_rows_remaining", source="main") == 60
    it.figures("main", {"log_released": 77}, NOW)
    assert a.metric("fabric_capture_released_bytes", source="main") == 77
    it.quarantine(SECRET, Waiting(7, 0))
    assert a.metric("fabric_quarantine_records", topic=str(SECRET), level="secret") == 7


def test_nothing_that_is_told_holds_a_row(a: TestHost) -> None:
    it = a.host.telemetry
    it.applied(block(), applied(quarantined=1), "reader")
    it.stored(block(), "classic", 100, 300)
    it.streams.stopped(STREAM, Reason.GAP, "reader")
    assert "a secret text" not in repr(a.audit.events) + repr(a.board.parts)


def test_a_stream_that_goes_on_after_a_stop_is_well_again_and_audited(a: TestHost) -> None:
    it, stream = a.host.telemetry, block().stream
    it.streams.stopped(stream, Reason.GAP, "reader")
    assert a.board.reasons() == {f"stream {stream}": Reason.GAP}
    for _ in range(2):
        it.applied(block(), applied(), "reader")
        assert a.board.is_ready
    assert [event for event, _ in a.audit.events] == ["stream_stopped", "stream_resumed"]


def test_a_log_that_is_read_anew_is_audited(a: TestHost) -> None:
    a.host.telemetry.read_anew(SECRET, 0)
    said = {"topic": str(SECRET), "partition": 0, "reason": "history_lost"}
    assert a.audit.events == [("read_anew", said)]


def test_a_silent_stream_makes_its_reader_unready_until_it_speaks(a: TestHost) -> None:
    it = a.host.telemetry
    it.lag(SECRET, 0, records=0, heard_s=31)
    assert a.board.reasons() == {"silence secret.G01.notes:0": Reason.SILENT}
    it.lag(SECRET, 0, records=0, heard_s=1)
    assert a.board.is_ready


def test_what_waits_for_an_anchor_is_shown_counted_and_audited(a: TestHost) -> None:
    it, stream = a.host.telemetry, block().stream
    it.streams.unanchored(stream, "reader")
    it.dropped(SECRET, 3, None, "unanchored")
    assert a.board.reasons() == {f"anchor {stream}": Reason.UNANCHORED}
    assert a.metric("fabric_rejected_records_total", reason="unanchored") == 1
    it.streams.anchored(stream, "reader")
    assert a.board.is_ready
    assert [event for event, _ in a.audit.events] == ["stream_unanchored", "stream_anchored"]


def test_a_log_that_went_back_is_shown_until_the_next_block_is_stored(a: TestHost) -> None:
    it, stream = a.host.telemetry, block().stream
    it.log_went_back(stream)
    assert a.board.reasons() == {f"publish {SECRET}": Reason.LOG_WENT_BACK}
    assert a.audit.events == [("log_went_back", {"stream": str(stream)})]
    it.held(SECRET, None, "")
    assert a.board.is_ready


def test_a_host_to_whose_key_nothing_can_be_wrapped_is_audited_until_it_has_another(
    a: TestHost,
) -> None:
    it = a.host.telemetry

    def chosen(refused: dict[HostId, Reason]) -> None:
        wanted = Wanted(hosts={}, refused=refused, retained=True, result_lifetime_s=600)
        it.chosen(SECRET, "classic", wanted)

    for refused in ({B: Reason.MALFORMED}, {B: Reason.MALFORMED}, {B: Reason.RESULT_EXPIRED}):
        chosen(refused)
    assert len(a.audit.events) == 1
    chosen({B: Reason.MALFORMED})
    said = {"topic": str(SECRET), "host": str(B), "reason": "malformed"}
    assert a.audit.events == [("recipient_refused", said)] * 2


def test_what_a_newer_policy_refuses_is_said_in_words_and_not_as_a_bare_gap(a: TestHost) -> None:
    it, part = a.host.telemetry, f"stream {STREAM}"
    it.streams.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "reader")
    words = "policy version 8 refuses blocks that its sender sealed before (level_too_low)"
    assert a.board.problems == {part: f"history_refused: {words}"}
    it.streams.stopped(STREAM, Reason.GAP, "reader")
    it.streams.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "reader")
    assert a.board.problems == {part: f"history_refused: stopped at a gap: {words}"}
    it.applied(block(), applied(), "reader")
    assert a.board.is_ready
    it.streams.stopped(STREAM, Reason.GAP, "reader")
    assert a.board.reasons() == {part: Reason.GAP}


def test_a_refused_block_that_opens_no_gap_is_forgotten_once_its_stream_goes_on(
    a: TestHost,
) -> None:
    it = a.host.telemetry
    it.streams.ruled_out(STREAM, Reason.LEVEL_TOO_LOW, 8, "reader")
    it.applied(block(), applied(), "reader")
    assert a.board.is_ready


def measured(host: TestHost, partition: int = 0) -> float | None:
    labels = {"topic": str(SECRET), "partition": str(partition), "level": "secret"}
    name = "fabric_consumer_lag_timestamp_seconds"
    return host.metrics.registry.get_sample_value(name, labels)


def test_a_stream_is_shown_as_never_measured_from_the_moment_it_is_to_be_read(a: TestHost) -> None:
    it = a.host.telemetry
    it.begins("reader", SECRET, 0)
    assert measured(a) == 0
    assert not it.lag(SECRET, 0, records=4, heard_s=0)
    assert measured(a) == 0
    assert it.lag(SECRET, 0, records=0, heard_s=0)
    it.begins("reader", SECRET, 0)
    assert measured(a) > 0


def test_what_nobody_reads_any_more_is_shown_no_more(a: TestHost) -> None:
    it, stream = a.host.telemetry, block().stream
    it.begins("reader", SECRET, 0)
    it.applied(block(), applied(quarantined=1), "reader")
    it.quarantine(SECRET, Waiting(1, 0))
    it.lag(SECRET, 0, records=4, heard_s=31)
    it.streams.stopped(stream, Reason.GAP, "reader")
    it.streams.unanchored(stream, "reader")
    it.streams.stopped(Stream(ORIGIN, SECRET, 1), Reason.GAP, "reader")
    for _ in range(2):
        it.ends("reader", SECRET, 0)
    assert a.board.parts.keys() == {f"stream {ORIGIN}@{SECRET}:1"}
    assert measured(a) is None
    for gauge in ("consumer_lag_records", "stream_silent", "quarantine_records"):
        assert not a.shows(f"fabric_{gauge}")
    for gauge in ("dataset_incomplete", "last_change_timestamp_seconds"):
        assert not a.shows(f"fabric_{gauge}")
    assert a.metric("fabric_applied_records_total", level="secret", outcome="applied") == 1


def test_a_reader_that_leaves_takes_nothing_from_another_of_the_same_stream(a: TestHost) -> None:
    it = a.host.telemetry
    it.begins("target", SECRET, 0)
    it.begins("subscriber", SECRET, 0)
    it.applied(block(), applied(), "reader")
    it.lag(SECRET, 0, records=4, heard_s=0)
    it.ends("subscriber", SECRET, 0)
    assert measured(a) > 0
    it.lag(SECRET, 0, records=4, heard_s=0)
    assert a.metric("fabric_consumer_lag_seconds", topic=str(SECRET), partition="0") > 2


def test_a_sender_shows_nothing_of_what_it_publishes_no_more(a: TestHost) -> None:
    it = a.host.telemetry
    it.held(SECRET, Reason.HOST_SUSPENDED, "suspended")
    it.epoch_opened(SECRET, Why.LOST, 12, NOW)
    it.epoch_serves(SECRET, 2)
    it.publishes_no_more(SECRET)
    assert a.board.parts == {}
    for gauge in ("key_epoch", "key_epoch_start_timestamp_seconds", "key_epoch_recipients"):
        assert not a.shows(f"fabric_{gauge}")


def test_a_source_is_shown_before_its_first_sign_of_life(a: TestHost) -> None:
    it = a.host.telemetry
    it.captures("main")
    assert a.metric("fabric_capture_heartbeat_timestamp_seconds", source="main") == 0
