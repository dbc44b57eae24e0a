"""fabric.database.postgresql_lag"""

from fabric.database.postgresql_lag import Lag

S = 1_000_000


def test_an_idle_source_has_no_lag() -> None:
    assert Lag().seconds(5 * S) == 0


def test_lag_is_the_age_of_the_oldest_open_commit() -> None:
    lag = Lag()
    lag.committed(10, 1 * S)
    lag.committed(11, 1 * S + 5)
    lag.committed(20, 3 * S)
    assert lag.seconds(5 * S) == 4
    lag.released(10)
    assert lag.seconds(5 * S) == 2
    lag.released(20)
    assert lag.seconds(5 * S) == 0


def test_a_commit_that_shared_an_entry_still_counts_after_the_release_of_the_first() -> None:
    lag = Lag()
    lag.committed(10, 1 * S)
    lag.committed(11, 1 * S + 5)
    lag.released(10)
    assert lag.seconds(2 * S) > 0.9
    lag.released(11)
    assert lag.seconds(2 * S) == 0
