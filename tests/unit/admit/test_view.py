import dataclasses

import pytest

from fabric.admit.view import Place, View
from tests.fakes.gateway import World


def test_a_view_is_its_policy_and_members_and_does_not_change() -> None:
    world = World()
    view = View(world.policy, world.members)
    assert (view.policy, view.members) == (world.policy, world.members)
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.policy = world.policy  # type: ignore[misc]


def test_places_are_compared_by_value() -> None:
    assert Place("a", 1) == Place("a", 1) != Place("a", 2)
