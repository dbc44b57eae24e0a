"""Conversations with the gateway's machine: `>>` what happens, `<<` what it commands."""

import re

import pytest

from tests.fakes.gateway_play import Stage


def play(script: str, stage: Stage | None = None) -> None:
    """Run a script; every command must be written down, in order."""
    stage = stage or Stage()
    said: list[str] = []
    for line in filter(None, (text.strip() for text in script.splitlines())):
        if line.startswith(">>"):
            assert not said, f"unexpected before {line!r}: {said}"
            said = run(stage, line[2:].strip())
        else:
            expected = re.sub(r"\s+", " ", line[2:].strip())
            assert said, f"missing: {expected}"
            assert said.pop(0) == expected
    assert not said, f"unexpected at the end: {said}"


def run(stage: Stage, event: str) -> list[str]:
    name, _, number = event.partition(" ")
    match name:
        case "answered":
            return stage.answer(int(number))
        case "failed":
            return stage.fail(int(number))
        case "garbled":
            return stage.garble(int(number))
        case "expired":
            return stage.expire()
        case "suspended":
            stage.suspend()
            return []
    return stage.request(event)


def test_an_envelope_goes_to_its_leader_and_the_answer_comes_back() -> None:
    play("""
        >> produce v9 sealed:0=envelope
        << pass sealed 1
        << forward 1 to 1: produce v9 acks=-1 sealed:0
        >> answered 1
        << reply 1: sealed:0 stored at 100
    """)


def test_a_refused_partition_does_not_hold_back_the_others() -> None:
    play("""
        >> produce v9 sealed:0=plain open:0=open open:1=none
        << note sealed:0 not_sealed
        << note open:1 malformed without a record
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> answered 1
        << reply 1: sealed:0 error 87 #0, open:0 stored at 100, open:1 error 87
    """)


def test_a_request_is_split_by_leader_and_merged_again() -> None:
    play(
        """
        >> produce v9 open:0=open open:1=open sealed:0=envelope
        << pass open 1
        << pass sealed 1
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0 sealed:0
        << forward 2 to 2: produce v9 acks=-1 open:1
        >> answered 2
        >> answered 1
        << reply 1: open:0 stored at 101, open:1 stored at 100, sealed:0 stored at 102
    """,
        Stage(nodes=(1, 2)),
    )


def test_half_of_a_split_request_may_fail() -> None:
    play(
        """
        >> produce v9 open:0=open open:1=open
        << pass open 1
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        << forward 2 to 2: produce v9 acks=-1 open:1
        >> failed 2
        >> answered 1
        << reply 1: open:0 stored at 100, open:1 error 7
    """,
        Stage(nodes=(1, 2)),
    )


def test_replies_leave_in_the_order_of_the_requests() -> None:
    play("""
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> produce v9 sealed:0=plain
        << note sealed:0 not_sealed
        >> api_versions v0
        >> metadata v9 open
        << forward 2 to any: metadata v9 open
        >> answered 2
        >> answered 1
        << reply 1: open:0 stored at 100
        << reply 2: sealed:0 error 87 #0
        << reply 3: error 0 0=0..12 1=4..10 3=0..12 18=0..4 22=0..5
        << reply 4: 1=gw2:9392 1000000000=gw1:9392 sealed/0 open/0
    """)


def test_an_unknown_leader_is_asked_for_and_nothing_overtakes() -> None:
    stage = Stage()
    stage.forget_leaders()
    play(
        """
        >> produce v9 open:0=open
        << forward 1 to any: metadata v12 open
        >> produce v9 open:0=open
        >> answered 1
        << pass open 1
        << forward 2 to 1: produce v9 acks=-1 open:0
        << pass open 1
        << forward 3 to 1: produce v9 acks=-1 open:0
        >> answered 2
        << reply 1: open:0 stored at 100
        >> answered 3
        << reply 2: open:0 stored at 101
    """,
        stage,
    )


def test_a_suspension_while_a_leader_is_asked_for_takes_back_what_was_admitted() -> None:
    stage = Stage()
    stage.forget_leaders()
    play(
        """
        >> produce v9 open:0=open sealed:0=envelope
        << forward 1 to any: metadata v12 open sealed
        >> produce v7 open:1=open
        >> suspended
        >> answered 1
        << note open:0 host_suspended
        << note sealed:0 host_suspended
        << note open:1 host_suspended
        << reply 1: open:0 error 87, sealed:0 error 87
        << reply 2: open:1 error 44
    """,
        stage,
    )


def test_a_partition_without_a_leader_is_told_to_come_again() -> None:
    stage = Stage()
    stage.forget_leaders()
    stage.broker.leaders = {}
    play(
        """
        >> produce v9 open:0=open
        << forward 1 to any: metadata v12 open
        >> answered 1
        << reply 1: open:0 error 5
    """,
        stage,
    )


def test_a_leader_that_moved_is_asked_for_next_time() -> None:
    stage = Stage()
    stage.broker.errors[("public.G01.wards", 0)] = 6
    play(
        """
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> answered 1
        << reply 1: open:0 error 6
        >> produce v9 open:0=open
        << forward 2 to any: metadata v12 open
    """,
        stage,
    )


def test_the_same_bytes_after_an_unknown_outcome_go_again_and_after_success_do_not() -> None:
    play("""
        >> produce v7 sealed:0=envelope
        << pass sealed 1
        << forward 1 to 1: produce v7 acks=-1 sealed:0
        >> failed 1
        << reply 1: sealed:0 error 7
        >> produce v7 sealed:0=again
        << pass sealed 1
        << forward 2 to 1: produce v7 acks=-1 sealed:0
        >> answered 2
        << reply 2: sealed:0 stored at 100
        >> produce v7 sealed:0=again
        << reply 3: sealed:0 stored at 100
        >> produce v7 sealed:0=envelope
        << pass sealed 1
        << forward 3 to 1: produce v7 acks=-1 sealed:0
        >> answered 3
        << reply 4: sealed:0 stored at 101
        >> produce v7 sealed:0=first
        << note sealed:0 replayed
        << reply 5: sealed:0 error 44
    """)


def test_a_suspension_takes_effect_between_two_requests_of_one_connection() -> None:
    play("""
        >> produce v7 sealed:0=envelope
        << pass sealed 1
        << forward 1 to 1: produce v7 acks=-1 sealed:0
        >> suspended
        >> produce v7 sealed:0=envelope
        << note sealed:0 host_suspended
        >> answered 1
        << reply 1: sealed:0 stored at 100
        << reply 2: sealed:0 error 44
    """)


def test_an_answer_that_does_not_decode_is_as_good_as_none() -> None:
    play("""
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> garbled 1
        << reply 1: open:0 error 7
        >> metadata v5 open
        << forward 2 to any: metadata v5 open
        >> garbled 2
        << reply 2: 1=gw2:9392 1000000000=gw1:9392 open/5
        >> init_producer_id v4
        << forward 3 to any: init_producer_id v4
        >> failed 3
        << reply 3: error 15 producer -1
    """)


def test_without_any_broker_known_metadata_lets_the_client_come_again() -> None:
    stage = Stage()
    stage.forget_leaders()
    play(
        """
        >> metadata v9 open
        << forward 1 to any: metadata v9 open
        >> failed 1
        << reply nothing
        << close broker_unavailable
    """,
        stage,
    )


def test_an_unknown_api_closes_behind_the_answers_that_are_due() -> None:
    play("""
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> api v19
        << note - api_refused without a record
        >> produce v9 open:0=open
        >> answered 1
        << reply 1: open:0 stored at 100
        << close api_refused
    """)


def test_the_certificates_end_closes_at_a_request_boundary() -> None:
    play("""
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
        >> expired
        >> answered 1
        << reply 1: open:0 stored at 100
        << close
    """)


def test_a_request_after_the_certificates_end_is_not_served() -> None:
    stage = Stage()
    stage.now = stage.machine._identity.not_after
    play(
        """
        >> api_versions v0
        << close
    """,
        stage,
    )


def test_acks_0_on_an_open_topic_is_silent_but_the_broker_is_asked() -> None:
    play("""
        >> produce v9 acks=0 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=1 open:0
        >> answered 1
        << reply nothing
    """)


@pytest.mark.parametrize("event", ["failed 1", "garbled 1"])
def test_acks_0_closes_when_the_broker_does_not_store(event: str) -> None:
    play(f"""
        >> produce v9 acks=0 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=1 open:0
        >> {event}
        << reply nothing
        << close broker_unavailable
    """)


@pytest.mark.parametrize("record", ["sealed:0=envelope", "open:0=open sealed:0=envelope"])
def test_acks_0_on_a_sealed_topic_closes_and_forwards_nothing(record: str) -> None:
    said = Stage().request(f"produce v9 acks=0 {record}")
    assert said[-1] == "close api_refused"
    assert not [line for line in said if line.startswith(("forward", "reply"))]


def test_answers_to_nobody_are_dropped() -> None:
    stage = Stage()
    play(
        """
        >> produce v9 open:0=open
        << pass open 1
        << forward 1 to 1: produce v9 acks=-1 open:0
    """,
        stage,
    )
    forward = stage.forwards[1]
    assert stage.answer(1) == ["reply 1: open:0 stored at 100"]
    stage.forwards[1] = forward
    assert stage.answer(1) == []


def test_in_flight_counts_requests_without_a_reply() -> None:
    stage = Stage()
    stage.request("produce v9 open:0=open")
    stage.request("metadata v9 open")
    assert stage.machine.in_flight == 2
    stage.answer(1)
    assert stage.machine.in_flight == 1
