"""Control records of the authority: host states, numbered notices, heartbeats.

Each is one signed statement of its own COSE kind under a key that repeats what it
says, so that a record cannot be put under another's key. Spec: docs/format.md
section 3.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, unique
from typing import TypeVar

from fabric.attest import cose, fields
from fabric.attest.keys import Signer
from fabric.attest.result import Result, check_verifier, encode
from fabric.model import canonical
from fabric.model.errors import Malformed, Reason
from fabric.model.limits import CARRIER_ITEMS_MAX, MEMBER_BYTES_MAX
from fabric.model.names import AUTHORITY, HostId
from fabric.policy.types import Trust

_VERSION = 0
_TYP = 16  # RFC 9596
_NAME_CHARS_MAX = 256
_MEMBER, _NOTICE, _HEARTBEAT = "member", "notice", "heartbeat"
_Choice = TypeVar("_Choice", bound=StrEnum)
HEARTBEAT_KEY = f"{AUTHORITY}/heartbeat".encode()
NO_NOTICES = bytes(fields.HASH_BYTES)
"""Hash of the list of notices before the first one."""
_LIST_DOMAIN = b"fabric-notice-list-v1"


@unique
class MemberState(StrEnum):
    """What the authority says of a host now."""

    ATTESTED = "attested"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


@unique
class NoticeKind(StrEnum):
    """What a notice does to a host under an approval."""

    SUSPENSION = "suspension"
    REVOCATION = "revocation"
    REINSTATEMENT = "reinstatement"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """The newest word on one host; a later one replaces it.

    Attributes:
        result_id: the current result, 16 bytes; empty when there is none.
        approval: number of the approval the state belongs to.
        number: of the last notice when this was written; for a suspended or revoked
            host, of the notice that did it.
        since: when this was written, aware UTC, whole milliseconds.
        expires: end of the result, aware UTC, whole milliseconds.
    """

    host: HostId
    state: MemberState
    result_id: bytes
    approval: int
    number: int
    since: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A numbered decision about a host, never compacted away.

    Attributes:
        number: 1, 2, 3 and so on without a gap, for all hosts together.
        kind: one of NoticeKind's values.
        approval: it concerns this approval of the host and every earlier one.
        why: the cause, for audits.
        at: from when it holds, aware UTC, whole milliseconds.
        heads: hashes of the host's last envelopes that the authority was told of, 32
            bytes each: what they cover was sealed before `at`.
    """

    number: int
    host: HostId
    kind: str
    approval: int
    why: Reason
    at: datetime
    heads: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The authority lives, and this many notices exist: the tick of every second.

    Attributes:
        number: of the last notice, 0 for none.
        listed: hash of the list of notices 1 to `number`, see `listed_with`.
    """

    number: int
    listed: bytes
    at: datetime


def host_record(state: HostState, signers: Sequence[Signer]) -> tuple[bytes, bytes]:
    """Key and value of a host's current state."""
    content: dict[int, canonical.Value] = {
        0: _VERSION,
        1: str(state.host),
        2: str(state.state),
        3: state.result_id,
        4: state.approval,
        5: state.number,
        6: fields.milliseconds(state.since),
        7: fields.milliseconds(state.expires),
    }
    return _host_key(state.host), _write(_MEMBER, content, signers)


def notice_record(notice: Notice, signers: Sequence[Signer]) -> tuple[bytes, bytes]:
    """Key and value of a notice."""
    return _notice_key(notice.number), _write(_NOTICE, _notice_content(notice), signers)


def listed_with(before: bytes, notice: Notice) -> bytes:
    """Hash of the list that ends in `notice`.

    SHA-256("fabric-notice-list-v1" || before || SHA-256(the notice's payload)), where
    `before` is the hash of the list up to the notice before it, NO_NOTICES at first.
    Signatures are not covered: the same statement may be signed again.
    """
    payload = canonical.encode(_notice_content(notice))
    return hashlib.sha256(_LIST_DOMAIN + before + hashlib.sha256(payload).digest()).digest()


def _notice_content(notice: Notice) -> dict[int, canonical.Value]:
    return {
        0: _VERSION,
        1: notice.number,
        2: str(notice.host),
        3: str(notice.kind),
        4: notice.approval,
        5: str(notice.why),
        6: fields.milliseconds(notice.at),
        7: list(notice.heads),
    }


def heartbeat_record(beat: Heartbeat, signers: Sequence[Signer]) -> tuple[bytes, bytes]:
    """Key and value of a heartbeat."""
    content: dict[int, canonical.Value] = {
        0: _VERSION,
        1: beat.number,
        2: fields.milliseconds(beat.at),
        3: beat.listed,
    }
    return HEARTBEAT_KEY, _write(_HEARTBEAT, content, signers)


def result_record(
    result: Result, trust_domain: str, signers: Sequence[Signer]
) -> tuple[bytes, bytes]:
    """Key and value of a result on the results topic."""
    return result_key(result.id), encode(result, trust_domain, signers)


def result_key(result_id: bytes) -> bytes:
    """Key under which a result stands on the results topic."""
    return f"{AUTHORITY}/{result_id.hex()}".encode()


def read_member(key: bytes, value: bytes, trust: Trust) -> HostState | Notice | Heartbeat:
    """Verify and read one record of the members topic.

    Raises:
        PeerError: MALFORMED, also when the key is not the statement's own; BAD_SIGNATURE.
    """
    if len(value) > MEMBER_BYTES_MAX:
        raise Malformed("member record is too long")
    signed = cose.parse(value)
    kind = fields.text(signed.protected.get(_TYP, ""), "record type", _NAME_CHARS_MAX)
    if kind not in _READERS or signed.protected_bytes != _protected(kind):
        raise Malformed("member record is of an unknown kind")
    check_verifier(signed, kind, trust)
    expected, statement = _READERS[kind](
        canonical.decode(signed.payload, items_max=CARRIER_ITEMS_MAX)
    )
    if key != expected:
        raise Malformed("record does not stand under its own key")
    return statement


def _host_key(host: HostId) -> bytes:
    return f"{AUTHORITY}/host/{host}".encode()


def _notice_key(number: int) -> bytes:
    return f"{AUTHORITY}/revocation/{number}".encode()


def _protected(kind: str) -> bytes:
    return canonical.encode({_TYP: kind})


def _write(kind: str, content: Mapping[int, canonical.Value], signers: Sequence[Signer]) -> bytes:
    payload = canonical.encode(content)
    _READERS[kind](canonical.decode(payload, items_max=CARRIER_ITEMS_MAX))
    return cose.sign(kind, _protected(kind), payload, signers)


def _content(value: canonical.Value, size: int) -> Mapping[int, canonical.Value]:
    content = fields.exact_map(value, frozenset(range(size)), "member record")
    if content[0] != _VERSION:
        raise Malformed("member record is of an unknown version")
    return content


def _read_host(value: canonical.Value) -> tuple[bytes, HostState]:
    content = _content(value, 8)
    state = HostState(
        host=_host(content[1]),
        state=_choice(MemberState, content[2], "state"),
        result_id=_result_id(content[3]),
        approval=fields.uint(content[4], "approval"),
        number=fields.uint(content[5], "number"),
        since=fields.instant(content[6], "time"),
        expires=fields.instant(content[7], "end"),
    )
    if state.state is MemberState.ATTESTED and not state.result_id:
        raise Malformed("attested host has no result")
    return _host_key(state.host), state


def _read_notice(value: canonical.Value) -> tuple[bytes, Notice]:
    content = _content(value, 8)
    notice = Notice(
        number=fields.uint(content[1], "number"),
        host=_host(content[2]),
        kind=_choice(NoticeKind, content[3], "notice kind"),
        approval=fields.uint(content[4], "approval"),
        why=_choice(Reason, content[5], "reason"),
        at=fields.instant(content[6], "time"),
        heads=fields.heads(content[7]),
    )
    if notice.number == 0:
        raise Malformed("notices are numbered from 1")
    return _notice_key(notice.number), notice


def _read_heartbeat(value: canonical.Value) -> tuple[bytes, Heartbeat]:
    content = _content(value, 4)
    beat = Heartbeat(
        number=fields.uint(content[1], "number"),
        at=fields.instant(content[2], "time"),
        listed=fields.octets(content[3], "list hash"),
    )
    return HEARTBEAT_KEY, beat


_READERS: Mapping[
    str, Callable[[canonical.Value], tuple[bytes, HostState | Notice | Heartbeat]]
] = {_MEMBER: _read_host, _NOTICE: _read_notice, _HEARTBEAT: _read_heartbeat}


def _host(value: canonical.Value) -> HostId:
    return HostId.parse(fields.text(value, "host", _NAME_CHARS_MAX))


def _result_id(value: canonical.Value) -> bytes:
    return b"" if value == b"" else fields.octets(value, "result id", fields.ID_BYTES)


def _choice(choices: type[_Choice], value: canonical.Value, what: str) -> _Choice:
    for choice in choices:
        if value == choice.value:
            return choice
    raise Malformed(f"{what} is unknown")
