"""How old what is not applied may be: a bound for each partition. Pure; times are Unix seconds.

What is unapplied was committed after the last applied change, or came after the target was
last seen level with the log: up to the later of the two everything was reached.
"""

from dataclasses import dataclass, field

from fabric.model.names import Topic

Place = tuple[Topic, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What is known of the first record that is not applied.

    Attributes:
        appended: when the log took it; None while it has not come.
        committed: when its first change that is new was committed; None while it is not
            opened.
    """

    appended: float | None = None
    committed: float | None = None


UNKNOWN = Behind()


@dataclass(slots=True)
class Reached:
    """Up to when each partition's changes are in the target."""

    _at: dict[Place, float] = field(default_factory=dict)

    def reach(self, place: Place, at: float) -> None:
        """Everything committed up to `at` is in the target."""
        self._at[place] = max(at, self._at.get(place, 0.0))

    def forget(self, place: Place) -> None:
        """Nobody reads a partition any more."""
        self._at.pop(place, None)

    def since(self, place: Place, behind: Behind) -> float | None:
        """Since when the oldest unapplied change may wait; None: nobody knows.

        After a start nothing was reached yet: then the log's word on its record is all there
        is. A change that was long on its way was committed before the target was level.
        """
        reached = self._at.get(place, behind.appended)
        known = [at for at in (reached, behind.committed) if at is not None]
        return min(known, default=None)
