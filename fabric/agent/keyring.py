"""The host's own keys: made here, bound by quotes, kept in the sealed state file.

Signing and TLS keys live a day at most and HPKE keys rotate daily; old HPKE keys
stay, because data sealed to them stay. Sets of signing keys are told apart by
the thumbprints a result binds, so a block is always signed by the keys that the
result it names speaks of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.attest.keys import Alg, Kem, PublicKey, SigningKey, Use
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, Reason
from fabric.seal.hpke import HpkeKey
from fabric.seal.suites import Suite
from fabric.store.state import KeyRecord

SIGN_ALGS = (Alg.ED25519, Alg.ML_DSA_65)
TLS_ALG = Alg.ESP256
KEMS = (Kem.X25519, Kem.MLKEM768_X25519)
KEY_LIFE = timedelta(hours=20)
"""When a set is replaced: below the 24 h that signing and TLS keys may live."""
_SETS_KEPT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Keys made at one time: what one attestation binds."""

    made: datetime
    signing: tuple[SigningKey, ...]
    tls: SigningKey
    hpke: tuple[HpkeKey, ...]

    @property
    def bound(self) -> tuple[PublicKey, ...]:
        """Public keys in the order the quote binds them: signing, TLS, HPKE."""
        signing = (key.public for key in self.signers)
        return (*signing, *(key.public for key in self.hpke))

    @property
    def signers(self) -> tuple[SigningKey, ...]:
        """Keys that sign the attestation request, in the order of `bound`."""
        return (*self.signing, self.tls)


def generate(now: datetime) -> KeySet:
    """Make a fresh set."""
    return KeySet(
        made=now,
        signing=tuple(SigningKey.generate(alg) for alg in SIGN_ALGS),
        tls=SigningKey.generate(TLS_ALG, Use.TLS),
        hpke=tuple(HpkeKey.generate(kem) for kem in KEMS),
    )


def to_records(keys: KeySet) -> list[KeyRecord]:
    """What the state file keeps of a set."""
    stamp = int(keys.made.timestamp() * 1_000_000)
    found: list[KeyRecord] = []
    pairs = [(key.public, key.private_bytes()) for key in keys.signers]
    pairs += [(key.public, key.private_bytes()) for key in keys.hpke]
    for public, private in pairs:
        record = KeyRecord(
            name=f"{stamp}/{public.use}/{int(public.alg)}",
            kind=public.use.value,
            alg=int(public.alg),
            made=keys.made,
            private=private,
        )
        found.append(record)
    return found


class Keyring:
    """Every set this host holds, oldest first."""

    def __init__(self, records: Sequence[KeyRecord]) -> None:
        self._signing: dict[bytes, SigningKey] = {}
        self._hpke: list[HpkeKey] = []
        self._sets: list[KeySet] = []
        by_stamp: dict[str, list[KeyRecord]] = {}
        for record in records:
            by_stamp.setdefault(record.name.partition("/")[0], []).append(record)
        for stamp in sorted(by_stamp, key=int):
            self._load(by_stamp[stamp])

    def __repr__(self) -> str:
        return f"Keyring(sets={len(self._sets)})"

    def _load(self, records: Sequence[KeyRecord]) -> None:
        hpke = {r.alg: HpkeKey.from_private_bytes(Kem(r.alg), r.private) for r in records
                if r.kind == Use.HPKE}  # fmt: skip
        rest = {
            (r.kind, r.alg): SigningKey.from_private_bytes(Alg(r.alg), r.private, Use(r.kind))
            for r in records
            if r.kind != Use.HPKE
        }
        whole = len(hpke) == len(KEMS) and len(rest) == len(SIGN_ALGS) + 1
        if not whole:  # signing keys were dropped: what the HPKE keys open is still ours
            self._hpke.extend(hpke.values())
            return
        self.add(
            KeySet(
                made=records[0].made,
                signing=tuple(rest[Use.SIGN.value, alg] for alg in SIGN_ALGS),
                tls=rest[Use.TLS.value, TLS_ALG],
                hpke=tuple(hpke[kem] for kem in KEMS),
            )
        )

    def add(self, keys: KeySet) -> None:
        """Take a new set into use."""
        self._sets.append(keys)
        self._hpke.extend(keys.hpke)
        for key in keys.signing:
            self._signing[key.public.thumbprint] = key

    @property
    def newest(self) -> KeySet | None:
        """The set that the next attestation binds."""
        return self._sets[-1] if self._sets else None

    def is_due(self, now: datetime) -> bool:
        """Whether a new set is to be made before the next attestation."""
        return self.newest is None or now - self.newest.made >= KEY_LIFE

    @property
    def hpke(self) -> tuple[HpkeKey, ...]:
        """Every key that may open a wrap."""
        return tuple(reversed(self._hpke))

    def signers(self, result: Result, suite: Suite) -> tuple[SigningKey, ...]:
        """The keys that a result binds, exactly the suite's, in its order.

        Raises:
            DeniedError: NOT_ATTESTED, the result binds keys that are not ours (any more).
        """
        by_alg = {key.alg: key for key in result.keys if key.use is Use.SIGN}
        found = [
            self._signing.get(by_alg[alg].thumbprint) if alg in by_alg else None
            for alg in suite.signatures
        ]
        if any(key is None for key in found):
            raise DeniedError(Reason.NOT_ATTESTED, "current result does not bind our keys")
        return tuple(key for key in found if key is not None)

    def outdated(self) -> list[str]:
        """Names of signing and TLS keys of sets that no living result can bind."""
        old = self._sets[:-_SETS_KEPT]
        return [
            record.name
            for keys in old
            for record in to_records(keys)
            if record.kind != Use.HPKE.value
        ]
