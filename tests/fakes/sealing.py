"""A host with keys and a result, and blocks to seal: what tests of sealing start from."""

import hashlib
from collections.abc import Sequence as Many
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fabric.attest.keys import Alg, Kem, SigningKey
from fabric.attest.result import Result
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Row, Run, Sequence
from fabric.model.label import Label
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.model.schema import RowSchema
from fabric.seal import envelope
from fabric.seal.epoch import (
    EpochDraft,
    Started,
    VerifiedStart,
    parse_start,
    start_epoch,
    verify_start,
)
from fabric.seal.hpke import HpkeKey
from fabric.seal.sealing import Link, Sealed, SealingEpoch, Stamp, seal
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of
from fabric.seal.verify import VerifiedEnvelope, verify

TRUST_DOMAIN = "fabric.example"
NOW = datetime(2026, 11, 24, 8, 0, 0, 250_000, tzinfo=UTC)
TOPIC = Topic.parse("secret.G01.notes")
LABEL = Label.parse("secret+personal-data")
ORIGIN = Origin.parse("G01/registry/main")
STREAM = Stream(ORIGIN, TOPIC, 0)
NOTES = RowSchema.parse((Path(__file__).parents[2] / "schemas/notes.avsc").read_text(), ("id",))
FIRST = Link(counter=0, previous=envelope.NO_PREVIOUS)


def fixed(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are the same in every run."""
    return hashlib.shake_256(name.encode()).digest(length)


HPKE_PRIVATE_BYTES = {Kem.X25519: 32, Kem.MLKEM768_X25519: 96, Kem.MLKEM1024_P384: 112}


def fixed_private(alg: Alg, name: str) -> bytes:
    """A private key that is the same in every run, as a state file keeps it."""
    curves = {Alg.ESP256: ec.SECP256R1(), Alg.ESP384: ec.SECP384R1()}
    if alg not in curves:
        return fixed(name)
    key = ec.derive_private_key(int.from_bytes(fixed(name)), curves[alg])
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, kw_only=True)
class Party:
    """One attested host; `make` it."""

    host: HostId
    suite: str
    signers: tuple[SigningKey, ...]
    key: HpkeKey
    result: Result
    twist: str = ""
    """Another text here gives a copy of the host that draws other epoch secrets."""

    @classmethod
    def make(cls, host: str = "G01/registry/a1", suite: str = "classic") -> "Party":
        """A host whose keys and result depend on its name alone."""
        found = suite_of(suite)
        signers = tuple(
            SigningKey.from_private_bytes(alg, fixed_private(alg, f"{host} {alg.name}"))
            for alg in found.signatures
        )
        size = HPKE_PRIVATE_BYTES[found.kem]
        key = HpkeKey.from_private_bytes(found.kem, fixed(f"{host} hpke", size))
        return cls(
            host=HostId.parse(host),
            suite=suite,
            signers=signers,
            key=key,
            result=Result(
                id=fixed(f"{host} result", 16),
                host=HostId.parse(host),
                approval=1,
                level=5,
                clearance=LABEL,
                evidence="tpm2",
                keys=(*(s.public for s in signers), key.public),
                policy_version=7,
                revocation_number=0,
                heads=(),
                quote_digest=fixed("quote"),
                nonce=fixed("nonce"),
                issued=NOW - timedelta(seconds=60),
                expires=NOW + timedelta(seconds=540),
            ),
        )

    def draft(self, number: int = 1, **changes: object) -> EpochDraft:
        """An epoch of this host for TOPIC."""
        draft = EpochDraft(
            trust_domain=TRUST_DOMAIN,
            sender=self.host,
            topic=TOPIC,
            label=LABEL,
            suite=self.suite,
            number=number,
            result_id=self.result.id,
            policy_version=7,
            revocation_number=3,
            heads=(),
            chain_reset=False,
            history="retained",
            started=NOW,
        )
        return replace(draft, **changes)  # type: ignore[arg-type]  # tests name real fields

    def secret(self, number: int = 1) -> EpochSecret:
        """The secret of this host's epoch `number`."""
        return EpochSecret(fixed(f"{self.host} secret {number}{self.twist}"))

    def start(self, draft: EpochDraft, others: "Many[Party]" = ()) -> Started:
        """Start an epoch for this host and others."""
        recipients = [(party.host, party.key.public) for party in (self, *others)]
        return start_epoch(draft, self.secret(draft.number), recipients, signers=self.signers)

    def verified_start(self, draft: EpochDraft, others: "Many[Party]" = ()) -> VerifiedStart:
        """The same, as a reader trusts it."""
        return verify_start(parse_start(self.start(draft, others).value), self.result, TRUST_DOMAIN)

    def epoch(self, started: Started) -> SealingEpoch:
        """What sealing needs of a started epoch."""
        secret = self.secret(started.start.number)
        return SealingEpoch.of(started.start, started.hash, secret)

    def stamp(self, **changes: object) -> Stamp:
        """Trust and time of a sealing."""
        stamp = Stamp(
            result_id=self.result.id, policy_version=7, now=NOW, coding="zstd", padding=True
        )
        return replace(stamp, **changes)  # type: ignore[arg-type]  # tests name real fields

    def seal(
        self, block: Block, started: Started, *, link: Link = FIRST, stamp: Stamp | None = None
    ) -> Sealed:
        """Seal a block of notes."""
        return seal(
            block,
            NOTES,
            epoch=self.epoch(started),
            link=link,
            stamp=stamp or self.stamp(),
            signers=self.signers,
        )

    def verify(self, data: bytes) -> VerifiedEnvelope:
        """Verify an envelope of this host."""
        return verify(envelope.parse(data), self.result, TRUST_DOMAIN)


def block(
    count: int = 3, *, after: Sequence = ZERO, position: int = 100, stream: Stream = STREAM
) -> Block:
    """`count` notes committed at `position` of generation 1."""
    rows: list[Row] = [{"id": i, "text": f"note {i} of {position}"} for i in range(count)]
    run = Run(op=Op.UPSERT, position=position, ordinal=1, commit_us=1_700_000_000, rows=rows)
    return Block(
        stream=stream,
        after=after,
        upto=Sequence(max(after.generation, 1), position, max(count, 1)),
        runs=(run,) if count else (),
    )
