"""The verdict on one partition of a Produce request: batch checks, admission, replay memory.

Pure: what it knows is put in by the shell (view, readiness) and grown by its own
verdicts (replays). Denies by default: no view, no verdict.
Spec: design section 9.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TypeAlias

from fabric.admit import door
from fabric.admit.view import Place, View
from fabric.admit.writer import check_again, check_writer
from fabric.gateway import wire
from fabric.gateway.identity import Identity
from fabric.gateway.producers import Producers
from fabric.gateway.replay import Mark, Replays
from fabric.gateway.requests import Part
from fabric.gateway.wire import RawRecord
from fabric.model.errors import DeniedError, Malformed, PeerError, Reason
from fabric.model.limits import SIGNED_RECORDS_MAX
from fabric.model.names import HostId
from fabric.seal.verify import VerifiedEnvelope

_CONTENT_TYPE = (b"content-type", b"application/fabric-envelope")
_NOTES_MAX = 8
"""Records of a batch refused as a whole whose reason the refusal log keeps."""
_NAMED_MAX = 100
"""Bad records of a batch that an answer names; none of the batch is stored anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Forward it: `records` records; `marks` are its envelopes' places in their chains."""

    records: int
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Exactly this is stored already, at `offset`: say so again."""

    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Not to be stored.

    Attributes:
        bad: indexes in the batch of the records at fault; empty: the batch itself.
        notes: SHA-256 of record values that the refusal log keeps the reason for.
    """

    reason: Reason
    message: str
    bad: tuple[int, ...] = ()
    notes: tuple[bytes, ...] = ()


Verdict: TypeAlias = Admitted | Repeated | Refused


class Judge:
    """Judges partitions; shared by all connections of a gateway.

    Attributes:
        view: policy and members, or None before the first policy.
        is_caught_up: says whether the control topics were read to their end and still are.
    """

    def __init__(self, replays: Replays, *, heartbeat_interval_s: float) -> None:
        self.view: View | None = None
        self.is_caught_up: Callable[[], bool] = lambda: False
        self.replays = replays
        self._producers = Producers()
        self._interval_s = heartbeat_interval_s

    def judge(self, part: Part, identity: Identity, now: datetime) -> Verdict:
        """The verdict; an admitted batch counts as sent from here on."""
        try:
            view = self._ready_view(part.topic, now)
            place = Place(part.topic, part.partition)
            check_writer(place, view, identity=identity.name, host=identity.host, now=now)
            batch = _batch(part)
            records = _records(batch, part.topic, view)
            self._producers.use(identity.name, place, batch.producer_id, now)
        except (PeerError, DeniedError) as exc:
            return Refused(reason=exc.reason, message=_text(exc), notes=_notes(part))
        try:
            return self._judge_records(records, place, view, identity=identity, now=now)
        except (PeerError, DeniedError) as exc:  # said of the batch as a whole
            return _refused(exc, records, bad=())

    def confirm(self, part: Part, identity: Identity, now: datetime) -> Refused | None:
        """Ask again before an admitted partition is sent: time has passed since its verdict.

        Returns:
            None when the verdict stands.
        """
        try:
            view = self._ready_view(part.topic, now)
            place = Place(part.topic, part.partition)
            check_again(place, view, identity=identity.name, host=identity.host, now=now)
        except (PeerError, DeniedError) as exc:
            return Refused(reason=exc.reason, message=_text(exc), notes=_notes(part))
        return None

    def _ready_view(self, topic: str, now: datetime) -> View:
        """The view, when it is fresh enough for `topic`; raises DeniedError of class wait."""
        if self.view is None:
            raise DeniedError(Reason.NOT_READY, "gateway has no policy yet")
        if door.is_authoritys(topic):  # judged by signature alone, or nothing could start
            return self.view
        if not self.is_caught_up():
            raise DeniedError(Reason.NOT_READY, "gateway still reads the control topics")
        self.view.members.check_fresh(now, self._interval_s)
        return self.view

    def _judge_records(
        self,
        records: tuple[RawRecord, ...],
        place: Place,
        view: View,
        *,
        identity: Identity,
        now: datetime,
    ) -> Verdict:
        if identity.host is None or door.is_control(place.topic):
            return _control(records, place.topic, view, identity=identity, now=now)
        if door.is_sealed(view.policy, place.topic):
            return self._sealed(records, place, view, host=identity.host, now=now)
        return _open(records, place, view, host=identity.host, now=now)

    def _sealed(
        self,
        records: tuple[RawRecord, ...],
        place: Place,
        view: View,
        *,
        host: HostId,
        now: datetime,
    ) -> Verdict:
        verified: list[VerifiedEnvelope] = []
        marks: list[Mark] = []
        for index, record in enumerate(records):
            try:
                value = _bare_value(record)
                found = door.authenticate(value, place, view, identity=host, now=now)
            except (PeerError, DeniedError) as exc:
                return _refused(exc, records, bad=(index,))
            verified.append(found)
            marks.append(_mark(found))
        # Replays first: what is stored already must not be called too old.
        known = self.replays.check(marks)
        if known is not None:
            return Repeated(offset=known.offset)
        for index, found in enumerate(verified):
            try:
                door.permit(found, view, now=now)
            except (PeerError, DeniedError) as exc:
                return _refused(exc, records, bad=(index,))
        self.replays.sent(marks)
        return Admitted(records=len(marks), marks=tuple(marks))


def _records(batch: wire.Batch, topic: str, view: View) -> tuple[RawRecord, ...]:
    """The records of a batch that its topic can take at all."""
    is_signed = door.is_control(topic) or door.is_sealed(view.policy, topic)
    if door.is_control(topic) and batch.producer_id != wire.NO_PRODUCER:
        # Ours set none, and every other costs the topic's leader an entry for a day.
        raise PeerError(Reason.API_REFUSED, "control topics take no idempotent producers")
    if is_signed and batch.codec != wire.CODEC_NONE:
        raise Malformed("topic takes no compressed batches")
    if is_signed and batch.count > SIGNED_RECORDS_MAX:
        raise DeniedError(Reason.TOO_LARGE, "too many signed records in one batch")
    return wire.records_of(batch)


def _batch(part: Part) -> wire.Batch:
    if part.records is None:
        raise Malformed("partition has no records")
    batch = wire.parse_batch(part.records)
    if batch.is_control or batch.is_transactional:
        raise PeerError(Reason.API_REFUSED, "control and transactional batches are not served")
    return batch


def _control(
    records: tuple[RawRecord, ...], topic: str, view: View, *, identity: Identity, now: datetime
) -> Verdict:
    for index, record in enumerate(records):
        try:
            if record.value is None or record.headers:
                raise Malformed("control record has no value, or headers")
            door.admit_control(
                record.key, record.value, topic, view, identity=identity.name, now=now
            )
        except (PeerError, DeniedError) as exc:
            return _refused(exc, records, bad=(index,))
    return Admitted(records=len(records))


def _open(
    records: tuple[RawRecord, ...], place: Place, view: View, *, host: HostId, now: datetime
) -> Verdict:
    terms = door.open_terms(place, view, identity=host, now=now)
    bad: list[int] = []
    first: PeerError | DeniedError | None = None
    for index, record in enumerate(records):
        try:
            if record.value is None:
                raise Malformed("record has no value")
            terms.check(record.value)
        except (PeerError, DeniedError) as exc:
            first = first or exc
            bad.append(index)
            if len(bad) == _NAMED_MAX:
                break
    if first is not None:
        return _refused(first, records, bad=tuple(bad))
    return Admitted(records=len(records))


def _bare_value(record: RawRecord) -> bytes:
    """An envelope's bytes: nothing may stand beside it in the clear."""
    if record.value is None:
        raise PeerError(Reason.NOT_SEALED, "record has no value")
    if record.headers not in ((), (_CONTENT_TYPE,)):
        raise Malformed("sealed record has other headers than its content type")
    if record.key is not None:
        raise Malformed("sealed record has a key")
    return record.value


def _mark(verified: VerifiedEnvelope) -> Mark:
    header = verified.envelope.header
    key = (header.sender, header.epoch_id, header.partition)
    return Mark(key, header.counter, verified.envelope.hash)


def _refused(
    exc: PeerError | DeniedError, records: tuple[RawRecord, ...], *, bad: tuple[int, ...]
) -> Refused:
    named = [records[index] for index in bad] or records
    notes = tuple(sha256(r.value).digest() for r in named[:_NOTES_MAX] if r.value is not None)
    return Refused(reason=exc.reason, message=_text(exc), bad=bad, notes=notes)


def _notes(part: Part) -> tuple[bytes, ...]:
    """Digests of the first records of a batch that was refused before they were looked at.

    Whoever may not write could make anything else of this expensive.
    """
    try:
        records = wire.first_records(_batch(part), _NOTES_MAX)
    except PeerError:
        return ()
    return tuple(sha256(r.value).digest() for r in records if r.value is not None)


def _text(exc: PeerError | DeniedError) -> str:
    return f"gateway: {exc}"
