"""Zero says that nothing waits, and nothing else is zero."""

import pytest

from fabric.database.source_figures import age_s, rows_in_all


@pytest.mark.parametrize(("commit_us", "wanted_s"), [(None, 0), (3_000_000, 2), (4_500_000, 0.5)])
def test_the_age_is_that_of_the_commit(commit_us: int | None, wanted_s: float) -> None:
    assert age_s(commit_us, 5_000_000) == wanted_s


@pytest.mark.parametrize("ahead_us", [0, 1, 60_000_000])
def test_what_waits_has_an_age_whatever_the_clocks_say(ahead_us: int) -> None:
    assert age_s(5_000_000 + ahead_us, 5_000_000) > 0


@pytest.mark.parametrize(("read", "counted"), [(0, 0), (7, 0), (7, 7), (9, 7), (5, 7)])
def test_rows_are_left_until_the_last_snapshot_is_over_and_none_then(
    read: int, counted: int
) -> None:
    assert rows_in_all(read, counted, is_over=False) >= max(counted, read + 1)
    assert rows_in_all(read, counted, is_over=True) == read
