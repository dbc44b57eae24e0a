"""One client connection as a machine: frames and brokers' answers in, commands out.

    Received      a whole request frame came from the client
    Judging       go on with a request that was too much for one step
    Answered      a broker answered what `Forward` sent
    Failed        it did not: no connection, cut off, or too late
    Expired       the client's certificate has ended, or it was idle for too long

    Forward       send this frame to a node (None: any), answer within `timeout_s`
    Reply         send this frame to the client (None: nothing); its request is done
    Pass          records are forwarded, for the count
    Note          keep the reason of a refusal for whoever was refused
    Close         cut the connection

Replies leave in the order of the requests. A final refusal is an answer, never a
closed socket; what cannot be answered (an unknown API, acks=0 on a protected topic)
closes the connection, behind the answers that are still due. A refused partition
never holds back the others of its request. Pure: time is an argument.
Spec: design section 9.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import TypeAlias, assert_never

from fabric.gateway import answers, requests, wire
from fabric.gateway.apis import Api, served
from fabric.gateway.cluster import Directory
from fabric.gateway.identity import Identity
from fabric.gateway.judge import Judge
from fabric.gateway.produce import Production
from fabric.kafka import broker_answers
from fabric.model.errors import FabricError, PeerError, Reason, UsageError
from fabric.model.limits import REQUEST_S_MAX

_UNSUPPORTED_VERSION = 35
_TRANSACTIONS_REFUSED = 53
_COORDINATOR_AWAY = 15
_LEADER_AWAY = 5


@dataclass(frozen=True, slots=True)
class Received:
    """A request frame, without its length prefix."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Judging:
    """The next part of the request that `is_judging`; no frame may come before its last."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A broker's answer frame to ticket `ticket`."""

    ticket: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Ticket `ticket` will get no answer; whether the broker acted is unknown.

    Attributes:
        is_unsent: it waited, for a connection or its turn, and no broker has seen it.
    """

    ticket: int
    is_unsent: bool = False


@dataclass(frozen=True, slots=True)
class Expired:
    """No further request is to be served."""


Event: TypeAlias = Received | Judging | Answered | Failed | Expired


@dataclass(frozen=True, slots=True)
class Forward:
    """Send `frame` to `node`; the correlation id in it is the sender's to choose."""

    ticket: int
    node: int | None
    frame: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a request of `request_bytes` bytes, with what the client is told."""

    frame: bytes | None
    request_bytes: int
    api: Api
    is_ok: bool


@dataclass(frozen=True, slots=True)
class Pass:
    """So many records of a topic are forwarded."""

    topic: str
    records: int


@dataclass(frozen=True, slots=True)
class Note:
    """A refusal: `digest` is SHA-256 of the record's value, None when there was none."""

    topic: str
    partition: int
    digest: bytes | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Close:
    """Cut the connection; None: it ends in peace."""

    reason: Reason | None


Command: TypeAlias = Forward | Reply | Pass | Note | Close


@dataclass(slots=True)
class _Pending:
    """A request in the queue of replies. `production` is set for Produce alone."""

    api: Api
    head: wire.Head
    request_bytes: int
    key: int = 0
    topics: tuple[str, ...] = ()
    production: Production | None = None
    is_done: bool = False
    is_ok: bool = True
    reply: bytes | None = None


class Connection:
    """The machine of one connection. `step` is its only door.

    Args:
        judge: shared by all connections.
        directory: shared by all connections.
    """

    def __init__(self, identity: Identity, judge: Judge, directory: Directory) -> None:
        self._identity = identity
        self._judge = judge
        self._directory = directory
        self._pending: OrderedDict[int, _Pending] = OrderedDict()
        self._requests = 0
        self._tickets = 0
        self._owners: dict[int, int] = {}
        self._judged: _Pending | None = None
        self._closing: Close | None = None
        self._out: list[Command] = []

    @property
    def in_flight(self) -> int:
        """Requests without a reply."""
        return len(self._pending)

    @property
    def is_judging(self) -> bool:
        """Whether a request needs another `Judging`, after others had their turn."""
        return self._judged is not None

    def stands(self, ticket: int, now: datetime) -> bool:
        """Whether what a ticket sends may be sent, asked anew after it has waited."""
        pending = self._pending.get(self._owners.get(ticket, 0))
        if pending is None or pending.production is None:
            return True
        return pending.production.stands(ticket, self._judge, self._identity, now)

    def step(self, event: Event, now: datetime) -> Sequence[Command]:
        """Take one event; the commands are to be run in their order."""
        match event:
            case Received():
                self._receive(event.frame, now)
            case Judging():
                self._go_on_judging(now)
            case Answered():
                self._answer(event, now)
            case Failed():
                self._fail(event, now)
            case Expired():
                self._closing = self._closing or Close(None)
            case _:
                assert_never(event)
        self._flush()
        out, self._out = self._out, []
        return out

    def _receive(self, frame: bytes, now: datetime) -> None:
        if self._judged is not None:
            raise UsageError(Reason.INTERNAL, "a frame came before the last one was judged")
        if self._closing is not None:
            return  # what came after the end is dropped
        if now >= self._identity.not_after:
            self._closing = Close(None)
            return
        try:
            head = wire.parse_head(frame)
            api = served(head.api, head.version)
            self._begin(api, frame, head, now)
        except PeerError as exc:
            self._cut(exc)

    def _cut(self, exc: PeerError) -> None:
        self._judged = None
        self._out.append(Note("", -1, None, exc.reason))
        self._closing = Close(exc.reason)

    def _begin(self, api: Api, frame: bytes, head: wire.Head, now: datetime) -> None:
        """Read the request first, so that a malformed one never enters the queue."""
        pending = _Pending(api, head, len(frame))
        match api:
            case Api.API_VERSIONS:
                self._finish(pending, self._versions(head))
            case Api.METADATA:
                wanted = requests.read_metadata(frame, head)
                pending.topics = tuple(name for name, _ in wanted.topics or () if name)
                self._forward(pending, None, requests.write_metadata(head, wanted), REQUEST_S_MAX)
            case Api.INIT_PRODUCER_ID:
                if requests.read_transactional_id(frame, head) is not None:
                    error = _TRANSACTIONS_REFUSED
                    answer = answers.write_init_producer_id(
                        head.version, head.correlation, error=error
                    )
                    pending.is_ok = False
                    self._finish(pending, answer)
                else:
                    self._forward(pending, None, frame, REQUEST_S_MAX)
            case Api.PRODUCE:
                self._begin_produce(pending, requests.read_produce(frame, head), frame, now=now)
            case Api.FETCH:
                raise PeerError(Reason.API_REFUSED, "reading is not served here")
            case _:
                assert_never(api)

    def _versions(self, head: wire.Head) -> bytes:
        spans = self._directory.spans
        if head.version > spans[Api.API_VERSIONS][1] or head.version < 0:
            only = {Api.API_VERSIONS: spans[Api.API_VERSIONS]}
            return answers.write_api_versions(
                0, head.correlation, spans=only, error=_UNSUPPORTED_VERSION
            )
        return answers.write_api_versions(head.version, head.correlation, spans=spans)

    def _begin_produce(
        self, pending: _Pending, request: requests.Produce, frame: bytes, *, now: datetime
    ) -> None:
        pending.production = Production(pending.head, request, frame, now=now)
        self._judged = pending
        self._judge_some(pending, pending.production, now)

    def _go_on_judging(self, now: datetime) -> None:
        pending = self._judged
        if pending is None or pending.production is None:
            return
        try:
            self._judge_some(pending, pending.production, now)
        except PeerError as exc:
            self._cut(exc)

    def _judge_some(self, pending: _Pending, production: Production, now: datetime) -> None:
        """Judge on; behind the last verdict the request takes its place in the queue."""
        if not production.judge(self._judge, self._identity, now):
            return
        self._judged = None
        self._note(production)
        if production.is_silent and production.must_not_be_silent(self._judge):
            raise PeerError(Reason.API_REFUSED, "acks=0 leaves no way to say what was refused")
        self._enqueue(pending)
        self._go_on(now)

    def _note(self, production: Production) -> None:
        for part, refused in production.refusals():
            for digest in refused.notes or (None,):
                self._out.append(Note(part.topic, part.partition, digest, refused.reason))

    def _go_on(self, now: datetime) -> None:
        """Send what can be sent of the Produce requests, in their order, and finish them."""
        for pending in self._pending.values():
            production = pending.production
            if production is None or pending.is_done:
                continue
            production.confirm(self._judge, self._identity, now)
            self._note(production)
            shipments = production.shipments(self._directory, self._judge.replays)
            for topic, count in chain.from_iterable(map(production.records, shipments)):
                self._out.append(Pass(topic, count))
            for shipment in shipments:
                ticket = self._ticket(pending)
                production.sent(ticket, shipment)
                left = production.time_left(now)
                self._out.append(Forward(ticket, shipment.node, shipment.frame, left))
            if production.is_complete:
                pending.is_done, pending.reply = True, production.answer()
                pending.is_ok = not production.has_failed
                if production.must_close:
                    self._closing = self._closing or Close(Reason.BROKER_UNAVAILABLE)
            if production.is_asking:
                return

    def _forward(self, pending: _Pending, node: int | None, frame: bytes, timeout_s: float) -> None:
        self._enqueue(pending)
        self._out.append(Forward(self._ticket(pending), node, frame, timeout_s))

    def _finish(self, pending: _Pending, reply: bytes) -> None:
        self._enqueue(pending)
        pending.is_done, pending.reply = True, reply

    def _enqueue(self, pending: _Pending) -> None:
        self._requests += 1
        pending.key = self._requests
        self._pending[pending.key] = pending

    def _ticket(self, pending: _Pending) -> int:
        self._tickets += 1
        self._owners[self._tickets] = pending.key
        return self._tickets

    def _owner(self, ticket: int) -> _Pending | None:
        return self._pending.get(self._owners.pop(ticket, 0))

    def _answer(self, event: Answered, now: datetime) -> None:
        pending = self._owner(event.ticket)
        if pending is None:
            return
        try:
            if pending.production is not None:
                pending.production.answered(event.ticket, event.frame, self._directory)
                pending.production.remember(self._judge.replays)
                self._go_on(now)
            else:
                pending.is_done, pending.reply = True, self._pass_on(pending.head, event.frame)
        except FabricError:  # a broker's answer that does not decode is as good as none
            self._give_up(pending, event.ticket, now)

    def _pass_on(self, head: wire.Head, frame: bytes) -> bytes:
        if head.api != Api.METADATA:
            return head.correlation.to_bytes(4, signed=True) + frame[4:]
        said = broker_answers.read_metadata(head.version, frame)
        self._directory.learn(said.cluster)
        nodes = self._directory.shown(self._identity.name)
        return answers.rewrite_metadata(head.version, head.correlation, said=said, nodes=nodes)

    def _fail(self, event: Failed, now: datetime) -> None:
        pending = self._owner(event.ticket)
        if pending is None:
            return
        if event.is_unsent and pending.production is not None:
            pending.production.unsent(event.ticket, self._judge, self._identity, now)
            self._note(pending.production)
            self._go_on(now)
        else:
            self._give_up(pending, event.ticket, now)

    def _give_up(self, pending: _Pending, ticket: int, now: datetime) -> None:
        """Answer with a retriable error; without any node to show, let the client come again."""
        head = pending.head
        if pending.production is not None:
            pending.production.failed(ticket, self._judge.replays)
            self._go_on(now)
            return
        if head.api == Api.INIT_PRODUCER_ID:
            pending.reply = answers.write_init_producer_id(
                head.version, head.correlation, error=_COORDINATOR_AWAY
            )
        elif nodes := self._directory.shown(self._identity.name):
            topics = pending.topics
            pending.reply = answers.write_metadata(
                head.version, head.correlation, nodes=nodes, topics=topics, error=_LEADER_AWAY
            )
        else:
            self._closing = self._closing or Close(Reason.BROKER_UNAVAILABLE)
        pending.is_done, pending.is_ok = True, False

    def _flush(self) -> None:
        while self._pending:
            key, pending = next(iter(self._pending.items()))
            if not pending.is_done:
                return
            del self._pending[key]
            self._out.append(
                Reply(pending.reply, pending.request_bytes, pending.api, pending.is_ok)
            )
        if self._closing is not None:
            self._out.append(self._closing)
