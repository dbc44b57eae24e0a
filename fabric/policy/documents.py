"""The documents of a policy as they are written: shapes, types and bounds.

One document is one YAML file. What a document says of itself is checked here;
what documents say of each other is checked in `check`.
"""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from fabric.model.errors import FabricError, Malformed, Reason, UsageError
from fabric.model.label import Label
from fabric.model.names import Origin, agency_code, part
from fabric.policy import strict_yaml
from fabric.policy.event_types import EVENT_TYPES

_T = TypeVar("_T")
_D = TypeVar("_D", bound=BaseModel)
_LIST_MAX = 10_000
_FIELDS_MAX = 2_000
_TEXT_CHARS_MAX = 4_000
_RETENTION_S_MAX = 100 * 366 * 24 * 3600
_KEY_BYTES = {-19: 32, -51: 97, -49: 1952, -50: 2592}
"""Public key length by COSE algorithm: Ed25519, ESP384, ML-DSA-65, ML-DSA-87."""
_TAG = re.compile(r"personal-data(:(basic|sensitive))?")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63}){0,7}")
LABEL_TAG = "label:"
"""Prefix of a tag that gives a column a label of its own."""


def _parsed(parse: Callable[[str], _T]) -> Callable[[object], _T]:
    """Let pydantic report what a parser of ours refuses."""

    def read(value: object) -> _T:
        if not isinstance(value, str):
            raise ValueError("must be text; put it into quotes")
        try:
            return parse(value)
        except FabricError as exc:
            raise ValueError(str(exc.args[0])) from exc

    return read


def _octets(size: int) -> Any:
    def read(value: object) -> bytes:
        if not isinstance(value, str) or not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", value):
            raise ValueError(f"must be {2 * size} lower-case hex digits, in quotes")
        return bytes.fromhex(value)

    return PlainValidator(read)


def _instant(value: object) -> datetime:
    """ISO 8601 text or a YAML timestamp, with its offset; numbers could mean anything."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as exc:
            raise ValueError("must be a time such as 2027-01-01T00:00:00Z") from exc
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a time with its offset, such as 2027-01-01T00:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError as exc:
        raise ValueError("must be a time between the years 1 and 9999") from exc


def _consumer(text: str) -> str:
    """`agency/system` or `agency/system/host`."""
    names = text.split("/")
    if len(names) not in (2, 3):
        raise Malformed("consumer must have the form agency/system or agency/system/host")
    agency_code(names[0])
    for name in names[1:]:
        part(name)
    return text


def _tag(text: str) -> str:
    if text.startswith(LABEL_TAG):
        Label.parse(text.removeprefix(LABEL_TAG))
    elif not _TAG.fullmatch(text):
        raise Malformed("tag must be personal-data, personal-data:basic|sensitive or label:<label>")
    return text


def _unique(values: tuple[_T, ...]) -> tuple[_T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("names one thing twice; remove the repetition")
    return values


def _domain(text: str) -> str:
    if not _DOMAIN.fullmatch(text):
        raise Malformed("trust domain must be names of a-z, 0-9 and - joined by dots")
    return text


def _path(text: str) -> str:
    """A path inside the folder, read as a key of the files and never opened."""
    if text.startswith("/") or ".." in text.split("/") or not text.isprintable():
        raise Malformed("must be a path inside the policy")
    return text


Instant = Annotated[datetime, PlainValidator(_instant)]
Name = Annotated[str, PlainValidator(_parsed(part))]
LabelText = Annotated[Label, PlainValidator(_parsed(Label.parse))]
OriginText = Annotated[Origin, PlainValidator(_parsed(Origin.parse))]
Consumer = Annotated[str, PlainValidator(_parsed(_consumer))]
Tag = Annotated[str, PlainValidator(_parsed(_tag))]
Place = Annotated[str, PlainValidator(_parsed(_path)), Field(max_length=1_024)]
Domain = Annotated[str, PlainValidator(_parsed(_domain))]
Text = Annotated[str, Field(min_length=1, max_length=_TEXT_CHARS_MAX)]
Version = Annotated[int, Field(ge=1, le=2**53)]
Digest = Annotated[bytes, _octets(32)]


class Document(BaseModel):
    """Base: strict types, unknown keys refused, values in no error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def _list(value: object) -> object:
    """YAML has lists; the types want tuples and nothing else."""
    return tuple(value) if isinstance(value, list) else value


_AsTuple = BeforeValidator(_list)


class VerifierKey(Document):
    """One signing key of the verifier: COSE algorithm id and raw public key, hex."""

    alg: Literal[-19, -51, -49, -50]
    public: Annotated[str, Field(pattern=r"^[0-9a-f]+$", max_length=8_192)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.public) != 2 * _KEY_BYTES[self.alg]:
            raise ValueError(f"public: must be {2 * _KEY_BYTES[self.alg]} hex digits")
        return self


class Verifier(Document):
    """The verifier's name, its keys in the order in which they sign, and those it had before."""

    name: Name
    keys: Annotated[tuple[VerifierKey, ...], _AsTuple, Field(min_length=1, max_length=2)]
    former: Annotated[tuple[VerifierKey, ...], _AsTuple, Field(max_length=2)] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, keys in (("keys", self.keys), ("former", self.former)):
            if len({key.alg for key in keys}) != len(keys):
                raise ValueError(f"{name}: two keys have one algorithm; keep one of them")
        if self.former == self.keys:  # one key in both is right: each list counts whole
            raise ValueError("former: are the keys of today; name those of before, or leave it out")
        return self


class TrustDocument(Document):
    """Trust anchors; `ca` and `ek_ca` are paths of PEM files in the folder."""

    trust_domain: Domain
    verifier: Verifier
    ca: Place
    ek_ca: Place


class PolicyDocument(Document):
    """policy.yaml"""

    trust: TrustDocument


class BasisDocument(Document):
    """A place in the law behind a rule."""

    act: Text
    place: Text
    says: Text
    since: date | None
    until: date | None
    inference: bool


class LevelDocument(Document):
    """One entry of levels.yaml."""

    name: Name
    sealed: bool
    suites: Annotated[tuple[Name, ...], _AsTuple, Field(max_length=16), BeforeValidator(_unique)]
    host_level_min: Annotated[int, Field(ge=1, le=5)]
    evidence: Annotated[tuple[Literal["tpm2"], ...], _AsTuple, Field(min_length=1, max_length=8)]
    result_lifetime_s: Annotated[int, Field(ge=2, le=24 * 3600)]
    delivery_s: Annotated[int, Field(ge=1, le=24 * 3600)]
    coding: Literal["zstd", "none"]
    padding: bool
    citation: Text
    basis: Annotated[tuple[BasisDocument, ...], _AsTuple, Field(max_length=64)] = ()


class SuiteDocument(Document):
    """One entry of suites.yaml.

    Attributes:
        until: an approved suite seals until then; what any suite sealed before it still
            opens. A deprecated suite must have one.
    """

    id: Name
    status: Literal["approved", "deprecated", "refused"]
    until: Instant | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.status == "deprecated" and self.until is None:
            raise ValueError("until: is missing; say up to when the suite may have sealed")
        if self.status == "refused" and self.until is not None:
            raise ValueError("until: a refused suite opens nothing; remove it")
        return self


class AgencyDocument(Document):
    """agencies/<CODE>.yaml"""

    name: Text


class EventStepDocument(Document):
    """One event of an approved boot: its type, its accepted digests, whether it may be missing."""

    type: Annotated[str, Field(max_length=63)]
    digests: Annotated[tuple[Digest, ...], _AsTuple, Field(min_length=1, max_length=64)]
    optional: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type not in EVENT_TYPES:
            raise ValueError("type: must be a TCG event type that measures, such as EV_SEPARATOR")
        return self


class PcrRuleDocument(Document):
    """Every event that may be measured into one PCR, in order."""

    pcr: Annotated[int, Field(ge=0, le=22)]
    steps: Annotated[tuple[EventStepDocument, ...], _AsTuple, Field(max_length=512)]


class ApprovalDocument(Document):
    """approvals/<agency>/<system>/<host>.yaml

    Attributes:
        ak_name: left out until the host has enrolled: nobody knows its key before.
    """

    number: Version
    ek_sha256: Digest
    ak_name: Annotated[bytes, _octets(34)] | None = None
    security_level: Annotated[int, Field(ge=1, le=5)]
    clearance: LabelText
    pcrs: Annotated[tuple[int, ...], _AsTuple, Field(min_length=1, max_length=22)]
    digests: Annotated[tuple[Digest, ...], _AsTuple, Field(max_length=64)]
    event_log: Annotated[tuple[PcrRuleDocument, ...], _AsTuple, Field(max_length=22)] = ()
    not_before: Instant
    not_after: Instant

    @model_validator(mode="after")
    def _check(self) -> Self:
        # 16 (debug) and 23 (application) can be reset by anyone at run time.
        allowed = set(range(24)) - {16, 23}
        if list(self.pcrs) != sorted(set(self.pcrs)) or not set(self.pcrs) <= allowed:
            raise ValueError("pcrs: must rise, within 0 to 22, without 16")
        if self.event_log and tuple(rule.pcr for rule in self.event_log) != self.pcrs:
            raise ValueError("event_log: must have one rule for each of pcrs, in their order")
        if not self.digests and not self.event_log:
            raise ValueError("digests: must have one, or give event_log rules")
        if self.not_before >= self.not_after:
            raise ValueError("not_after: must lie after not_before")
        return self


class DatasetDocument(Document):
    """datasets/<agency>/<name>.yaml"""

    level: Name
    label: LabelText
    schema_: Annotated[Place, Field(alias="schema")]
    key: Annotated[tuple[Text, ...], _AsTuple, Field(min_length=1, max_length=16)]
    suite: Annotated[str, Field(max_length=63)]
    partitions: Annotated[int, Field(ge=1, le=64)] = 1
    salt: Digest
    retention_s: Annotated[int, Field(ge=60, le=_RETENTION_S_MAX)]
    producers: Annotated[tuple[OriginText, ...], _AsTuple, Field(min_length=1, max_length=64)]
    consumers: Annotated[tuple[Consumer, ...], _AsTuple, Field(max_length=_LIST_MAX)]
    history: Literal["from_join", "retained"]
    custodians: Annotated[tuple[Consumer, ...], _AsTuple, Field(max_length=64)] = ()
    on_unappliable: Literal["quarantine", "stop"]
    schema_id: Annotated[int, Field(ge=1, le=2**31 - 1)]
    tags: Annotated[dict[Text, Tag], Field(max_length=_FIELDS_MAX)]
    legal_basis: Text


def read_document(file: str, data: bytes, kind: type[_D]) -> _D:
    """Read one document; raises UsageError POLICY_INVALID naming file, key and remedy."""
    return _validated(file, _yaml(file, data), kind, "")


def read_documents(file: str, data: bytes, kind: type[_D]) -> tuple[_D, ...]:
    """Read a file that is a list of documents; at least one, at most 64."""
    items = _yaml(file, data)
    if not isinstance(items, list) or not 1 <= len(items) <= 64:
        raise invalid(file, "document", "must be a list of 1 to 64 entries")
    return tuple(_validated(file, item, kind, f"{at}.") for at, item in enumerate(items))


def invalid(file: str, key: str, remedy: str) -> UsageError:
    """What is wrong with a policy, where, and what to do."""
    return UsageError(Reason.POLICY_INVALID, f"{file}: {key}: {remedy}")


def _yaml(file: str, data: bytes) -> object:
    try:
        return strict_yaml.read(data)
    except Malformed as exc:
        raise invalid(file, "document", str(exc.args[0])) from exc


def _validated(file: str, value: object, kind: type[_D], prefix: str) -> _D:
    try:
        return kind.model_validate(value)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
    key = prefix + ".".join(str(at) for at in first["loc"] if at != "[key]")
    remedies = {
        "missing": "is missing; add it",
        "extra_forbidden": "is not a known key; correct its spelling or remove it",
        "model_type": "must be a mapping of keys to values",
    }
    message = remedies.get(first["type"], first["msg"].removeprefix("Value error, "))
    raise invalid(file, key.rstrip(".") or "document", message)
