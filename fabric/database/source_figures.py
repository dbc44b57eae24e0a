"""Figures of a source: zero says that nothing waits, and nothing else may be zero. Pure."""

AGE_S_MIN = 0.001
"""What waits has an age, also by a clock that is behind the one that stamped it."""


def age_s(commit_us: int | None, now_us: int) -> float:
    """Age of the oldest commit that waits, seconds; 0 only for None, when there is none."""
    return 0.0 if commit_us is None else max(AGE_S_MIN, (now_us - commit_us) / 1e6)


def rows_in_all(read: int, counted: int, *, is_over: bool) -> int:
    """Rows of all snapshots: as many as were read only once none has any left.

    Args:
        counted: rows as they were counted, or guessed, when the snapshots began; after a
            restart, or while one is yet to begin, they are fewer than there are.
    """
    return read if is_over else max(counted, read + 1)
