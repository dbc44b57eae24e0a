"""A look ahead: what a carried head vouches for, and what it makes abandoned."""

from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.agent import anchor_machine
from fabric.agent.anchor_machine import AnchorWindow, Cover, Turn, turn_of
from fabric.attest.anchors import Anchors
from fabric.model.names import Origin, Stream
from fabric.seal.sealing import Link
from tests.fakes.platform import SECRET
from tests.fakes.sealing import Party, block
from tests.fakes.verifier import HOST, NOW, OTHER

STREAM = Stream(Origin.parse("G01/registry/main"), SECRET, 0)
ELSEWHERE = Stream(Origin.parse("G01/registry/other"), SECRET, 0)
END = NOW + timedelta(minutes=10)


def digest(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")


def turn(words: str) -> Turn:
    """`counter`, `epoch.counter` or `generation.epoch.counter`, the rest being 1."""
    *_, generation, epoch, counter = (1, 1, *map(int, words.split(".")))
    return generation, epoch, counter


def window(anchors: Anchors, *links: str, stream: Stream = STREAM) -> AnchorWindow:
    """Envelopes in the log's order: `hash@turn<previous`, with `!` before another host's."""
    made = AnchorWindow(0, anchors.find)
    for link in links:
        own, _, before = link.removeprefix("!").partition("<")
        name, _, words = own.partition("@")
        host = OTHER if link.startswith("!") else HOST
        made.add(stream, host, turn(words), digest=digest(name), previous=digest(before))
    return made


def ask(it: AnchorWindow, envelope: str, stream: Stream = STREAM) -> Cover:
    name, _, words = envelope.partition("@")
    return it.cover(stream, turn(words), digest(name), host=HOST, expires=END)


def carried(*names: str, host: object = HOST, noticed: object = None) -> Anchors:
    anchors = Anchors()
    anchors.add(host, [digest(name) for name in names], noticed=noticed)  # type: ignore[arg-type]
    return anchors


def test_a_carried_head_vouches_for_everything_before_it_and_nothing_after() -> None:
    it = window(carried("c"), "a@0<0", "b@1<a", "c@2<b", "d@3<c")
    assert [ask(it, envelope) for envelope in ("a@0", "b@1", "c@2", "d@3")] == [
        *[Cover.COVERED] * 3,
        Cover.UNKNOWN,
    ]


def test_what_a_carried_line_goes_past_is_abandoned() -> None:
    it = window(carried("d"), "a@0<0", "dead@1<a", "c@2.0<a", "d@2.1<c", "later@2.2<d")
    assert ask(it, "dead@1") is Cover.ABANDONED
    assert ask(it, "later@2.2") is Cover.UNKNOWN
    assert ask(it, "a@0") is Cover.COVERED


@pytest.mark.parametrize(
    "last", ["x@2<c", "x@2.0<c", "x@2.1.0<c"], ids=["counter", "epoch", "generation"]
)
def test_a_copy_of_an_old_carried_head_abandons_nothing_that_came_after_it(last: str) -> None:
    """After a lost state file the epochs' numbers may fall; the generation never does."""
    it = window(carried("c"), "c@1<b", last, "c@1<b")
    assert ask(it, last.partition("<")[0]) is Cover.UNKNOWN
    it = window(carried("c", "b"), "b@0<a", "c@1<b", last, "b@0<a")
    assert ask(it, last.partition("<")[0]) is Cover.UNKNOWN
    assert ask(it, "dead@1") is Cover.ABANDONED


def test_after_a_lost_state_file_a_generation_outweighs_an_epochs_number() -> None:
    it = window(carried("c"), "c@1.57.3<b", "x@2.1.0<0", "c@1.57.3<b")
    assert ask(it, "x@2.1.0") is Cover.UNKNOWN


def test_a_turn_is_the_headers_generation_epoch_and_counter_in_this_order() -> None:
    sender = Party.make()
    started = sender.start(sender.draft(number=57))
    sealed = sender.seal(block(), started, link=Link(counter=0, previous=bytes(32)))
    header = sender.verify(sealed.data).envelope.header
    assert turn_of(header) < turn_of(replace(header, counter=1))
    assert turn_of(replace(header, counter=9)) < turn_of(replace(header, epoch_number=58))
    again = replace(header, upto=header.upto._replace(generation=2), epoch_number=1)
    assert turn_of(header) < turn_of(again)


def test_another_envelope_at_the_turn_of_a_carried_head_is_abandoned() -> None:
    it = window(carried("c"), "a@0<0", "c@1<a", "made up@1<a")
    assert ask(it, "made up@1") is Cover.ABANDONED


def test_a_copy_of_a_carried_head_before_its_forerunners_abandons_none_of_them() -> None:
    it = window(carried("c"), "a@0<0", "c@2<b", "b@1<a", "c@2<b")
    assert [ask(it, envelope) for envelope in ("a@0", "b@1", "c@2")] == [Cover.COVERED] * 3


def test_turns_of_two_senders_and_of_two_streams_are_not_held_against_each_other() -> None:
    anchors = carried("theirs", host=OTHER)
    anchors.add(HOST, [digest("elsewhere")], noticed=None)
    it = window(anchors, "x@0<a", "!theirs@9.9<b")
    it.add(ELSEWHERE, HOST, turn("9.9"), digest=digest("elsewhere"), previous=digest("d"))
    assert ask(it, "x@0") is Cover.UNKNOWN
    assert ask(it, "x@0", ELSEWHERE) is Cover.ABANDONED


def test_without_a_carried_head_nothing_is_known() -> None:
    it = window(Anchors(), "a@0<0", "b@1<a")
    assert [ask(it, "a@0"), ask(it, "b@1"), ask(it, "x@0")] == [Cover.UNKNOWN] * 3
    assert ask(it, "a@0", ELSEWHERE) is Cover.UNKNOWN


def test_a_head_carried_by_another_host_says_nothing() -> None:
    """A host could carry the hash of something made up in another's name."""
    it = window(carried("b", host=OTHER), "a@0<0", "b@1<a")
    assert ask(it, "a@0") is Cover.UNKNOWN
    mixed = carried("b", host=OTHER)
    it = window(mixed, "a@0<0", "!b@1<x")
    assert ask(it, "a@0") is Cover.UNKNOWN


def test_a_notice_vouches_only_while_the_result_ran_and_abandons_nothing() -> None:
    it = window(carried("c", noticed=NOW), "a@0<0", "dead@1<a", "c@2.0<a")
    assert ask(it, "a@0") is Cover.COVERED
    assert ask(it, "dead@1") is Cover.UNKNOWN
    assert it.cover(STREAM, turn("0"), digest("a"), host=HOST, expires=NOW) is Cover.UNKNOWN


def test_a_results_head_further_on_replaces_a_notices_word() -> None:
    anchors = carried("b", noticed=NOW)
    anchors.add(HOST, [digest("c")], noticed=None)
    it = window(anchors, "a@0<0", "b@1<a", "c@2<b")
    assert it.cover(STREAM, turn("0"), digest("a"), host=HOST, expires=NOW) is Cover.COVERED


def test_a_repeated_envelope_changes_nothing() -> None:
    it = window(carried("c"), "a@0<0", "b@1<a", "a@0<0", "c@2<b")
    assert it.count == 3
    assert ask(it, "a@0") is Cover.COVERED


def test_a_window_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_machine, "ANCHOR_WINDOW", 2)
    it = window(carried("c"), "a@0<0", "b@1<a", "c@2<b")
    assert it.is_full
    assert it.count == 2
    assert ask(it, "a@0") is Cover.UNKNOWN
