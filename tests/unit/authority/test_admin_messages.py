"""The administrator's requests: exact fields or Malformed."""

import pytest

from fabric.attest.members import NoticeKind
from fabric.authority.admin_messages import Decision, Scope, not_done
from fabric.model import canonical
from fabric.model.errors import Malformed, Reason, UnavailableError
from fabric.model.names import HostId
from tests.fakes.verifier import HOST


def test_a_decision_comes_back() -> None:
    for who in ("G01", "G01/registry", "G01.A/registry/a1"):
        decision = Decision(who=Scope.parse(who), why="máy bị mất")
        assert Decision.decode(decision.encode()) == decision
        assert str(decision.who) == who


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"garbage",
        canonical.encode({}),
        canonical.encode({0: str(HOST)}),
        canonical.encode({0: str(HOST), 1: "why", 2: "more"}),
        canonical.encode({0: str(HOST), 1: ""}),
        canonical.encode({0: str(HOST), 1: "x" * 501}),
        canonical.encode({0: str(HOST), 1: "forged\nline"}),
        canonical.encode({0: "G01/registry/a1/x", 1: "why"}),
        canonical.encode({0: "", 1: "why"}),
        canonical.encode({0: "G01/", 1: "why"}),
        canonical.encode({0: "/registry/a1", 1: "why"}),
        canonical.encode({0: 1, 1: "why"}),
        canonical.encode([str(HOST), "why"]),
        canonical.encode({0: str(HOST), 1: "x" * 5_000}),
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Decision.decode(body)


def test_a_scope_covers_its_hosts_and_no_others() -> None:
    others = [HostId.parse(name) for name in ("G01/registry/a2", "G01/tax/a1", "G011/registry/a1")]
    for who, covered in (
        (str(HOST), 0),
        ("G01/registry", 1),
        ("G01", 2),
    ):
        scope = Scope.parse(who)
        assert scope.covers(HOST)
        assert [scope.covers(other) for other in others] == [True] * covered + [False] * (
            3 - covered
        )


def test_only_a_whole_name_is_one_host() -> None:
    assert Scope.parse(str(HOST)).host == HOST
    for who in ("G01", "G01/registry"):
        with pytest.raises(Malformed):
            _ = Scope.parse(who).host


def test_what_is_kept_is_not_to_be_given_again_and_the_gateway_is_whose_turn_it_is() -> None:
    away = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "notice 7 is not published yet, but kept")
    one = not_done([away], NoticeKind.SUSPENSION, 1)
    assert one.reason is Reason.GATEWAY_UNAVAILABLE
    said = str(one.args[0])
    assert said.startswith("the suspension is kept, and published by itself")
    assert "bring a gateway back; nothing is to be given again" in said
    many = str(not_done([away, away], NoticeKind.REVOCATION, 3).args[0])
    assert many.startswith("all 3 revocations are kept")
    assert "2 of 3 hosts" in many
    assert len(many) < 500, "a refusal's message is cut there"


def test_one_notice_that_is_not_kept_makes_the_decision_one_to_give_again() -> None:
    away = UnavailableError(Reason.GATEWAY_UNAVAILABLE, "kept")
    full = UnavailableError(Reason.DATABASE_UNAVAILABLE, "the disk is full")
    told = not_done([away, full], NoticeKind.SUSPENSION, 2)
    assert told.reason is Reason.DATABASE_UNAVAILABLE
    assert "not every suspension is kept: give it again" in str(told.args[0])
