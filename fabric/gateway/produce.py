"""One Produce request on its way: verdicts, what goes to which broker, the merged answer.

    judge     verdicts for some partitions, all of them before anything is sent
    confirm   whether they still stand, asked right before anything is sent
    shipments what is to be sent next: admitted partitions by leader, or the question
              who leads them
    stands    whether a shipment may still go that had to wait; unsent: it was never written
    answered  what a broker said; failed: it said nothing
    answer    once every partition has an outcome

Pure. Spec: design section 9; notes on Produce 3..12.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias, assert_never

from fabric.admit import door
from fabric.gateway import answers, requests, wire
from fabric.gateway.cluster import Directory
from fabric.gateway.identity import Identity
from fabric.gateway.judge import Admitted, Judge, Refused, Repeated, Verdict
from fabric.gateway.replay import Mark, Replays
from fabric.gateway.requests import Part
from fabric.kafka import broker_answers
from fabric.kafka.broker_answers import PartAnswer
from fabric.model.errors import DeniedError, Malformed, ReasonClass, class_of
from fabric.model.limits import JUDGED_BYTES_MIN, REQUEST_S_MAX

_Place: TypeAlias = tuple[str, int]

_REQUEST_TIMED_OUT = 7
_POLICY_VIOLATION = 44
_INVALID_RECORD = 87
_INVALID_ACKS = 21
_TRANSACTIONS_REFUSED = 53
_LEADER_AWAY = 5
_NOT_THE_LEADER = frozenset({3, 5, 6})
"""Errors after which who leads a partition must be asked anew."""
_NOT_STORED = frozenset({2, 10, 18, 44, 87})
"""Errors after which nothing of a batch is in the log: corrupt, too large, invalid."""
_RECORD_ERRORS_FROM = 8
_ACKS = frozenset({-1, 0, 1})


class Shipment(NamedTuple):
    """A frame for a node, and the partitions it is for; `node` None: the question who leads."""

    node: int | None
    places: tuple[_Place, ...]
    frame: bytes


class Production:
    """The state of one Produce request."""

    def __init__(
        self, head: wire.Head, request: requests.Produce, frame: bytes, *, now: datetime
    ) -> None:
        self._head = head
        self._request = request
        self._frame = frame
        timeout_s = min(max(request.timeout_ms, 0) / 1000, REQUEST_S_MAX)
        self._deadline = now + timedelta(seconds=timeout_s)
        self._waiting: dict[_Place, Part] = {}
        self._marks: dict[_Place, tuple[Mark, ...]] = {}
        self._done: dict[_Place, PartAnswer] = {}
        self._refused: list[tuple[Part, Refused]] = []
        self._records: dict[_Place, int] = {}
        self._sent: dict[int, Shipment] = {}
        self._judged = 0
        self._has_asked = False
        self._throttle_ms = 0

    def judge(self, judge: Judge, identity: Identity, now: datetime) -> bool:
        """Reach a verdict on the next partitions, until they are of some size.

        Returns:
            Whether every partition has its verdict.
        """
        error, size, parts = self._refused_whole(now), 0, self._request.parts
        while self._judged < len(parts) and size < JUDGED_BYTES_MIN:
            part = parts[self._judged]
            self._judged += 1
            if error:
                self._settle((part.topic, part.partition), error)
            else:
                size += len(part.records or b"")
                self._take(part, judge.judge(part, identity, now))
        return self._judged == len(parts)

    def _take(self, part: Part, verdict: Verdict) -> None:
        place = (part.topic, part.partition)
        match verdict:
            case Admitted():
                self._waiting[place] = part
                self._records[place] = verdict.records
                self._marks[place] = verdict.marks
            case Repeated():
                self._done[place] = PartAnswer(
                    topic=part.topic, partition=place[1], base_offset=verdict.offset
                )
            case Refused():
                self._refuse(part, verdict)
            case _:
                assert_never(verdict)

    def _refuse(self, part: Part, refused: Refused) -> None:
        self._refused.append((part, refused))
        self._done[part.topic, part.partition] = self._refusal(part, refused)

    def confirm(self, judge: Judge, identity: Identity, now: datetime) -> None:
        """Take back, before anything is sent, what may not be sent any more.

        Between a verdict and the sending the request's other partitions are judged,
        leaders asked for, and earlier requests waited for: a host may be revoked meanwhile.
        """
        if self._sent:
            return
        for place, part in list(self._waiting.items()):
            if now > self._deadline:
                self._settle(place, _REQUEST_TIMED_OUT)
            elif (refused := judge.confirm(part, identity, now)) is not None:
                del self._waiting[place]
                self._refuse(part, refused)
            else:
                continue
            judge.replays.forget(self._marks.pop(place, ()))

    def _refused_whole(self, now: datetime) -> int:
        if now > self._deadline:
            return _REQUEST_TIMED_OUT  # the client has given up: why judge on?
        if self._request.transactional_id is not None:
            return _TRANSACTIONS_REFUSED
        return 0 if self._request.acks in _ACKS else _INVALID_ACKS

    def _refusal(self, part: Part, refused: Refused) -> PartAnswer:
        """Final refusals are never retriable, and what may pass later always is."""
        if class_of(refused.reason) is ReasonClass.WAIT:
            error = _REQUEST_TIMED_OUT
        elif self._head.version >= _RECORD_ERRORS_FROM:
            error = _INVALID_RECORD
        else:
            error = _POLICY_VIOLATION  # older clients do not know INVALID_RECORD
        return PartAnswer(
            topic=part.topic,
            partition=part.partition,
            error=error,
            record_errors=tuple((index, None) for index in refused.bad),
            message=refused.message,
        )

    def refusals(self) -> Sequence[tuple[Part, Refused]]:
        """What was refused since the last call, with its verdict."""
        refused, self._refused = self._refused, []
        return refused

    def records(self, shipment: Shipment) -> Sequence[tuple[str, int]]:
        """Topic and number of records of each partition that a shipment carries."""
        if shipment.node is None:
            return ()
        return [(place[0], self._records[place]) for place in shipment.places]

    def must_not_be_silent(self, judge: Judge) -> bool:
        """Whether acks=0 cannot be served: something was refused, or its topic is protected."""
        if self.has_failed or judge.view is None:
            return True
        try:
            return any(
                door.is_control(topic) or door.is_sealed(judge.view.policy, topic)
                for topic, _ in self._waiting
            )
        except DeniedError:
            return True

    def shipments(self, directory: Directory, replays: Replays) -> list[Shipment]:
        """What to send now; tell `sent` the ticket of each. Empty while answers are due.

        What has no leader is given up, and its marks with it: nobody was sent it.
        """
        if self._sent or not self._waiting:
            return []
        by_node: dict[int | None, list[_Place]] = {}
        for place in self._waiting:
            by_node.setdefault(directory.leader(*place), []).append(place)
        unknown = by_node.pop(None, [])
        if unknown and not self._has_asked:
            # The whole request waits, so that its partitions go out in one order.
            self._has_asked = True
            question = requests.ask_metadata(sorted({topic for topic, _ in unknown}))
            return [Shipment(None, tuple(unknown), question)]
        for place in unknown:
            self._settle(place, _LEADER_AWAY)
            replays.forget(self._marks.pop(place, ()))
        return [
            Shipment(node, tuple(places), self._frame_for(places))
            for node, places in by_node.items()
        ]

    def sent(self, ticket: int, shipment: Shipment) -> None:
        """Note under which ticket a shipment went out."""
        self._sent[ticket] = shipment

    @property
    def is_asking(self) -> bool:
        """Whether the answer who leads is still due: later requests must not overtake."""
        return any(shipment.node is None for shipment in self._sent.values())

    def _settle(self, place: _Place, error: int) -> None:
        self._waiting.pop(place, None)
        self._done[place] = PartAnswer(topic=place[0], partition=place[1], error=error)

    def _frame_for(self, places: Sequence[_Place]) -> bytes:
        request = self._request
        acks = request.acks or 1  # the gateway wants an answer even where the client does not
        if len(places) == len(request.parts) and acks == request.acks:
            return self._frame
        parts = tuple(self._waiting[place] for place in places)
        return requests.write_produce(
            self._head,
            requests.Produce(
                transactional_id=None, acks=acks, timeout_ms=request.timeout_ms, parts=parts
            ),
        )

    def answered(self, ticket: int, frame: bytes, directory: Directory) -> None:
        """Take a broker's answer in; raises Malformed when it is none to what was sent."""
        sent = self._sent[ticket]
        if sent.node is None:
            said = broker_answers.read_metadata(requests.OWN_METADATA_VERSION, frame)
            directory.learn(said.cluster)
            del self._sent[ticket]
            return
        parts, throttle_ms = broker_answers.read_produce(self._head.version, frame)
        found = {(part.topic, part.partition): part for part in parts}
        if found.keys() != set(sent.places):
            raise Malformed("broker's answer is for other partitions")
        del self._sent[ticket]
        self._throttle_ms = max(self._throttle_ms, throttle_ms)
        for place, part in found.items():
            del self._waiting[place]
            self._done[place] = part
            if part.error in _NOT_THE_LEADER:
                directory.forget(*place)

    def stands(self, ticket: int, judge: Judge, identity: Identity, now: datetime) -> bool:
        """Whether every partition of a shipment may still be sent."""
        places = self._sent[ticket].places
        return all(judge.confirm(self._waiting[it], identity, now) is None for it in places)

    def unsent(self, ticket: int, judge: Judge, identity: Identity, now: datetime) -> None:
        """Take back a shipment that no broker has seen: what may not be sent is refused.

        The rest of it is to come again: sent anew it would come behind what waited after it.
        """
        for place in self._sent.pop(ticket).places:
            part = self._waiting[place]
            if (refused := judge.confirm(part, identity, now)) is None:
                self._settle(place, _REQUEST_TIMED_OUT)
            else:
                del self._waiting[place]
                self._refuse(part, refused)
            judge.replays.forget(self._marks.pop(place, ()))

    def failed(self, ticket: int, replays: Replays) -> None:
        """No answer came; whether the broker stored anything is unknown.

        Of the question who leads it is known: what it was asked for waited for the answer.
        """
        shipment = self._sent.pop(ticket)
        for place in shipment.places:
            self._settle(place, _REQUEST_TIMED_OUT)
            if shipment.node is None:
                replays.forget(self._marks.pop(place, ()))

    def remember(self, replays: Replays) -> None:
        """Tell the replay memory what is stored, and what cannot be."""
        for place, marks in list(self._marks.items()):
            answer = self._done.get(place)
            if answer is not None:
                del self._marks[place]
                if answer.error == 0 and marks:
                    replays.stored(marks, answer.base_offset)
                elif answer.error in _NOT_STORED:
                    replays.refused(marks)

    def time_left(self, now: datetime) -> float:
        """Seconds in which an answer is of use to the client; a little at least."""
        return max((self._deadline - now).total_seconds(), 0.001)

    @property
    def has_failed(self) -> bool:
        """Whether any partition has an error so far."""
        return any(answer.error for answer in self._done.values())

    @property
    def is_silent(self) -> bool:
        """Whether the client waits for no answer."""
        return self._request.acks == 0

    @property
    def must_close(self) -> bool:
        """Whether something failed that acks=0 leaves no other way to tell."""
        return self.is_silent and self.has_failed

    @property
    def is_complete(self) -> bool:
        """Whether every partition has an outcome."""
        return len(self._done) == len(self._request.parts)

    def answer(self) -> bytes | None:
        """The answer to the client, its partitions in the request's order; None for acks=0."""
        if self.is_silent:
            return None
        parts = [self._done[part.topic, part.partition] for part in self._request.parts]
        return answers.write_produce(
            self._head.version, self._head.correlation, parts=parts, throttle_ms=self._throttle_ms
        )
