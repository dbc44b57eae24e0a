"""What the competent authority decides: the documents of a policy, as types.

Build a Policy with `fabric.policy.load`; holding one means that its documents
were parsed and checked against each other. Nothing here decides anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Self

from fabric.model.label import Label, Levels
from fabric.model.names import HostId, Origin, Topic
from fabric.model.schema import RowSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """A place in the law behind a rule, as data.

    Attributes:
        act, place: for example `Circular 06/2026/TT-BKHCN` and `article 8(2)`.
        says: what it says of the rule, in a sentence.
        since, until: first day in force, and the first day no longer; None when not known.
        is_inference: the rule follows by our reading, the place does not say it.
    """

    act: str
    place: str
    says: str
    since: date | None
    until: date | None
    is_inference: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelRule:
    """What a level demands of everything at it.

    Attributes:
        sealed: records are sealed blocks; else the open form.
        suites: suite ids that may seal at this level.
        host_level_min: least effective host level, 1..5.
        evidence: allowed evidence kinds, for example `tpm2`.
        result_lifetime_s: how long an attestation result lives, seconds.
        delivery_s: largest distance between sealing and admission, seconds.
        coding: content coding of plaintext, `zstd` or `none`.
        padding: pad plaintext (Padme, at least 4 KiB) before encryption.
        citation: the law behind the rule, for people.
        basis: the same place by place, with dates.
    """

    name: str
    sealed: bool
    suites: tuple[str, ...]
    host_level_min: int
    evidence: frozenset[str]
    result_lifetime_s: int
    delivery_s: int
    coding: str
    padding: bool
    citation: str
    basis: tuple[Basis, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteRule:
    """Whether a cryptographic suite may be used.

    Attributes:
        status: `approved`, `deprecated` (seals nothing any more) or `refused` (opens
            nothing either).
        until: what was sealed before it opens, and nothing later; None for no such date.
    """

    id: str
    status: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventStep:
    """One event of an approved boot.

    Attributes:
        type: number of the event's type, one of fabric.policy.event_types.
        digests: any one of these must have been extended (SHA-256).
        is_optional: the event may be missing.
    """

    type: int
    digests: tuple[bytes, ...]
    is_optional: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PcrRule:
    """Every event that may be measured into one PCR, in order; the rule owns the PCR."""

    pcr: int
    steps: tuple[EventStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """The authority's word that one host, with this TPM, is right in these states.

    Attributes:
        number: rises with every approval of this host; lifts suspensions below it.
        ek_sha256: SHA-256 of the endorsement certificate's DER.
        ak_name: TPM name of the attestation key; None until a second person added it.
        security_level: 1..5.
        pcrs: exact PCR selection of the SHA-256 bank, rising.
        digests: accepted PCR digests (SHA-256 over the selected values).
        event_rules: one for each of `pcrs`, or none. A state is right when its digest is
            accepted, or when its event log replays to it and keeps every rule.
    """

    host: HostId
    number: int
    ek_sha256: bytes
    ak_name: bytes | None
    security_level: int
    clearance: Label
    pcrs: tuple[int, ...]
    digests: tuple[bytes, ...]
    not_before: datetime
    not_after: datetime
    event_rules: tuple[PcrRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One agency's table: shape, label, who sends it and who may have it.

    Attributes:
        suite: suite id that seals it; empty at open levels.
        consumers: `agency/system` or `agency/system/host` names, exactly.
        history: `from_join` or `retained`.
        custodians: consumers that may grant kept epochs while the sender is away.
        on_unappliable: `quarantine` or `stop`.
        partitions: how many share the rows; like `salt` the same as long as the dataset lives.
        salt: key of the partition function, 32 bytes.
        schema_id: id in the schema registry (open levels), unique in the policy.
        tags: field name to tag, for example `personal-data:basic`.
    """

    topic: Topic
    label: Label
    schema: RowSchema
    suite: str
    partitions: int
    salt: bytes
    retention_s: int
    producers: tuple[Origin, ...]
    consumers: tuple[str, ...]
    history: str
    custodians: tuple[str, ...] = ()
    on_unappliable: str
    schema_id: int
    tags: Mapping[str, str]
    legal_basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Trust anchors.

    Attributes:
        trust_domain: SPIFFE trust domain.
        verifier_name: name of the verifier, bound into quotes.
        verifier_keys: its signing keys, (COSE algorithm id, raw public bytes), in order.
        former_keys: keys it had before, which still count while a planned change lasts.
        ca_pem: certificates of the platform CA and the verifier's CA, PEM.
        ek_ca_pem: certificates (roots and intermediates) of TPM manufacturers, PEM.
    """

    trust_domain: str
    verifier_name: str
    verifier_keys: tuple[tuple[int, bytes], ...]
    ca_pem: bytes
    ek_ca_pem: bytes
    former_keys: tuple[tuple[int, bytes], ...] = ()

    def is_same_to_peers(self, other: Self) -> bool:
        """Whether agents and gateways go by the same anchors.

        Makers of TPMs are for the authority to know: new ones stop nobody else's work.
        """
        return replace(self, ek_ca_pem=b"") == replace(other, ek_ca_pem=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that is decided, as of one version.

    Attributes:
        version: rises with every change.
        expires: after it protected work stops.
        datasets: by topic name.
        floors: the lowest label of each dataset, by `agency/dataset`.
        renew_by: end of the first signature that a person must renew; None when not known.
        releases: the label to which a dataset may sink below its floor, by the same name.
    """

    version: int
    expires: datetime
    levels: Levels
    rules: Mapping[str, LevelRule]
    suites: Mapping[str, SuiteRule]
    agencies: Mapping[str, str]
    approvals: Mapping[HostId, Approval]
    datasets: Mapping[str, Dataset]
    trust: Trust
    floors: Mapping[str, Label] = field(default_factory=dict)
    releases: Mapping[str, Label] = field(default_factory=dict)
    renew_by: datetime | None = None

    def __repr__(self) -> str:
        return f"Policy(version={self.version}, datasets={len(self.datasets)})"
