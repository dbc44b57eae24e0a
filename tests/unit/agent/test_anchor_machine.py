"""A look ahead: what a carried head vouches for, and what it makes abandoned."""

from datetime import timedelta

import pytest

from fabric.agent import anchor_machine
from fabric.agent.anchor_machine import AnchorWindow, Cover
from fabric.attest.anchors import Anchors
from fabric.model.names import Origin, Stream
from tests.fakes.platform import SECRET
from tests.fakes.verifier import HOST, NOW, OTHER

STREAM = Stream(Origin.parse("G01/registry/main"), SECRET, 0)
ELSEWHERE = Stream(Origin.parse("G01/registry/other"), SECRET, 0)
END = NOW + timedelta(minutes=10)


def digest(name: str) -> bytes:
    return name.encode().ljust(32, b"\0")


def window(anchors: Anchors, *links: str, stream: Stream = STREAM) -> AnchorWindow:
    """A window from offset 0; a link is `hash<previous`, with `!` before another host's."""
    made = AnchorWindow(0, anchors.find)
    for offset, link in enumerate(links):
        own, _, before = link.removeprefix("!").partition("<")
        host = OTHER if link.startswith("!") else HOST
        made.add(stream, host, offset, digest=digest(own), previous=digest(before))
    return made


def ask(it: AnchorWindow, name: str, offset: int, stream: Stream = STREAM) -> Cover:
    return it.cover(stream, offset, digest(name), host=HOST, expires=END)


def carried(*names: str, host: object = HOST, noticed: object = None) -> Anchors:
    anchors = Anchors()
    anchors.add(host, [digest(name) for name in names], noticed=noticed)  # type: ignore[arg-type]
    return anchors


def test_a_carried_head_vouches_for_everything_before_it_and_nothing_after() -> None:
    it = window(carried("c"), "a<0", "b<a", "c<b", "d<c")
    assert [ask(it, name, at) for at, name in enumerate("abcd")] == [
        *[Cover.COVERED] * 3,
        Cover.UNKNOWN,
    ]


def test_what_a_carried_line_goes_past_is_abandoned() -> None:
    it = window(carried("d"), "a<0", "dead<a", "c<a", "d<c", "later<dead")
    assert ask(it, "dead", 1) is Cover.ABANDONED
    assert ask(it, "later", 4) is Cover.UNKNOWN
    assert ask(it, "a", 0) is Cover.COVERED


def test_without_a_carried_head_nothing_is_known() -> None:
    it = window(Anchors(), "a<0", "b<a")
    assert [ask(it, "a", 0), ask(it, "b", 1), ask(it, "x", 0)] == [Cover.UNKNOWN] * 3
    assert ask(it, "a", 0, ELSEWHERE) is Cover.UNKNOWN


def test_a_head_carried_by_another_host_says_nothing() -> None:
    """A host could carry the hash of something made up in another's name."""
    it = window(carried("b", host=OTHER), "a<0", "b<a")
    assert ask(it, "a", 0) is Cover.UNKNOWN
    mixed = carried("b", host=OTHER)
    it = window(mixed, "a<0", "!b<x")
    assert ask(it, "a", 0) is Cover.UNKNOWN


def test_a_notice_vouches_only_while_the_result_ran_and_abandons_nothing() -> None:
    it = window(carried("c", noticed=NOW), "a<0", "dead<a", "c<a")
    assert ask(it, "a", 0) is Cover.COVERED
    assert ask(it, "dead", 1) is Cover.UNKNOWN
    assert it.cover(STREAM, 0, digest("a"), host=HOST, expires=NOW) is Cover.UNKNOWN


def test_a_results_head_further_on_replaces_a_notices_word() -> None:
    anchors = carried("b", noticed=NOW)
    anchors.add(HOST, [digest("c")], noticed=None)
    it = window(anchors, "a<0", "b<a", "c<b")
    assert it.cover(STREAM, 0, digest("a"), host=HOST, expires=NOW) is Cover.COVERED


def test_a_repeated_envelope_changes_nothing() -> None:
    it = window(carried("c"), "a<0", "b<a", "a<0", "c<b")
    assert it.count == 3
    assert ask(it, "a", 2) is Cover.COVERED


def test_a_window_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchor_machine, "ANCHOR_WINDOW", 2)
    it = window(carried("c"), "a<0", "b<a", "c<b")
    assert it.is_full
    assert it.count == 2
    assert ask(it, "a", 0) is Cover.UNKNOWN
