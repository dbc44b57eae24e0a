"""The administrator's requests: exact fields or Malformed."""

import pytest

from fabric.authority.admin_messages import Decision
from fabric.model import canonical
from fabric.model.errors import Malformed
from tests.fakes.verifier import HOST


def test_a_decision_comes_back() -> None:
    decision = Decision(host=HOST, why="máy bị mất")
    assert Decision.decode(decision.encode()) == decision


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
        canonical.encode({0: "G01/registry", 1: "why"}),
        canonical.encode({0: 1, 1: "why"}),
        canonical.encode([str(HOST), "why"]),
        canonical.encode({0: str(HOST), 1: "x" * 5_000}),
    ],
)
def test_anything_else_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        Decision.decode(body)
