"""What a hostile broker may do to the log, one function an edit, and what B must say of it.

A row: the event and the reason that must stand in B's audit log, and how many honest envelopes
of each partition are in the target at the end. Whatever the edit, B's rows are the honest rows
up to the sequences its target names: the test holds that for every row.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fabric.attest import cose
from fabric.attest.members import heartbeat_record, host_record, notice_record
from fabric.attest.notices import HEARTBEAT_KEY, HostState, MemberState, Notice, NoticeKind
from fabric.attest.result import encode
from fabric.model import canonical
from fabric.model.errors import Reason
from fabric.model.names import grants_topic
from fabric.seal.sealing import SealingEpoch
from fabric.seal.suites import suite_of
from tests.fakes.platform import OPEN, A
from tests.fakes.verifier import a_beat
from tests.hostile.story import (
    DATA,
    GRANTS,
    MEMBERS,
    OTHER,
    RESULTS,
    Reading,
    Story,
    signers_of,
)
from tests.vectors import judge

P0, P1 = DATA
LETTERS = (str(OTHER), 0)
Counts = Callable[[Story], tuple[int, int]]
Do = Callable[[Reading, Story], None]
DROPPED, STOPPED, PAUSED = "record_dropped", "stream_stopped", "reader_paused"
REPEATED, CONTROL, SILENT = "records_repeated", "control_record_dropped", "stream_silent"
KNOWN = 2
"""Envelopes of each partition that a warm reader has applied before the edit."""


def everything(story: Story) -> tuple[int, int]:
    """Nothing is lost."""
    return story.count(0), story.count(1)


def first(count: int) -> Counts:
    """Partition 0 ends after so many; partition 1 goes on to its end."""
    return lambda story: (count, story.count(1))


def nothing(story: Story) -> tuple[int, int]:
    """Not one block is applied."""
    return 0, 0


def up_to_turn(less: int = 0) -> Counts:
    """Partition 0 ends before its second epoch, or `less` envelopes sooner."""
    return lambda story: (story.turn() - less, story.count(1))


def first_epoch(story: Story) -> tuple[int, int]:
    """Both partitions end with their first epoch."""
    return story.turn(0), story.turn(1)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One row of the table.

    Attributes:
        event, reason: a line of B's audit log; both empty for what cannot do harm.
        applied: honest envelopes of each partition in the target at the end.
        cold: B begins with the edited log.
        known: or B has applied so many of each partition before the edit; None: not tried.
        late_s: how much later it is once B has applied that.
    """

    do: Do
    event: str
    reason: str
    applied: Counts
    cold: bool
    known: int | None
    late_s: float


EDITS: dict[str, Edit] = {}


def edit(
    event: str,
    reason: str,
    applied: Counts = everything,
    *,
    cold: bool = True,
    known: int | None = KNOWN,
    late_s: float = 0,
) -> Callable[[Do], Do]:
    """Add a row to the table."""

    def add(do: Do) -> Do:
        EDITS[do.__name__] = Edit(
            do=do,
            event=event,
            reason=reason,
            applied=applied,
            cold=cold,
            known=known,
            late_s=late_s,
        )
        return do

    return add


# Replay


@edit(REPEATED, "duplicate")
def the_last_envelope_is_replayed(r: Reading, s: Story) -> None:
    r.log.replay(P0, -1)


@edit(REPEATED, "superseded")
def an_envelope_of_an_epoch_that_was_left_is_replayed(r: Reading, s: Story) -> None:
    r.log.replay(P0, 1)


@edit(REPEATED, "superseded")
def the_whole_log_is_replayed(r: Reading, s: Story) -> None:
    for at in range(s.count(0)):
        r.log.replay(P0, at)


# Loss


@edit(STOPPED, "gap", first(2))
def an_envelope_is_dropped(r: Reading, s: Story) -> None:
    r.log.drop(P0, 2)


@edit(DROPPED, "history_lost", first(0), known=None)
def the_first_envelope_is_dropped(r: Reading, s: Story) -> None:
    r.log.drop(P0, 0)


@edit(STOPPED, "gap", up_to_turn(1))
def the_last_envelope_of_an_epoch_is_dropped(r: Reading, s: Story) -> None:
    r.log.drop(P0, s.turn() - 1)


@edit(STOPPED, "gap", up_to_turn())
def the_first_envelope_of_an_epoch_is_dropped(r: Reading, s: Story) -> None:
    r.log.drop(P0, s.turn())


@edit(STOPPED, "gap", up_to_turn())
def a_whole_epoch_is_dropped(r: Reading, s: Story) -> None:
    epoch = s.of(0)[s.turn()].header.epoch_id
    for one in reversed([one for one in s.of(0) if one.header.epoch_id == epoch]):
        r.log.drop(P0, one.at)


@edit(SILENT, "silent", first(3), late_s=60)
def the_end_of_the_log_is_withheld(r: Reading, s: Story) -> None:
    r.log.cut(P0, 3)


@edit(DROPPED, "history_lost", first(0), known=None)
def the_beginning_is_deleted_before_a_reader_joins(r: Reading, s: Story) -> None:
    r.log.delete_before(P0, 3)


@edit(STOPPED, "gap", first(2), cold=False)
def what_a_reader_has_not_read_is_deleted(r: Reading, s: Story) -> None:
    r.log.delete_before(P0, 3)


@edit(STOPPED, "gap", first(5), cold=False, known=5)
def an_old_log_is_restored_and_hides_what_came_between(r: Reading, s: Story) -> None:
    r.log.cut(P0, 3)
    r.log.insert(P0, 3, s.log.records[P0][-1])


@edit(REPEATED, "superseded", cold=False, known=6)
def an_old_log_is_restored_and_goes_on_without_a_hole(r: Reading, s: Story) -> None:
    r.log.cut(P0, 3)
    for record in s.log.records[P0][6:]:
        r.log.insert(P0, len(r.log.records[P0]), record)


@edit(REPEATED, "duplicate", cold=False)
def the_topic_is_made_anew_with_the_same_records(r: Reading, s: Story) -> None:
    r.log.cluster = "another"


@edit(STOPPED, "gap", first(2), cold=False)
def the_topic_is_made_anew_without_some_that_was_not_read(r: Reading, s: Story) -> None:
    r.log.cluster = "another"
    r.log.drop(P0, 2)


# Order


@edit(STOPPED, "gap", first(2))
def two_envelopes_change_places(r: Reading, s: Story) -> None:
    r.log.swap(P0, 2, 3)


@edit(STOPPED, "gap", up_to_turn(1))
def an_epoch_begins_before_the_last_one_ended(r: Reading, s: Story) -> None:
    r.log.swap(P0, s.turn() - 1, s.turn())


# Another place


@edit(DROPPED, "partition_mismatch")
def an_envelope_is_copied_to_another_partition(r: Reading, s: Story) -> None:
    r.log.insert(P1, 3, r.log.records[P0][3])


@edit(STOPPED, "gap", first(2))
def an_envelope_is_moved_to_another_partition(r: Reading, s: Story) -> None:
    r.log.move(P0, 2, P1, 2)


@edit(DROPPED, "partition_mismatch", nothing, known=None)
def two_partitions_are_swapped(r: Reading, s: Story) -> None:
    one, two = r.log.records[P0], r.log.records[P1]
    r.log.records[P0], r.log.records[P1] = [], []
    for place, records in ((P0, two), (P1, one)):
        for record in records:
            r.log.insert(place, len(r.log.records[place]), record)


@edit(DROPPED, "topic_mismatch")
def an_envelope_of_another_dataset_is_spliced_in(r: Reading, s: Story) -> None:
    r.log.insert(P0, 2, r.log.records[LETTERS][0])


@edit(DROPPED, "topic_mismatch", first(0), known=None)
def another_dataset_is_served_in_place_of_this(r: Reading, s: Story) -> None:
    r.log.records[P0] = []
    for record in s.log.records[LETTERS]:
        r.log.insert(P0, len(r.log.records[P0]), record)


@edit(DROPPED, "not_sealed")
def an_open_record_is_spliced_in(r: Reading, s: Story) -> None:
    r.log.insert(P0, 2, r.log.records[str(OPEN), 0][0])


# Other bytes


def parts_of(r: Reading, at: int) -> list[Any]:
    """The four elements of an envelope's COSE_Sign."""
    value = r.log.records[P0][at].value or b""
    return list(canonical.decode(value[2:]))  # type: ignore[arg-type]


def rebuild(r: Reading, at: int, parts: list[Any]) -> None:
    r.log.rewrite(P0, at, value=b"\xd8\x62" + canonical.encode(parts))


@edit(DROPPED, "bad_signature", first(2))
def an_envelope_is_relabelled(r: Reading, s: Story) -> None:
    parts = parts_of(r, 2)
    header = judge.header_of(r.log.records[P0][2].value or b"")
    header[4] = "secret"
    parts[0] = canonical.encode({judge.HEADER: header})
    rebuild(r, 2, parts)


@edit(DROPPED, "bad_signature", first(2))
def a_payload_is_spliced_under_another_header(r: Reading, s: Story) -> None:
    parts = parts_of(r, 2)
    parts[2] = parts_of(r, 3)[2]
    rebuild(r, 2, parts)


@edit(DROPPED, "bad_signature", first(2))
def signatures_are_taken_from_another_envelope(r: Reading, s: Story) -> None:
    parts = parts_of(r, 2)
    parts[3] = parts_of(r, 3)[3]
    rebuild(r, 2, parts)


@edit(DROPPED, "bad_signature", first(2))
def one_bit_of_an_envelope_is_flipped(r: Reading, s: Story) -> None:
    r.log.flip(P0, 2, -100)


@edit(DROPPED, "malformed", first(2))
def an_envelope_is_truncated(r: Reading, s: Story) -> None:
    r.log.rewrite(P0, 2, value=(r.log.records[P0][2].value or b"")[:-1])


@edit(DROPPED, "malformed", first(2))
def a_byte_is_put_behind_an_envelope(r: Reading, s: Story) -> None:
    r.log.rewrite(P0, 2, value=(r.log.records[P0][2].value or b"") + b"\0")


@edit(DROPPED, "not_sealed", first(2))
def an_envelope_becomes_a_null(r: Reading, s: Story) -> None:
    r.log.rewrite(P0, 2, value=None)


@edit(DROPPED, "too_large")
def a_huge_record_is_put_in(r: Reading, s: Story) -> None:
    r.log.forge(P0, b"\xd8\x62" + bytes(2_000_000))


@edit(DROPPED, "not_sealed")
def garbage_is_put_in(r: Reading, s: Story) -> None:
    r.log.forge(P0, b"garbage")


@edit(DROPPED, "too_old", first(2))
def the_log_says_that_an_envelope_waited(r: Reading, s: Story) -> None:
    r.log.rewrite(P0, 2, timestamp=datetime.now(UTC) + timedelta(hours=1))


@edit(DROPPED, "from_the_future", first(2))
def the_log_says_that_an_envelope_came_before_it_was_sealed(r: Reading, s: Story) -> None:
    r.log.rewrite(P0, 2, timestamp=datetime.now(UTC) - timedelta(hours=1))


# With keys of their own: others who conspire with the broker


def opened_by(s: Story, who: Any) -> tuple[bytes, SealingEpoch, bytes]:
    """Key, epoch and record of an epoch that a host opened for a dataset not its own."""
    key, made, secret = s.epoch_of(who)
    return key, SealingEpoch.of(made.start, made.hash, secret), made.value


@edit(DROPPED, "not_a_producer")
def an_approved_host_that_is_no_producer_seals_for_the_dataset(r: Reading, s: Story) -> None:
    key, epoch, value = opened_by(s, s.c)
    r.log.forge(GRANTS, value, key=key)
    r.log.forge(P0, s.sealed(s.of(0)[-1], by=s.c, epoch=epoch, counter=0))


@edit(DROPPED, "identity_mismatch")
def a_reader_seals_under_the_senders_epoch_and_name(r: Reading, s: Story) -> None:
    r.log.forge(P0, s.sealed(s.of(0)[-1], by=s.b))


@edit(STOPPED, "fork", up_to_turn())
def a_copy_of_the_sender_seals_another_block_for_a_counter(r: Reading, s: Story) -> None:
    forged = s.log.records[P0][2]
    r.log.insert(P0, s.turn(), forged)
    r.log.rewrite(P0, s.turn(), value=s.sealed(s.of(0)[2], by=s.a))


@edit(PAUSED, "policy_newer")
def an_envelope_names_a_policy_that_nobody_published(r: Reading, s: Story) -> None:
    """Its sender lies with its own keys: what it was judged under cannot be known here."""
    last = s.of(0)[-1]
    link = {"counter": last.header.counter + 1, "previous": last.hash}
    r.log.forge(P0, s.sealed(last, by=s.a, policy_version=1_000_000, **link))


# Grants


def start_at(r: Reading, number: int) -> int:
    """Where the start of A's epoch `number`, counted from 0, stands."""
    return [
        at for at, record in enumerate(r.log.records[GRANTS]) if b"/start/" in (record.key or b"")
    ][number]


@edit(PAUSED, "epoch_start_missing", first_epoch)
def an_epoch_start_is_withheld(r: Reading, s: Story) -> None:
    r.log.drop(GRANTS, start_at(r, 1))


@edit(CONTROL, "bad_signature", first_epoch)
def an_epoch_start_has_another_wrap_for_the_reader(r: Reading, s: Story) -> None:
    at = start_at(r, 1)
    manifest, first, wraps = canonical.decode(r.log.records[GRANTS][at].value or b"")  # type: ignore[misc]
    value = canonical.encode([manifest, first, [*wraps[:-1], wraps[0]]])
    r.log.rewrite(GRANTS, at, value=value)


@edit(CONTROL, "bad_signature", first_epoch)
def the_signature_of_an_epoch_start_is_another(r: Reading, s: Story) -> None:
    at = start_at(r, 1)
    signed, at_first, wraps = canonical.decode(  # type: ignore[misc]
        r.log.records[GRANTS][at].value or b""
    )
    forged = bytearray(signed)
    forged[-1] ^= 1
    r.log.rewrite(GRANTS, at, value=canonical.encode([bytes(forged), at_first, wraps]))


@edit(CONTROL, "malformed", first_epoch)
def the_start_of_another_dataset_stands_for_this_ones(r: Reading, s: Story) -> None:
    at = start_at(r, 1)
    other = s.log.records[grants_topic(OTHER), 0]
    r.log.rewrite(GRANTS, at, value=other[1].value)


@edit(CONTROL, "malformed", first_epoch)
def an_epoch_start_stands_under_another_key(r: Reading, s: Story) -> None:
    r.log.rewrite(GRANTS, start_at(r, 1), key=b"G01/registry/a1/start/9")


@edit(CONTROL, "malformed")
def another_hosts_start_stands_under_the_senders_key(r: Reading, s: Story) -> None:
    _, _, value = opened_by(s, s.c)
    r.log.forge(GRANTS, value, key=r.log.records[GRANTS][start_at(r, 1)].key)


@edit(CONTROL, "malformed")
def garbage_and_nulls_stand_among_the_grants(r: Reading, s: Story) -> None:
    r.log.forge(GRANTS, b"garbage", key=b"G01/registry/a1/start/1")
    r.log.forge(GRANTS, None, key=b"G01/registry/a1/start/1")
    r.log.forge(GRANTS, r.log.records[P0][0].value)


@edit(PAUSED, "epoch_start_missing", first_epoch)
def an_epoch_start_is_relabelled(r: Reading, s: Story) -> None:
    at = start_at(r, 1)
    value = r.log.records[GRANTS][at].value or b""
    assert b"secret+personal-data" in value
    r.log.rewrite(GRANTS, at, value=value.replace(b"secret+personal-data", b"secret+personal-dat."))


@edit("", "")
def a_stranger_grants_the_senders_epoch_with_another_secret(r: Reading, s: Story) -> None:
    key, value = s.granted_by(s.c)
    r.log.insert(GRANTS, 0, replace(r.log.records[GRANTS][0], key=key, value=value))


@edit(CONTROL, "malformed")
def a_strangers_grant_stands_under_the_senders_key(r: Reading, s: Story) -> None:
    key, value = s.granted_by(s.c)
    r.log.forge(GRANTS, value, key=key.replace(str(s.c.id).encode(), str(A).encode()))


@edit("", "")
def every_grant_is_replayed(r: Reading, s: Story) -> None:
    for at in range(len(s.log.records[GRANTS])):
        r.log.replay(GRANTS, at)


# Results


def result_of_a(r: Reading, s: Story) -> int:
    """Where the result under which A sealed stands."""
    wanted = f"verifier/{s.results[A].id.hex()}".encode()
    return [record.key for record in r.log.records[RESULTS]].index(wanted)


@edit(PAUSED, "result_unknown", nothing, known=None)
def the_senders_result_is_withheld(r: Reading, s: Story) -> None:
    r.log.drop(RESULTS, result_of_a(r, s))


@edit(CONTROL, "bad_signature", nothing, known=None)
def one_bit_of_a_result_is_flipped(r: Reading, s: Story) -> None:
    r.log.flip(RESULTS, result_of_a(r, s), 200)


@edit(CONTROL, "malformed")
def a_result_stands_under_anothers_key(r: Reading, s: Story) -> None:
    key = r.log.records[RESULTS][result_of_a(r, s)].key
    other = s.results[s.c.id]
    domain, signers = s.platform.policy.trust.trust_domain, s.platform.verifier.signers
    r.log.forge(RESULTS, encode(other, domain, signers), key=key)


@edit(CONTROL, "bad_signature")
def a_host_signs_a_result_for_itself(r: Reading, s: Story) -> None:
    domain = s.platform.policy.trust.trust_domain
    forged = encode(s.results[s.c.id], domain, signers_of(s.c, suite_of("hybrid")))
    r.log.forge(RESULTS, forged, key=b"verifier/" + s.results[s.c.id].id.hex().encode())


@edit(CONTROL, "bad_signature")
def signatures_are_taken_from_another_result(r: Reading, s: Story) -> None:
    at = result_of_a(r, s)
    values = [r.log.records[RESULTS][n].value or b"" for n in (at, at + 1)]
    mine, other = ([*canonical.decode(value[2:])] for value in values)  # type: ignore[misc]
    mine[3] = other[3]
    value = b"\xd8\x62" + canonical.encode(mine)
    r.log.forge(RESULTS, value, key=r.log.records[RESULTS][at].key)


@edit(CONTROL, "malformed", nothing, known=None)
def the_senders_result_is_truncated(r: Reading, s: Story) -> None:
    at = result_of_a(r, s)
    r.log.rewrite(RESULTS, at, value=(r.log.records[RESULTS][at].value or b"")[:-1])


@edit(CONTROL, "malformed")
def garbage_and_nulls_stand_among_the_results(r: Reading, s: Story) -> None:
    r.log.forge(RESULTS, b"garbage", key=r.log.records[RESULTS][0].key)
    r.log.forge(RESULTS, None, key=r.log.records[RESULTS][0].key)
    r.log.forge(RESULTS, r.log.records[MEMBERS][0].value)


@edit("", "")
def every_result_is_replayed(r: Reading, s: Story) -> None:
    for at in range(len(s.log.records[RESULTS])):
        r.log.replay(RESULTS, at)


# Members: states, notices, heartbeats


def a_state(s: Story, **changes: Any) -> HostState:
    result = s.results[A]
    fields: dict[str, Any] = {
        "host": A,
        "state": MemberState.ATTESTED,
        "result_id": result.id,
        "approval": 1,
        "number": 0,
        "since": result.issued,
        "expires": result.expires,
    }
    return HostState(**{**fields, **changes})


def a_revocation(s: Story) -> Notice:
    return Notice(
        number=1,
        host=A,
        kind=NoticeKind.REVOCATION,
        approval=1,
        why=Reason.STATE_REFUSED,
        at=s.results[A].issued,
    )


@edit(CONTROL, "bad_signature")
def a_host_signs_a_revocation_of_another(r: Reading, s: Story) -> None:
    key, value = notice_record(a_revocation(s), signers_of(s.c, suite_of("hybrid")))
    r.log.forge(MEMBERS, value, key=key)


@edit(CONTROL, "malformed")
def a_revocation_stands_under_another_number(r: Reading, s: Story) -> None:
    key, value = notice_record(a_revocation(s), s.platform.verifier.signers)
    r.log.forge(MEMBERS, value, key=key.replace(b"/1", b"/2"))


@edit(CONTROL, "bad_signature")
def a_revocation_is_changed_to_name_another(r: Reading, s: Story) -> None:
    key, value = notice_record(a_revocation(s), s.platform.verifier.signers)
    forged = value.replace(b"G01/registry/a1", b"G01/registry/a2")
    assert forged != value
    r.log.forge(MEMBERS, forged, key=key)


@edit(CONTROL, "bad_signature")
def a_host_signs_its_own_reinstatement(r: Reading, s: Story) -> None:
    notice = replace(a_revocation(s), kind=NoticeKind.REINSTATEMENT)
    key, value = notice_record(notice, signers_of(s.a, suite_of("hybrid")))
    r.log.forge(MEMBERS, value, key=key)


@edit(CONTROL, "malformed")
def a_state_stands_under_anothers_key(r: Reading, s: Story) -> None:
    _, value = host_record(a_state(s), s.platform.verifier.signers)
    r.log.forge(MEMBERS, value, key=f"verifier/host/{s.c.id}".encode())


@edit(CONTROL, "bad_signature")
def a_result_is_passed_off_as_a_state(r: Reading, s: Story) -> None:
    signed = cose.parse(r.log.records[RESULTS][0].value or b"")
    head = canonical.encode({16: "member"})
    parts = [head, {}, signed.payload, [[h, {}, sig] for h, sig in signed.signatures]]
    r.log.forge(MEMBERS, b"\xd8\x62" + canonical.encode(parts), key=b"verifier/host/x")


@edit(CONTROL, "malformed")
def garbage_and_nulls_stand_among_the_members(r: Reading, s: Story) -> None:
    r.log.forge(MEMBERS, b"garbage", key=b"verifier/heartbeat")
    r.log.forge(MEMBERS, None, key=b"verifier/revocation/1")
    r.log.forge(MEMBERS, b"x")


@edit("", "")
def old_states_of_members_are_replayed(r: Reading, s: Story) -> None:
    for at in range(len(s.log.records[MEMBERS])):
        r.log.replay(MEMBERS, at)


@edit(CONTROL, "bad_signature")
def a_host_signs_a_heartbeat(r: Reading, s: Story) -> None:
    beat = a_beat(0, s.results[A].issued)
    key, value = heartbeat_record(beat, signers_of(s.c, suite_of("hybrid")))
    r.log.forge(MEMBERS, value, key=key)


def drop_heartbeats(r: Reading) -> None:
    """Those that were there already; new ones come each second."""
    for at in reversed(range(len(r.log.records[MEMBERS]))):
        if r.log.records[MEMBERS][at].key == HEARTBEAT_KEY:
            r.log.drop(MEMBERS, at)


@edit(PAUSED, "members_stale", nothing, known=None)
def every_heartbeat_is_withheld(r: Reading, s: Story) -> None:
    r.platform.tick = lambda: None  # type: ignore[method-assign]  # no new ones either
    drop_heartbeats(r)


@edit(PAUSED, "members_stale", nothing, known=None)
def a_revocation_is_withheld_and_the_heartbeats_name_it(r: Reading, s: Story) -> None:
    drop_heartbeats(r)
    r.platform.notices, r.platform.given = 1, [a_revocation(s)]


@edit("stream_unanchored", "", nothing, known=None)
def blocks_of_a_host_that_has_lapsed_are_shown_to_a_late_reader(r: Reading, s: Story) -> None:
    """Nobody can tell these from blocks that host and broker make up together, back-dated."""
    r.clock.ahead = timedelta(minutes=15)
