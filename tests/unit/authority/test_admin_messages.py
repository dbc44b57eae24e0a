"""The administrator's requests: exact fields or Malformed."""

import pytest

from fabric.authority.admin_messages import Decision, Scope
from fabric.model import canonical
from fabric.model.errors import Malformed
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
