"""Conversations with the agent's machines: `>>` what happens, `<<` what they command.

Times stand before the events, in seconds since the beginning.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from fabric.agent import attest_machine as attesting
from fabric.agent import publish_machine as publishing
from fabric.model.block import Block
from fabric.model.change import ORDINAL_MAX, Op, Run, Sequence
from fabric.model.errors import Reason
from fabric.model.names import Origin, Stream, Topic
from fabric.ports import Captured, Reached
from tests.fakes.platform import NOTES

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ORIGIN = Origin.parse("G01/registry/main")


class Stage(Protocol):
    """A machine that speaks in lines."""

    def run(self, event: str, now: datetime) -> list[str]: ...


def play(script: str, stage: Stage) -> None:
    """Run a script; every command must be written down, in order."""
    said: list[str] = []
    for line in filter(None, (text.strip() for text in script.splitlines())):
        if line.startswith(">>"):
            assert not said, f"unexpected before {line!r}: {said}"
            seconds, _, event = line[2:].strip().partition(" ")
            said = stage.run(event, START + timedelta(seconds=float(seconds)))
        else:
            expected = re.sub(r"\s+", " ", line[2:].strip())
            assert said, f"missing: {expected}"
            assert said.pop(0) == expected
    assert not said, f"unexpected at the end: {said}"


class Capture:
    """One capture of two datasets: `secret` is sealed, `open` is not; blocks of 3 changes."""

    def __init__(self, upto: dict[str, Sequence] | None = None) -> None:
        self.topics = {
            "secret": Topic.parse("secret.G01.notes"),
            "open": Topic.parse("public.G01.notes"),
        }
        self.names = {topic: name for name, topic in self.topics.items()}
        feeds = [
            publishing.Feed(
                topic=topic, schema=NOTES, partitions=1, salt=b"s" * 32, sealed=name == "secret"
            )
            for name, topic in self.topics.items()
        ]
        limits = publishing.Limits(changes_max=3, bytes_max=400_000, linger_s=0.02, silence_s=10)
        streams = {Stream(ORIGIN, self.topics[n], 0): s for n, s in (upto or {}).items()}
        self.machine = publishing.PublishMachine(
            ORIGIN, feeds, generation=7, upto=streams, limits=limits
        )
        self.flying: dict[str, list[Block]] = {}  # oldest first: stored in this order

    def run(self, event: str, now: datetime) -> list[str]:
        words = event.split()
        made: publishing.Event
        match words:
            case ["captured", name, place]:
                position, _, span = place.partition("/")
                first, _, last = span.partition("-")
                ids = range(int(first), int(last or first) + 1)
                rows = [{"id": i, "text": "x"} for i in ids]
                run = Run(
                    op=Op.UPSERT, position=int(position), ordinal=ids[0], commit_us=0, rows=rows
                )
                made = Captured(topic=self.topics[name], run=run)
            case ["reached", position]:
                made = Reached(position=int(position), resume=f"token {position}")
            case ["stored", name]:
                block = self.flying[name].pop(0)
                made = publishing.Stored(block=block, plaintext_bytes=100 * block.count)
            case _:
                made = publishing.Tick()
        return [self.tell(command) for command in self.machine.step(made, now)]

    def tell(self, command: publishing.Command) -> str:
        if isinstance(command, publishing.Advance):
            return f"advance {command.position}"
        block = command.block
        name = self.names[block.stream.topic]
        self.flying.setdefault(name, []).append(block)
        return f"store {name} {block.count} ({_place(block.after)}, {_place(block.upto)}]"


def _place(sequence: Sequence) -> str:
    ordinal = "end" if sequence.ordinal == ORDINAL_MAX else str(sequence.ordinal)
    return f"{sequence.generation}.{sequence.position}.{ordinal}"


class Host:
    """One host's attestation; results live 600 s, jitter is none."""

    def __init__(self) -> None:
        self.machine = attesting.AttestMachine()

    def run(self, event: str, now: datetime) -> list[str]:
        makers: dict[str, Callable[[str], attesting.Event]] = {
            "started": lambda word: attesting.Started(enrolled=word == "known"),
            "enrolled": lambda word: attesting.Enrolled(),
            "attested": lambda word: attesting.Attested(
                issued=now, expires=now + timedelta(seconds=600), jitter=0.5
            ),
            "refused": lambda word: attesting.Refused(reason=Reason(word)),
            "woke": lambda word: attesting.Woke(),
        }
        name, _, word = event.partition(" ")
        return [self.tell(command) for command in self.machine.step(makers[name](word), now)]

    @staticmethod
    def tell(command: attesting.Command) -> str:
        match command:
            case attesting.Enrol():
                return "enrol"
            case attesting.Attest():
                return "attest"
            case attesting.Sleep():
                return f"sleep {command.seconds:g}"
            case attesting.Show():
                return f"show {command.reason or 'well'}"


def test_a_row_goes_out_and_its_position_comes_back() -> None:
    play(
        """
        >> 0    reached 10
        << advance 10
        << store secret 0 (0.0.0, 7.10.end]
        >> 0    stored secret
        >> 1    captured secret 11/1
        >> 1    reached 11
        >> 1.02 tick
        << store secret 1 (7.10.end, 7.11.end]
        >> 1.1  stored secret
        << advance 11
        """,
        Capture(),
    )


def test_a_transaction_larger_than_a_block_is_cut_without_a_hole() -> None:
    play(
        """
        >> 0   captured secret 20/1-8
        << store secret 3 (0.0.0, 7.20.3]
        >> 0.1 reached 20
        << store secret 3 (7.20.3, 7.20.6]
        >> 0.2 stored secret
        >> 0.3 stored secret
        << store secret 2 (7.20.6, 7.20.end]
        >> 0.4 stored secret
        << advance 20
        """,
        Capture(),
    )


def test_one_dataset_that_waits_keeps_the_position_of_both() -> None:
    play(
        """
        >> 0    captured secret 20/1-3
        << store secret 3 (0.0.0, 7.20.3]
        >> 0    captured open 20/1
        >> 0    reached 20
        >> 0.02 tick
        << store open 1 (0.0.0, 7.20.end]
        >> 0.1  stored open
        >> 0.1  captured open 21/1-3
        << store open 3 (7.20.end, 7.21.3]
        >> 0.2  stored open
        >> 0.2  reached 21
        >> 5    stored secret
        << advance 21
        """,
        Capture(),
    )


def test_a_silent_source_still_says_how_far_it_is() -> None:
    play(
        """
        >> 0   reached 10
        << advance 10
        << store secret 0 (0.0.0, 7.10.end]
        >> 0.1 stored secret
        >> 9   reached 12
        << advance 12
        >> 10  tick
        >> 10.1 tick
        << store secret 0 (7.10.end, 7.12.end]
        """,
        Capture(),
    )


def test_a_restart_sends_only_what_was_not_acknowledged() -> None:
    play(
        """
        >> 0    captured secret 20/1-2
        >> 0    captured secret 20/3
        >> 0    reached 20
        >> 0.02 tick
        << store secret 1 (7.20.2, 7.20.end]
        """,
        Capture({"secret": Sequence(7, 20, 2)}),
    )


def test_a_host_enrols_waits_for_its_approval_and_renews() -> None:
    play(
        """
        >> 0 started new
        << enrol
        >> 1 enrolled
        << attest
        >> 2 refused not_approved
        << show not_approved
        << sleep 5
        >> 7 woke
        << attest
        >> 8 attested
        << show well
        << sleep 300
        >> 308 woke
        << attest
        """,
        Host(),
    )


def test_a_changed_host_is_refused_asks_on_and_comes_back() -> None:
    play(
        """
        >> 0 started known
        << attest
        >> 1 refused state_refused
        << show state_refused
        << sleep 5
        >> 6 woke
        << attest
        >> 7 refused host_suspended
        << show host_suspended
        << sleep 7.5
        >> 15 woke
        << attest
        >> 16 attested
        << show well
        << sleep 300
        """,
        Host(),
    )


def test_an_authority_that_is_away_is_asked_with_growing_pauses() -> None:
    play(
        """
        >> 0 started known
        << attest
        >> 0 refused authority_unavailable
        << show authority_unavailable
        << sleep 0.2
        >> 1 woke
        << attest
        >> 1 refused authority_unavailable
        << show authority_unavailable
        << sleep 0.4
        """,
        Host(),
    )
