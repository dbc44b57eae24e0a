"""Labels form a lattice, and their text has one form."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.errors import Malformed
from fabric.model.label import Label, Levels, dominates, join, meet

LEVELS = Levels(("public", "internal", "confidential", "secret", "top-secret"))
LABELS = st.builds(
    Label, st.sampled_from(LEVELS.names), st.frozensets(st.sampled_from(["a", "b", "c"]))
)


@pytest.mark.parametrize("text", ["public", "secret+personal-data", "secret+a+b"])
def test_label_is_written_as_it_is_read(text: str) -> None:
    assert str(Label.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "+a", "secret+", "secret+b+a", "secret+a+a", "Secret", "secret++a", "secret a"]
)
def test_label_in_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        Label.parse(text)


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [
        ("secret", "secret", True),
        ("top-secret", "secret", True),
        ("secret", "top-secret", False),
        ("secret", "secret+a", False),
        ("secret+a", "secret", True),
        ("secret+a", "secret+b", False),
        ("top-secret+a", "public+a", True),
        ("top-secret", "public+a", False),
    ],
)
def test_domination_needs_level_and_compartments(high: str, low: str, expected: bool) -> None:
    assert dominates(LEVELS, Label.parse(high), Label.parse(low)) is expected


def test_level_that_is_unknown_is_never_compared() -> None:
    cosmic, secret = Label("cosmic"), Label("secret")
    for left, right in ((cosmic, secret), (secret, cosmic)):
        with pytest.raises(Malformed):
            dominates(LEVELS, left, right)
        with pytest.raises(Malformed):
            join(LEVELS, left, right)
        with pytest.raises(Malformed):
            meet(LEVELS, left, right)


@given(LABELS, LABELS, LABELS)
def test_labels_are_a_lattice(a: Label, b: Label, c: Label) -> None:
    both = join(LEVELS, a, b)
    assert both == join(LEVELS, b, a)
    assert join(LEVELS, a, a) == a
    assert join(LEVELS, both, c) == join(LEVELS, a, join(LEVELS, b, c))
    assert dominates(LEVELS, both, a)
    assert dominates(LEVELS, both, b)
    if dominates(LEVELS, c, a) and dominates(LEVELS, c, b):
        assert dominates(LEVELS, c, both)
    if dominates(LEVELS, a, b) and dominates(LEVELS, b, a):
        assert a == b
    if dominates(LEVELS, a, b) and dominates(LEVELS, b, c):
        assert dominates(LEVELS, a, c)


@given(LABELS, LABELS, LABELS)
def test_the_lower_of_two_labels_is_the_highest_beneath_both(a: Label, b: Label, c: Label) -> None:
    both = meet(LEVELS, a, b)
    assert both == meet(LEVELS, b, a)
    assert dominates(LEVELS, a, both)
    assert dominates(LEVELS, b, both)
    if dominates(LEVELS, a, c) and dominates(LEVELS, b, c):
        assert dominates(LEVELS, both, c)


def test_levels_rank_in_the_policys_order() -> None:
    assert [LEVELS.rank(name) for name in LEVELS.names] == [0, 1, 2, 3, 4]
    for high, low in product(range(5), repeat=2):
        left, right = Label(LEVELS.names[high]), Label(LEVELS.names[low])
        assert dominates(LEVELS, left, right) is (high >= low)
