"""Which heads a host tells with its quote: each is carried by the next result, as an anchor."""

from collections.abc import Iterable, Sequence

from fabric.model.limits import HEADS_SPARE, RESULT_HEADS_MAX
from fabric.model.names import HostId, Topic
from fabric.policy.decide import is_stream_of
from fabric.policy.types import Policy
from fabric.store.state import StateFile


class Told:
    """Takes every stream in turn, where there are more than one result carries."""

    def __init__(self) -> None:
        self._first = 0
        self._first_left = 0

    def next(
        self, state: StateFile, topics: Iterable[Topic], policy: Policy, me: HostId
    ) -> tuple[bytes, ...]:
        """Hashes of last acknowledged envelopes, at most RESULT_HEADS_MAX; reads the state file.

        Those of streams that the policy does not name any more come last: the authority takes
        HEADS_SPARE of them, so that many have their turn at one renewal after the other. Where
        the others leave no room, they take turns with them.
        """
        live: list[bytes] = []
        left: list[bytes] = []
        for topic in sorted(topics, key=str):
            for stream, item in state.heads(topic).items():
                if item.head is not None:
                    (live if is_stream_of(policy, me, stream) else left).append(item.head.hash)
        room = RESULT_HEADS_MAX - len(live)
        if room > 0:
            told = (*live, *_turn(left, self._first_left)[:room])
            self._first_left += min(room, HEADS_SPARE)
            return told
        # The authority takes them all: the host has as many streams as a result has heads.
        told = _turn([*live, *left], self._first)[:RESULT_HEADS_MAX]
        self._first += RESULT_HEADS_MAX
        return told


def _turn(heads: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """All of them, from number `first` on and round to it."""
    first = first % len(heads) if heads else 0
    return (*heads[first:], *heads[:first])
