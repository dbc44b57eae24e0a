"""Carried heads: who vouches for which envelope."""

from datetime import timedelta

import pytest

from fabric.attest import anchors as anchors_module
from fabric.attest.anchors import Anchor, Anchors
from tests.fakes.verifier import HOST, NOW, OTHER

END = NOW + timedelta(minutes=10)
HEAD, NEXT, LAST = b"1" * 32, b"2" * 32, b"3" * 32


def test_result_vouches_for_its_hosts_envelopes_however_old() -> None:
    anchor = Anchor(host=HOST, noticed=None)
    assert anchor.covers(HOST, END)
    assert anchor.covers(HOST, NOW - timedelta(days=30))
    assert not anchor.covers(OTHER, END)


def test_notice_vouches_only_for_what_was_under_a_result_that_still_ran() -> None:
    """MUST-9.37."""
    anchor = Anchor(host=HOST, noticed=NOW)
    assert anchor.covers(HOST, NOW + timedelta(milliseconds=1))
    assert not anchor.covers(HOST, NOW)
    assert not anchor.covers(OTHER, END)


def test_a_results_word_outweighs_a_notices_in_any_order() -> None:
    for order in ((None, NOW), (NOW, None)):
        found = Anchors()
        for noticed in order:
            found.add(HOST, [HEAD], noticed=noticed)
        assert found.find(HOST, HEAD) == Anchor(host=HOST, noticed=None)


def test_oldest_heads_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_module, "ANCHORS_MAX", 2)
    found = Anchors()
    found.add(HOST, [HEAD, NEXT, LAST], noticed=None)
    assert len(found) == 2
    assert found.find(HOST, HEAD) is None
    assert found.find(HOST, LAST) is not None


def test_one_hosts_word_says_nothing_of_anothers_envelopes_nor_hides_theirs() -> None:
    found = Anchors()
    found.add(OTHER, [HEAD], noticed=None)
    assert found.find(HOST, HEAD) is None
    found.add(HOST, [HEAD], noticed=None)
    assert found.find(HOST, HEAD) == Anchor(host=HOST, noticed=None)


def test_a_host_that_tells_very_many_heads_pushes_out_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(anchors_module, "ANCHORS_MAX", 10)
    found = Anchors()
    found.add(HOST, [HEAD, NEXT], noticed=None)
    for turn in range(50):
        found.add(OTHER, [bytes([turn, n]) * 16 for n in range(20)], noticed=None)
    assert len(found) == 10
    assert found.find(HOST, HEAD) == found.find(HOST, NEXT) == Anchor(host=HOST, noticed=None)
    found.add(HOST, [LAST], noticed=None)
    assert [found.find(HOST, head) is not None for head in (HEAD, NEXT, LAST)] == [True] * 3


def test_a_head_that_is_carried_again_is_not_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors_module, "ANCHORS_MAX", 2)
    found = Anchors()
    for heads in ([HEAD], [NEXT], [HEAD], [LAST]):
        found.add(HOST, heads, noticed=None)
    assert found.find(HOST, HEAD) is not None
    assert found.find(HOST, NEXT) is None


def test_what_results_carried_is_listed_and_what_notices_did_is_not() -> None:
    found = Anchors()
    found.add(HOST, [HEAD, NEXT], noticed=None)
    found.add(HOST, [LAST], noticed=NOW)
    assert {*found.carried(HOST)} == {HEAD, NEXT}
    assert found.carried(OTHER) == ()
