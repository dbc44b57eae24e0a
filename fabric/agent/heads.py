"""Which heads a host tells with its quote: each is carried by the next result, as an anchor."""

from collections.abc import Iterable

from fabric.model.limits import RESULT_HEADS_MAX
from fabric.model.names import Topic
from fabric.store.state import StateFile


class Told:
    """Takes every stream in turn, where there are more than one result carries."""

    def __init__(self) -> None:
        self._first = 0

    def next(self, state: StateFile, topics: Iterable[Topic]) -> tuple[bytes, ...]:
        """Hashes of last acknowledged envelopes, at most RESULT_HEADS_MAX; reads the state file."""
        found = [
            item.head.hash
            for topic in sorted(topics, key=str)
            for item in state.heads(topic).values()
            if item.head is not None
        ]
        if len(found) <= RESULT_HEADS_MAX:
            return tuple(found)
        first = self._first % len(found)
        self._first += RESULT_HEADS_MAX
        return tuple([*found[first:], *found[:first]][:RESULT_HEADS_MAX])
