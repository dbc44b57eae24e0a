"""What the processes ask of the world: a few protocols, each with a fake and a real adapter.

A port raises only the four error families; an adapter maps its library's
errors at its edge. Everything that waits has a deadline of its own.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from fabric.attest.keys import Alg, Signer
from fabric.model.block import Block
from fabric.model.change import Change, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.names import Stream, Topic
from fabric.model.schema import RowSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A run that a source read, for one dataset; not yet acknowledged by anyone."""

    topic: Topic
    run: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """Every change committed at or before `position` has been yielded.

    Attributes:
        position: commit position; idle sources yield this too, at least every 10 s.
        resume: the source's own token (JSON text) to continue from here; opaque to others.
            Persist it only after every block up to `position` is acknowledged.
    """

    position: int
    resume: str


Event: TypeAlias = Captured | Reached


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTable:
    """One table a source reads, and the dataset it feeds."""

    table: str
    topic: Topic
    schema: RowSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a source says of itself when it opens.

    Attributes:
        generation: life of the source. Equal to the resume token's when it could go on,
            else greater than any generation it had before (at least Unix seconds).
        position: commit position it starts from.
    """

    generation: int
    position: int


class ChangeSource(Protocol):
    """One capture of one database: a snapshot of each dataset, then its live changes."""

    async def open(self, resume: str | None) -> Opened:
        """Connect and decide where to start; None means from nothing (snapshot).

        Raises:
            UsageError: SOURCE_UNFIT or CONFIG_INVALID, with the remedy.
            UnavailableError: DATABASE_UNAVAILABLE.
        """

    def read(self) -> AsyncIterator[Event]:
        """Yield events in order, for ever; a second call is a bug."""

    async def release(self, position: int) -> None:
        """Let go of everything at or before `position`; it will never be asked for again."""

    async def status(self) -> Mapping[str, float]:
        """Figures for metrics: `lag_seconds`, `lag_bytes`, `snapshot_rows`, `snapshot_total`.

        `lag_seconds` is 0 only while every commit that was seen is released, and the last two
        are equal only while no snapshot has rows to read. A source with a log of its own adds
        `log_released`, the place in it up to which everything is released, in the bytes that
        `lag_bytes` counts from there to the log's end.
        """

    async def waits(self) -> str | None:
        """For what a snapshot waits, in words that name no row, and what to do about it.

        None when none waits, or only for moments. What fails instead raises in `read`.
        """

    async def close(self) -> None:
        """Give back connections; the position stays where `release` put it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """What a target keeps beside the rows of one stream.

    Attributes:
        high: every change at or before it is in the table (or in quarantine).
        chain: the reader's chain state (fabric.seal.chain), opaque here; some kilobytes, which
            nobody wants printed.
        offset: hint where to read on: the offset after the last applied record.
        cluster: Kafka cluster id the hint belongs to.
        topic_id: Kafka topic id the hint belongs to.
        incomplete: a snapshot has begun and not ended, a new generation has begun and no
            snapshot in it has ended, or a change was dropped by hand.
        in_snapshot: a snapshot that began in the generation of `high` has not ended. Sinks
            tell what they hold themselves, whatever the state says that they are given.
    """

    high: ChangeSequence
    chain: bytes = field(repr=False)
    offset: int
    cluster: str
    topic_id: str
    incomplete: bool
    in_snapshot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One dataset as a sink must write it."""

    topic: Topic
    table: str
    schema: RowSchema
    quarantine: bool
    partitions: int
    salt: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one `apply` did: the state now stored, and counts of changes."""

    state: StreamState
    applied: int
    quarantined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """One change in quarantine. `change` is None in listings, so that lists show no rows."""

    id: int
    topic: Topic
    partition: int
    offset: int
    reason: str
    key: bytes
    change: Change | None


class ChangeSink(Protocol):
    """One target database: rows, high-water sequences and quarantine in its transactions."""

    async def open(self, targets: Sequence[Target]) -> None:
        """Connect; create tables or check them against the schema.

        Raises:
            UsageError: TARGET_UNFIT, with the column and the remedy.
            UnavailableError: DATABASE_UNAVAILABLE.
        """

    async def state(self, stream: Stream) -> StreamState | None:
        """The stored state, or None when the stream was never applied here."""

    async def streams(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """Every stream of `topic` that has a state here."""

    async def apply(self, block: Block, expected: StreamState | None, new: StreamState) -> Applied:
        """Write the block's rows and `new` in one transaction, if `expected` still stands.

        The block is already trimmed to what lies after `expected.high`. A change that
        cannot be applied goes to quarantine in the same transaction, with later changes
        of its key, when the target says so.

        Raises:
            DeniedError: APPLY_FAILED, a change cannot be applied and the target says stop.
            UnavailableError: DATABASE_UNAVAILABLE (nothing was written); OVERLOADED when
                another writer moved the state: read it again; NOT_READY, in words for a
                person, while rows of another stream are missing or somebody's lock is in the
                way: give the same block again, to the same sink.
        """

    async def quarantined(self, topic: Topic | None) -> Sequence[Parked]:
        """List quarantine, oldest first, without rows."""

    async def parked(self, ident: int) -> Parked | None:
        """One parked change with its row."""

    async def retry(self, ident: int) -> int:
        """Apply the parked change and later ones of its key in order; number applied."""

    async def drop(self, ident: int) -> None:
        """Forget a parked change; its stream becomes incomplete."""

    async def close(self) -> None:
        """Give back connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One Kafka record as a reader gets it."""

    topic: str
    partition: int
    offset: int
    timestamp: datetime
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An append's first offset, and when by the broker's clock, where the gateway said it."""

    offset: int
    at: datetime | None


class Log(Protocol):
    """The platform's log: append through the gateway, read from the brokers."""

    async def append(
        self, topic: str, partition: int, records: Sequence[tuple[bytes | None, bytes]]
    ) -> Stored:
        """Append (key, value) records as one batch.

        Raises:
            PeerError, DeniedError: refused for good, with the gateway's reason.
            UnavailableError: the outcome is unknown; send the same bytes again.
        """

    def read(self, topic: str, partition: int, offset: int) -> AsyncIterator[Sequence[Record]]:
        """Yield batches from `offset` on, for ever.

        Raises:
            DeniedError: HISTORY_LOST when the log starts after `offset`;
                NOT_A_CONSUMER when the broker denies reading.
            UnavailableError: BROKER_UNAVAILABLE.
        """

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset and the offset after the last record."""

    async def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """The first offset stored at or after `when`; where there is none, the log's end.

        A record's time is the broker's word, not its writer's: every topic of a policy is
        LogAppendTime. The clock is that of whoever led the partition then, so times may
        step back where the lead changes: ask for as much earlier as clocks may differ.
        With an honest broker every record before the answer was stored before `when`; one
        after it may have been, too. A broker that lies hides records, which it can do
        anyway: use this to read less, never as proof that something is not there.

        Raises:
            DeniedError, UnavailableError: as `read`, but for HISTORY_LOST.
        """

    async def close(self) -> None:
        """Give back connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a TPM signed: marshalled TPMS_ATTEST and TPMT_SIGNATURE."""

    attest: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentKey:
    """A key that lives in a TPM: marshalled TPM2B_PUBLIC, and TPM2B_PRIVATE, which it wrapped."""

    public: bytes
    private: bytes


class Tpm(Protocol):
    """The host's TPM 2.0. Calls block for milliseconds to seconds: run them in a thread.

    Every method raises UnavailableError TPM_UNAVAILABLE when the TPM does not answer.
    """

    def ek_certificate(self) -> bytes:
        """DER of the endorsement key's certificate, from NV."""

    def ak_public(self) -> bytes:
        """Marshalled TPM2B_PUBLIC of the attestation key; made and persisted on first use."""

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """TPM2_ActivateCredential; raises DeniedError ACTIVATION_FAILED."""

    def quote(self, pcrs: Sequence[int], qualifying: bytes) -> Quote:
        """Quote the SHA-256 bank over exactly `pcrs` (at most 64 bytes of qualifying data)."""

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        """SHA-256 over the current values of `pcrs`, as a quote would carry it."""

    def tally(self) -> bytes:
        """Value of the tally (fabric.attest.tally), 32 bytes; made on first use."""

    def extend_tally(self, step: bytes) -> None:
        """Extend the tally by 32 bytes; it cannot be undone."""

    def certify_tally(self, qualifying: bytes) -> Quote:
        """The attestation key's certificate of the tally, which was extended before."""

    def make_key(self) -> ResidentKey:
        """A fresh P-256 key that signs and that cannot leave this TPM."""

    def sign_with(self, key: ResidentKey, digest: bytes) -> bytes:
        """ECDSA over a SHA-256 digest, r and s of 32 bytes each.

        Raises:
            DeniedError: SEALED_STATE_LOST, the key is not of this TPM, or not whole.
        """

    def certify_key(self, key: ResidentKey, qualifying: bytes) -> Quote:
        """TPM2_Certify of a key by the attestation key; raises DeniedError as `sign_with`."""

    def seal(self, data: bytes, pcrs: Sequence[int], digest: bytes | None = None) -> bytes:
        """Seal at most 128 bytes to this TPM under PolicyPCR.

        Args:
            digest: as `pcr_digest` would give it in the state that shall open the data,
                now or later; None for the state as it is.
        """

    def unseal(self, blob: bytes) -> bytes:
        """Undo `seal`; raises DeniedError SEALED_STATE_LOST in another state or TPM."""


class KeyStore(Protocol):
    """A place where signing keys live: the sealed state file, a PKCS#11 token, the TPM.

    Calls may block for milliseconds to seconds: run them in a thread. Every method but
    `drop` of what is gone raises UnavailableError when the store does not answer.
    """

    @property
    def name(self) -> str:
        """What the state file calls it."""

    @property
    def algs(self) -> frozenset[Alg]:
        """Algorithms it makes keys of."""

    def make(self, alg: Alg) -> tuple[Signer, bytes]:
        """Make a key: what signs with it, and the reference to find it by.

        The reference is kept in the sealed state file; only a store in software puts the
        private key itself there.
        """

    def load(self, alg: Alg, reference: bytes) -> Signer:
        """The key of a reference.

        Raises:
            DeniedError: SEALED_STATE_LOST, the store no longer has it.
            Malformed: the reference is no reference of this store.
        """

    def drop(self, alg: Alg, reference: bytes) -> None:
        """Destroy a key; one that is gone is no error."""


class Clock(Protocol):
    """Time. Durations come from `monotonic`, statements to others from `now`."""

    def now(self) -> datetime:
        """Aware UTC; never below the newest signed time this host has seen."""

    def latest(self) -> datetime:
        """The latest time, aware UTC, that who signs now may write, whatever else was signed."""

    def monotonic(self) -> float:
        """Seconds that only rise."""


class AuditLog(Protocol):
    """Where refusals and trust decisions are written down."""

    def write(self, event: str, fields: Mapping[str, str | int]) -> None:
        """Append one event; values are names, numbers and reasons, never row data."""
