"""The table of event types: as the TCG profile has it, and nothing twice."""

import pytest

from fabric.policy.event_types import EV_NO_ACTION, EVENT_TYPES


def test_numbers_are_unique_and_what_measures_nothing_is_not_among_them() -> None:
    assert len(set(EVENT_TYPES.values())) == len(EVENT_TYPES)
    assert EV_NO_ACTION not in EVENT_TYPES.values()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("EV_SEPARATOR", 4),
        ("EV_S_CRTM_VERSION", 8),
        ("EV_IPL", 13),
        ("EV_EFI_BOOT_SERVICES_APPLICATION", 0x80000003),
        ("EV_EFI_VARIABLE_AUTHORITY", 0x800000E0),
    ],
)
def test_numbers_are_the_profiles(name: str, number: int) -> None:
    assert EVENT_TYPES[name] == number
