"""The host's own keys: made here, bound by quotes, kept in the sealed state file.

Signing and TLS keys live a day at most and are erased then; HPKE keys rotate daily,
and old ones stay as long as data that were sealed to them, and are erased with
those. Sets of signing keys are told apart by the thumbprints a result binds, so a
block is always signed by the keys that the result it names speaks of.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.attest.keys import Alg, Kem, PublicKey, SigningKey, Use
from fabric.attest.result import Result
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import EPOCH_AGE_S_MAX
from fabric.seal.hpke import HpkeKey
from fabric.seal.suites import Suite
from fabric.store.state import KeyRecord

SIGN_ALGS = (Alg.ED25519, Alg.ML_DSA_65)
TLS_ALG = Alg.ESP256
KEMS = (Kem.X25519, Kem.MLKEM768_X25519)
KEY_LIFE = timedelta(hours=20)
"""When a set is replaced, at the latest."""
KEY_LIFE_MAX = timedelta(hours=24)
"""How long signing and TLS keys live: no result that binds them ends later."""


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
    found: list[KeyRecord] = []
    pairs = [(key.public, key.private_bytes()) for key in keys.signers]
    pairs += [(key.public, key.private_bytes()) for key in keys.hpke]
    for public, private in pairs:
        record = KeyRecord(
            name=_name(keys.made, public),
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
        self._hpke: list[tuple[datetime, HpkeKey]] = []
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
            self._hpke.extend((records[0].made, key) for key in hpke.values())
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
        self._hpke.extend((keys.made, key) for key in keys.hpke)
        for key in keys.signing:
            self._signing[key.public.thumbprint] = key

    @property
    def newest(self) -> KeySet | None:
        """The set that the next attestation binds."""
        return self._sets[-1] if self._sets else None

    def is_due(self, now: datetime, result_life: timedelta) -> bool:
        """Whether a new set is to be made before the next attestation.

        Args:
            result_life: how long the next result may live; its keys must not outlive theirs.
        """
        life = min(KEY_LIFE, KEY_LIFE_MAX - result_life)
        return self.newest is None or now - self.newest.made >= life

    @property
    def hpke(self) -> tuple[HpkeKey, ...]:
        """Every key that may open a wrap."""
        return tuple(key for _, key in reversed(self._hpke))

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

    def erase(self, now: datetime, retention: timedelta | None) -> list[str]:
        """Forget keys whose time is over; the names of their records, to be erased too.

        The newest set stays, also when it is old: the next attestation replaces it.

        Args:
            retention: of the data kept longest; None keeps every HPKE key.
        """
        old = [keys for keys in self._sets[:-1] if now - keys.made >= KEY_LIFE_MAX]
        names = [_name(keys.made, key.public) for keys in old for key in keys.signers]
        for keys in old:
            self._sets.remove(keys)
            for key in keys.signing:
                self._signing.pop(key.public.thumbprint, None)
        if retention is None:
            return names
        # Wrapped to until its set's end, for an epoch that takes blocks for another day.
        keep = retention + KEY_LIFE_MAX + timedelta(seconds=EPOCH_AGE_S_MAX)
        newest = self.newest.made if self.newest else now
        over = [item for item in self._hpke if item[0] != newest and now - item[0] >= keep]
        self._hpke = [item for item in self._hpke if item not in over]
        return names + [_name(made, key.public) for made, key in over]


def _name(made: datetime, public: PublicKey) -> str:
    return f"{int(made.timestamp() * 1_000_000)}/{public.use}/{int(public.alg)}"
