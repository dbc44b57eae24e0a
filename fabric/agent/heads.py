"""Which heads a host tells with its quote: each is carried by the next result, as an anchor."""

from collections.abc import Iterable

from fabric.model.limits import RESULT_HEADS_MAX
from fabric.model.names import HostId, Topic
from fabric.policy.decide import is_stream_of
from fabric.policy.types import Policy
from fabric.store.state import StateFile


class Told:
    """Takes every stream in turn, where there are more than one result carries."""

    def __init__(self) -> None:
        self._first = 0

    def next(
        self, state: StateFile, topics: Iterable[Topic], policy: Policy, me: HostId
    ) -> tuple[bytes, ...]:
        """Hashes of last acknowledged envelopes, at most RESULT_HEADS_MAX; reads the state file.

        Those of streams that the policy does not name any more come last: the authority takes
        few of them.
        """
        live: list[bytes] = []
        left: list[bytes] = []
        for topic in sorted(topics, key=str):
            for stream, item in state.heads(topic).items():
                if item.head is not None:
                    (live if is_stream_of(policy, me, stream) else left).append(item.head.hash)
        if len(live) <= RESULT_HEADS_MAX:
            return tuple([*live, *left][:RESULT_HEADS_MAX])
        first = self._first % len(live)
        self._first += RESULT_HEADS_MAX
        return tuple([*live[first:], *live[:first]][:RESULT_HEADS_MAX])
