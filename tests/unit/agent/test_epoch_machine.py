"""When a new epoch is due, and who gets a grant."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.epoch_machine import EpochMachine, Served, Wanted, Why, late
from fabric.model.errors import Reason
from fabric.model.limits import EPOCH_AGE_S_MAX, EPOCH_BLOCKS_MAX
from fabric.model.names import HostId

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ME = HostId.parse("G01/registry/a1")
B = HostId.parse("G02/health/b1")
C = HostId.parse("G02/health/c1")
KEY, NEW_KEY = b"k" * 32, b"n" * 32


def served(*hosts: HostId, number: int = 1, started: datetime = NOW) -> Served:
    pairs = frozenset((host, KEY) for host in hosts)
    return Served(number=number, started=started, served=pairs)


def wanted(
    *hosts: HostId,
    refused: dict[HostId, Reason] | None = None,
    retained: bool = True,
    keys: dict[HostId, bytes] | None = None,
    named: dict[HostId, datetime] | None = None,
) -> Wanted:
    return Wanted(
        hosts={host: (keys or {}).get(host, KEY) for host in hosts},
        refused=refused or {},
        retained=retained,
        result_lifetime_s=600,
        named=named or {},
    )


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_the_first_block_needs_an_epoch() -> None:
    assert EpochMachine().due(None, 0, wanted(ME), NOW) is Why.START


def test_nothing_is_due_while_nothing_changes() -> None:
    assert EpochMachine().due(served(ME, B), 5, wanted(ME, B), at(60)) is None


def test_age_and_blocks_end_an_epoch() -> None:
    it = EpochMachine()
    assert it.due(served(ME), 0, wanted(ME), at(EPOCH_AGE_S_MAX)) is Why.AGE
    assert it.due(served(ME), EPOCH_BLOCKS_MAX - 1, wanted(ME), NOW) is Why.BLOCKS


def test_a_lost_recipient_ends_an_epoch_at_once() -> None:
    for reason in (
        Reason.HOST_REVOKED,
        Reason.HOST_SUSPENDED,
        Reason.NOT_A_CONSUMER,
        Reason.CLEARANCE_TOO_LOW,
        Reason.LEVEL_TOO_LOW,
    ):
        assert (
            EpochMachine().due(served(ME, B), 0, wanted(ME, refused={B: reason}), NOW) is Why.LOST
        )


def test_a_loss_outweighs_every_cause_that_can_wait() -> None:
    lost = wanted(ME, refused={B: Reason.HOST_REVOKED, C: Reason.RESULT_EXPIRED})
    for blocks, now in ((0, at(EPOCH_AGE_S_MAX)), (EPOCH_BLOCKS_MAX - 1, NOW)):
        assert EpochMachine().due(served(ME, B, C), blocks, lost, now) is Why.LOST


def test_lapsed_recipients_wait_for_their_batch() -> None:
    it = EpochMachine()
    lapsed = wanted(ME, refused={B: Reason.RESULT_EXPIRED})
    assert it.due(served(ME, B), 0, lapsed, NOW) is None
    assert it.due(served(ME, B), 0, lapsed, at(599)) is None
    assert it.due(served(ME, B), 0, lapsed, at(600)) is Why.LAPSED


@pytest.mark.parametrize("reason", [Reason.SUITE_REFUSED, Reason.MALFORMED])
def test_who_attests_without_a_key_to_wrap_to_is_gathered_like_who_does_not_attest(
    reason: Reason,
) -> None:
    it = EpochMachine()
    keyless = wanted(ME, refused={B: reason})
    for turn in range(0, 1200, 2):  # by turns with its key and without it
        assert it.due(served(ME, B), 0, keyless, at(turn)) is None
        assert it.due(served(ME, B), 0, wanted(ME, B), at(turn + 1)) is None
    assert it.due(served(ME, B), 0, keyless, at(1200)) is None
    lapsed = wanted(ME, refused={B: Reason.RESULT_EXPIRED})
    assert it.due(served(ME, B), 0, lapsed, at(1799)) is None
    assert it.due(served(ME, B), 0, keyless, at(1800)) is Why.LAPSED


def test_a_recipient_that_came_back_in_time_costs_nothing() -> None:
    it = EpochMachine()
    it.due(served(ME, B), 0, wanted(ME, refused={B: Reason.RESULT_EXPIRED}), NOW)
    it.due(served(ME, B), 0, wanted(ME, B), at(10))
    again = wanted(ME, refused={B: Reason.RESULT_EXPIRED})
    assert it.due(served(ME, B), 0, again, at(601)) is None


@pytest.mark.parametrize("reason", [Reason.RESULT_UNKNOWN, Reason.POLICY_NEWER])
def test_what_has_not_reached_us_is_no_loss(reason: Reason) -> None:
    lagging = wanted(ME, refused={B: reason})
    it = EpochMachine()
    assert it.due(served(ME, B), 0, lagging, NOW) is None
    assert it.due(served(ME, B), 0, lagging, at(10_000)) is None


def test_under_from_join_a_join_starts_an_epoch_after_the_batch() -> None:
    it = EpochMachine()
    joined = wanted(ME, B, retained=False, named={B: at(60)})
    assert it.due(served(ME), 0, joined, at(60)) is None
    joined = wanted(ME, B, C, retained=False, named={B: at(60), C: at(64)})
    assert it.due(served(ME), 0, joined, at(64)) is None
    assert it.due(served(ME), 0, joined, at(65)) is Why.JOINED


def test_a_clock_that_was_ahead_and_is_set_right_holds_no_batch_up() -> None:
    it = EpochMachine()
    joined = wanted(ME, B, retained=False, named={B: at(60)})
    assert it.due(served(ME), 0, joined, at(7000)) is None
    assert it.due(served(ME), 0, joined, at(61)) is None
    assert it.due(served(ME), 0, joined, at(66)) is Why.JOINED
    assert it.can_wait(Why.JOINED, 5, at(7000))
    assert it.can_wait(Why.JOINED, 5, at(66))
    assert not it.can_wait(Why.JOINED, 5, at(96))


def test_a_host_is_joined_when_it_is_named_also_if_it_is_not_attested() -> None:
    it = EpochMachine()
    joined = wanted(ME, refused={B: Reason.NOT_ATTESTED}, retained=False, named={B: at(60)})
    it.due(served(ME), 0, joined, at(60))
    assert it.due(served(ME), 0, joined, at(65)) is Why.JOINED


def test_a_named_host_that_comes_back_starts_no_epoch_under_from_join() -> None:
    it = EpochMachine()
    back = wanted(ME, B, retained=False, named={B: at(-60)})
    assert it.due(served(ME), 0, back, NOW) is None
    assert it.due(served(ME), 0, back, at(100)) is None


def test_under_retained_a_join_needs_no_epoch() -> None:
    it = EpochMachine()
    joined = wanted(ME, B, named={B: at(1)})
    assert it.due(served(ME), 0, joined, at(1)) is None
    assert it.due(served(ME), 0, joined, at(100)) is None


def test_blocks_go_on_while_the_next_epoch_is_drawn_up_unless_somebody_must_not_read_on() -> None:
    for why in Why:
        waits = why in {Why.AGE, Why.BLOCKS, Why.LAPSED, Why.JOINED}
        assert EpochMachine().can_wait(why, 5, NOW) is waits


def test_a_new_epoch_is_not_waited_for_for_ever() -> None:
    it = EpochMachine()
    assert it.can_wait(Why.AGE, 5, NOW)
    assert it.can_wait(Why.AGE, 5, at(29))
    assert not it.can_wait(Why.AGE, 5, at(30))
    it.opened()
    assert it.can_wait(Why.AGE, 5, at(30))


def test_a_cause_that_went_away_leaves_the_next_one_its_time() -> None:
    it = EpochMachine()
    lapsed = wanted(ME, refused={B: Reason.RESULT_EXPIRED})
    it.due(served(ME, B), 0, lapsed, NOW)
    assert it.due(served(ME, B), 0, lapsed, at(600)) is Why.LAPSED
    assert it.can_wait(Why.LAPSED, 0, at(600))
    assert it.due(served(ME, B), 0, wanted(ME, B), at(601)) is None
    assert it.can_wait(Why.AGE, 0, at(700))


def test_an_epoch_that_is_full_takes_no_more_blocks() -> None:
    assert EpochMachine().can_wait(Why.BLOCKS, EPOCH_BLOCKS_MAX - 2, NOW)
    assert not EpochMachine().can_wait(Why.BLOCKS, EPOCH_BLOCKS_MAX - 1, NOW)


def test_retained_gives_a_late_host_every_kept_epoch() -> None:
    kept = [served(ME, number=1), served(ME, number=2), served(ME, B, number=3)]
    assert late(kept, wanted(ME, B)) == {1: (B,), 2: (B,)}


def test_from_join_gives_nothing_from_before_a_host_was_named() -> None:
    kept = [served(ME, number=n, started=at(60 * n)) for n in range(4)]
    since = {B: at(61), C: at(200)}
    assert late(kept, wanted(ME, B, C, retained=False, named=since)) == {2: (B,), 3: (B,)}


def test_from_join_gives_a_host_that_is_named_again_nothing_of_the_time_between() -> None:
    hosts = [(ME, B), (ME,), (ME,)]
    kept = [served(*who, number=n, started=at(60 * n)) for n, who in enumerate(hosts)]
    again = wanted(ME, B, retained=False, named={B: at(90)})
    assert late(kept, again) == {2: (B,)}


def test_from_join_gives_new_keys_to_whom_an_epoch_had_served_and_no_more() -> None:
    kept = [served(ME, B, number=1), served(ME, number=2)]
    for named in ({}, {B: at(3600)}):
        back = wanted(ME, B, retained=False, keys={B: NEW_KEY}, named=named)
        assert late(kept, back) == {1: (B,)}


def test_a_host_that_was_away_gets_every_epoch_since_it_was_named() -> None:
    kept = [served(ME, number=n, started=at(60 * n)) for n in range(4)]
    back = wanted(ME, B, retained=False, named={B: at(60)})
    assert late(kept, back) == {1: (B,), 2: (B,), 3: (B,)}


def test_a_host_with_new_keys_is_granted_again() -> None:
    kept = [served(ME, B, number=1)]
    assert late(kept, wanted(ME, B, keys={B: NEW_KEY})) == {1: (B,)}
