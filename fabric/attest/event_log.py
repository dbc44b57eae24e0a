"""A host's boot, event by event: read a TCG crypto-agile log, replay it, hold it against rules.

A log proves nothing by itself. It is the host's account of why its PCRs have their
values: it counts only once its replay gives exactly the quoted values. Even then the
digests are proved and the types are not, so every event of a PCR that rules own must be
of a known type, listed with its digest, in the listed order; what a type defines over its
data is checked. Pure, bounded, no recursion; any bytes give a log or a PeerError.
Spec: docs/format.md section 9.3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fabric.attest.evidence import ALG_SHA256
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.model.limits import EVENT_LOG_BYTES_MAX, EVENT_LOG_EVENTS_MAX
from fabric.policy.event_types import EV_NO_ACTION, EV_SEPARATOR, EVENT_TYPES
from fabric.policy.types import EventStep, PcrRule

_DIGEST_BYTES = 32
_ALGORITHMS_MAX = 8
_ALGORITHM_BYTES_MAX = 64
_PCR_MAX = 23
_SHA1_BYTES = 20
_SPEC_ID = b"Spec ID Event03\0"
_STARTUP_LOCALITY = b"StartupLocality\0"
_LOCALITIES = (0, 3, 4)
_DRTM_PCRS = range(17, 23)
"""All ones until a dynamic launch."""
_FIRMWARE_PCRS = range(8)
_SEPARATORS = (bytes(4), b"\xff" * 4)  # 00000001 stands for an error of the firmware
_TYPE = EVENT_TYPES
_KNOWN = frozenset(EVENT_TYPES.values())
_OVER_DATA = frozenset(
    _TYPE[name]
    for name in (
        *("EV_SEPARATOR", "EV_S_CRTM_VERSION", "EV_ACTION", "EV_EFI_ACTION"),
        *("EV_EFI_VARIABLE_DRIVER_CONFIG", "EV_EFI_VARIABLE_AUTHORITY", "EV_EFI_GPT_EVENT"),
    )
)
"""Types whose digest the profile defines over exactly the event's data."""
_AFTER_SEPARATOR: Mapping[int, frozenset[int]] = {
    4: frozenset({_TYPE["EV_EFI_BOOT_SERVICES_APPLICATION"], _TYPE["EV_EFI_ACTION"]}),
    5: frozenset({_TYPE["EV_EFI_GPT_EVENT"], _TYPE["EV_EFI_GPT_EVENT2"], _TYPE["EV_EFI_ACTION"]}),
    7: frozenset({_TYPE["EV_EFI_VARIABLE_AUTHORITY"]}),
}
"""What may follow the separator of a firmware PCR: nothing, but what loads the system."""
_NAMES = {number: name for name, number in EVENT_TYPES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One measurement: what was extended into a PCR, and what is said of it.

    Attributes:
        digest: SHA-256, as extended.
        data: what the type says it is; proved only where the digest is over it.
    """

    pcr: int
    type: int
    digest: bytes
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A log that parses.

    Attributes:
        events: what was extended, in order; EV_NO_ACTION events are left out.
        locality: from which the TPM was started: PCR 0 begins with it.
    """

    events: tuple[Event, ...]
    locality: int

    def of(self, pcr: int) -> tuple[Event, ...]:
        """The events of one PCR."""
        return tuple(event for event in self.events if event.pcr == pcr)


class _Reader:
    """Cuts little-endian fields off the front; raises Malformed at the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise Malformed("event log ends too early")
        self._at, start = end, self._at
        return self._data[start:end]

    def uint(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    @property
    def is_at_end(self) -> bool:
        return self._at == len(self._data)


def parse(data: bytes) -> EventLog:
    """Read a whole log in the crypto-agile form, with its SHA-256 digests.

    Raises:
        Malformed: too long, too many events, another form, or not whole to the byte.
    """
    if len(data) > EVENT_LOG_BYTES_MAX:
        raise Malformed("event log is too long")
    reader = _Reader(data)
    sizes = _spec_id(reader)
    events: list[Event] = []
    locality: int | None = None
    for _ in range(EVENT_LOG_EVENTS_MAX):
        if reader.is_at_end:
            return EventLog(events=tuple(events), locality=locality or 0)
        event = _event(reader, sizes)
        if event.type != EV_NO_ACTION:
            events.append(event)
        elif event.data.startswith(_STARTUP_LOCALITY):
            locality = _locality(event, events, locality)
    raise Malformed("event log has too many events")


def replayed(log: EventLog, pcrs: Sequence[int]) -> bytes:
    """SHA-256 over the values that `pcrs` have after the log, as a quote would carry it."""
    return sha256(b"".join(_value(log, pcr) for pcr in sorted(pcrs))).digest()


def rules_of(log: EventLog, pcrs: Sequence[int]) -> tuple[PcrRule, ...]:
    """Rules that own `pcrs` and that this boot alone keeps, for a person to widen.

    Raises:
        DeniedError: STATE_REFUSED, the boot has what no rule can allow.
    """
    rules = tuple(
        PcrRule(
            pcr=pcr,
            steps=tuple(
                EventStep(type=event.type, digests=(event.digest,), is_optional=False)
                for event in log.of(pcr)
            ),
        )
        for pcr in sorted(pcrs)
    )
    check_rules(log, rules)
    return rules


def check_rules(log: EventLog, rules: Sequence[PcrRule]) -> None:
    """Hold every PCR that rules own against its rule; the log was replayed before.

    Raises:
        DeniedError: STATE_REFUSED, with the first event that is not as it must be.
    """
    for rule in rules:
        events = log.of(rule.pcr)
        for event in events:
            _check_event(event)
        if rule.pcr in _FIRMWARE_PCRS:
            _check_separator(rule.pcr, events)
        elif any(event.type == EV_SEPARATOR for event in events):
            raise _refused(rule.pcr, "has a separator, which only PCR 0 to 7 may have")
        _check_steps(rule, events)


def _spec_id(reader: _Reader) -> Mapping[int, int]:
    """The log's head: algorithms of every event's digests, in order, with their lengths."""
    head = (reader.uint(4), reader.uint(4))
    if head != (0, EV_NO_ACTION) or reader.take(_SHA1_BYTES) != bytes(_SHA1_BYTES):
        raise Malformed("event log does not begin with its specification")
    body = _Reader(reader.take(reader.uint(4)))
    if body.take(len(_SPEC_ID)) != _SPEC_ID:
        raise Malformed("event log is not in the crypto-agile form")
    body.take(4)  # platform class
    minor, major = body.uint(1), body.uint(1)
    body.take(2)  # errata, size of an address
    if (major, minor) != (2, 0):
        raise Malformed("event log is of another version than 2.0")
    count = body.uint(4)
    if not 1 <= count <= _ALGORITHMS_MAX:
        raise Malformed("event log has no or too many hash algorithms")
    pairs = [(body.uint(2), body.uint(2)) for _ in range(count)]
    body.take(body.uint(1))  # the maker's words
    sizes = dict(pairs)
    if not body.is_at_end or len(sizes) != count or sizes.get(ALG_SHA256) != _DIGEST_BYTES:
        raise Malformed("event log has no SHA-256, an algorithm twice, or a wrong length")
    if not all(1 <= size <= _ALGORITHM_BYTES_MAX for size in sizes.values()):
        raise Malformed("event log has an algorithm of an impossible length")
    return sizes


def _event(reader: _Reader, sizes: Mapping[int, int]) -> Event:
    pcr, kind, count = reader.uint(4), reader.uint(4), reader.uint(4)
    if count != len(sizes):
        raise Malformed("event does not have one digest of each algorithm")
    digests = {}
    for algorithm, size in sizes.items():
        if reader.uint(2) != algorithm:
            raise Malformed("event has its digests in another order than the log")
        digests[algorithm] = reader.take(size)
    data = reader.take(reader.uint(4))
    if kind == EV_NO_ACTION:
        if any(any(digest) for digest in digests.values()):
            raise Malformed("event that measures nothing has a digest")
    elif pcr > _PCR_MAX:
        raise Malformed("event measures into a PCR that does not exist")
    return Event(pcr=pcr, type=kind, digest=digests[ALG_SHA256], data=data)


def _locality(event: Event, before: Sequence[Event], known: int | None) -> int:
    """The locality that the TPM was started from: said once, before PCR 0 is extended."""
    value = event.data[len(_STARTUP_LOCALITY) :]
    if known is not None or any(other.pcr == 0 for other in before) or event.pcr != 0:
        raise Malformed("event log names its startup locality twice or too late")
    if len(value) != 1 or value[0] not in _LOCALITIES:
        raise Malformed("event log names an impossible startup locality")
    return value[0]


def _value(log: EventLog, pcr: int) -> bytes:
    value = (b"\xff" if pcr in _DRTM_PCRS else b"\0") * _DIGEST_BYTES
    if pcr == 0:
        value = value[:-1] + bytes([log.locality])
    for event in log.of(pcr):
        value = sha256(value + event.digest).digest()
    return value


def _check_event(event: Event) -> None:
    if event.type not in _KNOWN:
        raise _refused(event.pcr, f"has an event of the unknown type 0x{event.type:x}")
    if event.type in _OVER_DATA and sha256(event.data).digest() != event.digest:
        raise _refused(event.pcr, f"has {_NAMES[event.type]} with a digest that is not its data's")


def _check_separator(pcr: int, events: Sequence[Event]) -> None:
    """Firmware ends its own measurements with one separator; later it may only load a system."""
    at = [place for place, event in enumerate(events) if event.type == EV_SEPARATOR]
    if len(at) != 1 or events[at[0]].data not in _SEPARATORS:
        raise _refused(pcr, "does not have exactly one separator without error")
    allowed = _AFTER_SEPARATOR.get(pcr, frozenset())
    for event in events[at[0] + 1 :]:
        if event.type not in allowed:
            raise _refused(pcr, f"has {_NAMES[event.type]} after its separator")


def _check_steps(rule: PcrRule, events: Sequence[Event]) -> None:
    """Each event must be the next step; only optional steps may be left out."""
    steps = iter(rule.steps)
    for event in events:
        if not any(_is_taken(step, event, rule.pcr) for step in steps):
            raise _refused(rule.pcr, f"has {_NAMES[event.type]} that no step allows")
    for step in steps:
        if not step.is_optional:
            raise _refused(rule.pcr, f"lacks {_NAMES.get(step.type, 'a step')}")


def _is_taken(step: EventStep, event: Event, pcr: int) -> bool:
    if event.type == step.type and event.digest in step.digests:
        return True
    if not step.is_optional:
        raise _refused(pcr, f"has {_NAMES[event.type]} where another event is due")
    return False


def _refused(pcr: int, what: str) -> DeniedError:
    return DeniedError(Reason.STATE_REFUSED, f"PCR {pcr} of the event log {what}")
