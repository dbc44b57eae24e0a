"""The host's own keys: made here, bound by quotes, kept in the sealed state file.

Which keys a host has follows from the suites that policy lets it use (`plan_for`).
Signing and TLS keys live a day at most and are erased then; HPKE keys rotate daily,
and old ones stay as long as data that were sealed to them, and are erased with
those. Sets of signing keys are told apart by the thumbprints a result binds, so a
block is always signed by the keys that the result it names speaks of. Where a
signing key lives is its store's affair.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fabric.attest.keys import Alg, Kem, PublicKey, Signer, SigningKey, Use
from fabric.attest.result import Result, signing_keys
from fabric.model.errors import ConfigInvalid, DeniedError, PeerError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX, EPOCH_AGE_S_MAX
from fabric.ports import KeyStore
from fabric.seal.hpke import HpkeKey
from fabric.seal.suites import SUITES, Suite
from fabric.store.state import KeyRecord

TLS_ALG = Alg.ESP256
KEY_LIFE = timedelta(hours=20)
"""When a set is replaced, at the latest."""
KEY_LIFE_MAX = timedelta(hours=24)
"""How long signing and TLS keys live: no result that binds them ends later."""
_LEAST = "classic"
_STATE = "file"
_ALGS = tuple(dict.fromkeys(alg for suite in SUITES.values() for alg in suite.signatures))
_KEMS = tuple(dict.fromkeys(suite.kem for suite in SUITES.values()))
"""The order of keys in every set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """The keys a host is to have, in the order in which quotes bind them."""

    signing: tuple[Alg, ...]
    kems: tuple[Kem, ...]


def plan_for(suites: Collection[str]) -> KeyPlan:
    """Keys for `suites`, in the table's order, whatever the order given; never none at all.

    A suite that this build does not know is passed over: a newer policy must not
    keep the host from what it can do.
    """
    found = [suite for name, suite in SUITES.items() if name in suites] or [SUITES[_LEAST]]
    algs = {alg for suite in found for alg in suite.signatures}
    kems = {suite.kem for suite in found}
    return KeyPlan(
        signing=tuple(alg for alg in _ALGS if alg in algs),
        kems=tuple(kem for kem in _KEMS if kem in kems),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldKey:
    """A signing key, the name of the store that holds it, and how to find it there again."""

    signer: Signer
    store: str
    reference: bytes

    def __repr__(self) -> str:
        return f"HeldKey({self.signer!r}, store={self.store})"

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self.signer.public


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """Keys made at one time: what one attestation binds."""

    made: datetime
    signing: tuple[HeldKey, ...]
    tls: SigningKey
    hpke: tuple[HpkeKey, ...]

    @property
    def bound(self) -> tuple[PublicKey, ...]:
        """Public keys in the order the quote binds them: signing, TLS, HPKE."""
        signing = (key.public for key in self.signers)
        return (*signing, *(key.public for key in self.hpke))

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Keys that sign the attestation request, in the order of `bound`."""
        return (*(held.signer for held in self.signing), self.tls)


def store_for(alg: Alg, stores: Sequence[KeyStore]) -> KeyStore:
    """The first store that can make keys of `alg`; raises ConfigInvalid."""
    for store in stores:
        if alg in store.algs:
            return store
    raise ConfigInvalid(f"keys.provider: no store of this host makes keys of {alg.name}")


def generate(now: datetime, plan: KeyPlan, stores: Sequence[KeyStore]) -> KeySet:
    """Make a fresh set.

    Args:
        stores: in order of preference.

    Raises:
        ConfigInvalid: no store makes keys of an algorithm of the plan.
        UnavailableError: a store does not answer.
    """
    return KeySet(
        made=now,
        signing=tuple(_make(alg, store_for(alg, stores)) for alg in plan.signing),
        tls=SigningKey.generate(TLS_ALG, Use.TLS),
        hpke=tuple(HpkeKey.generate(kem) for kem in plan.kems),
    )


def _make(alg: Alg, store: KeyStore) -> HeldKey:
    signer, reference = store.make(alg)
    return HeldKey(signer=signer, store=store.name, reference=reference)


def to_records(keys: KeySet) -> list[KeyRecord]:
    """What the state file keeps of a set."""
    entries = [(held.public, held.store, held.reference) for held in keys.signing]
    entries.append((keys.tls.public, _STATE, keys.tls.private_bytes()))
    entries += [(key.public, _STATE, key.private_bytes()) for key in keys.hpke]
    return [_record(keys.made, *entry) for entry in entries]


def _record(made: datetime, public: PublicKey, store: str, private: bytes) -> KeyRecord:
    return KeyRecord(
        name=_name(made, public),
        kind=public.use.value,
        alg=int(public.alg),
        store=store,
        made=made,
        private=private,
    )


class Keyring:
    """Every set this host holds, oldest first."""

    def __init__(self, records: Sequence[KeyRecord], stores: Sequence[KeyStore]) -> None:
        self._signing: dict[bytes, Signer] = {}
        self._hpke: list[tuple[datetime, HpkeKey]] = []
        self._sets: list[KeySet] = []
        self._stores = stores
        self._by_name: Mapping[str, KeyStore] = {store.name: store for store in stores}
        by_stamp: dict[str, list[KeyRecord]] = {}
        for record in records:
            by_stamp.setdefault(record.name.partition("/")[0], []).append(record)
        for stamp in sorted(by_stamp, key=int):
            self._load(by_stamp[stamp])

    def __repr__(self) -> str:
        return f"Keyring(sets={len(self._sets)})"

    def _load(self, records: Sequence[KeyRecord]) -> None:
        hpke = [HpkeKey.from_private_bytes(Kem(r.alg), r.private) for r in records
                if r.kind == Use.HPKE]  # fmt: skip
        tls = [SigningKey.from_private_bytes(Alg(r.alg), r.private, Use.TLS) for r in records
               if r.kind == Use.TLS]  # fmt: skip
        signing = [record for record in records if record.kind == Use.SIGN]
        held = [key for key in map(self._held, signing) if key is not None]
        if len(tls) != 1 or not held or len(held) != len(signing):
            # Signing keys were dropped or are out of reach: what the HPKE keys open is still ours.
            self._hpke.extend((records[0].made, key) for key in hpke)
            return
        held.sort(key=lambda key: _ALGS.index(Alg(key.public.alg)))
        hpke.sort(key=lambda key: _KEMS.index(key.kem))
        made = records[0].made
        self.add(KeySet(made=made, signing=tuple(held), tls=tls[0], hpke=tuple(hpke)))

    def _held(self, record: KeyRecord) -> HeldKey | None:
        """The key of a record, or None when its store is not ours or no longer has it."""
        store = self._by_name.get(record.store)
        if store is None:
            return None
        try:
            signer = store.load(Alg(record.alg), record.private)
        except (DeniedError, PeerError):
            return None
        return HeldKey(signer=signer, store=record.store, reference=record.private)

    def add(self, keys: KeySet) -> None:
        """Take a new set into use."""
        self._sets.append(keys)
        self._hpke.extend((keys.made, key) for key in keys.hpke)
        for key in keys.signing:
            self._signing[key.public.thumbprint] = key.signer

    @property
    def newest(self) -> KeySet | None:
        """The set that the next attestation binds."""
        return self._sets[-1] if self._sets else None

    def is_due(self, now: datetime, plan: KeyPlan, result_life: timedelta) -> bool:
        """Whether a new set is to be made before the next attestation.

        It is when there is none, the newest is old or was made under a clock that was
        ahead, policy asks for other keys, or the settings for another place to keep them.

        Args:
            result_life: how long the next result may live; its keys must not end before it.
        """
        newest = self.newest
        life = min(KEY_LIFE, KEY_LIFE_MAX - result_life)
        if newest is None or now - newest.made >= life or _is_ahead(newest, now):
            return True
        places = [(Alg(key.public.alg), key.store) for key in newest.signing]
        wanted = [(alg, store_for(alg, self._stores).name) for alg in plan.signing]
        return places != wanted or tuple(key.kem for key in newest.hpke) != plan.kems

    @property
    def hpke(self) -> tuple[HpkeKey, ...]:
        """Every key that may open a wrap."""
        return tuple(key for _, key in reversed(self._hpke))

    def signers(self, result: Result, suite: Suite) -> tuple[Signer, ...]:
        """The keys that a result binds, exactly the suite's, in its order.

        Raises:
            DeniedError: NOT_ATTESTED, the result binds keys that are not ours (any more).
        """
        by_alg = {key.alg: key for key in signing_keys(result)}
        if not by_alg.keys() >= {*suite.signatures}:
            raise DeniedError(Reason.NOT_ATTESTED, "current result binds no keys of the suite")
        return self._ours([by_alg[alg] for alg in suite.signatures])

    def all_signers(self, result: Result) -> tuple[Signer, ...]:
        """Every signing key that a result binds, in its order; raises DeniedError as `signers`."""
        return self._ours(signing_keys(result))

    def _ours(self, keys: Sequence[PublicKey]) -> tuple[Signer, ...]:
        found = [self._signing.get(key.thumbprint) for key in keys]
        if any(key is None for key in found):
            raise DeniedError(Reason.NOT_ATTESTED, "current result does not bind our keys")
        return tuple(key for key in found if key is not None)

    def retire(self, now: datetime, retention: timedelta | None) -> list[str]:
        """Forget keys whose time is over; the names of their records, to be erased too.

        Signing and TLS keys go when they are a day old, or when a clock that was ahead
        made them: nobody knows how old they are. HPKE keys go when the log has lost what
        was sealed to them. The newest set stays: the next attestation replaces it.

        Args:
            now: never ahead of true time; what is erased too early is lost.
            retention: of the data kept longest; None keeps every HPKE key.

        Raises:
            UnavailableError: a store does not answer; nothing is forgotten then.
        """
        before = self._sets[:-1]
        old = [k for k in before if now - k.made >= KEY_LIFE_MAX or _is_ahead(k, now)]
        for held in (held for keys in old for held in keys.signing):
            self._by_name[held.store].drop(Alg(held.public.alg), held.reference)
        for held in (held for keys in old for held in keys.signing):
            self._signing.pop(held.public.thumbprint, None)
        self._sets = [keys for keys in self._sets if keys not in old]
        names = [_name(keys.made, key.public) for keys in old for key in keys.signers]
        return names + self._retire_hpke(now, retention)

    def _retire_hpke(self, now: datetime, retention: timedelta | None) -> list[str]:
        if retention is None or self.newest is None:
            return []
        # Wrapped to until its set's end, for an epoch that takes blocks for another day.
        keep = retention + KEY_LIFE_MAX + timedelta(seconds=EPOCH_AGE_S_MAX)
        newest = self.newest.made
        over = [item for item in self._hpke if item[0] != newest and now - item[0] >= keep]
        self._hpke = [item for item in self._hpke if item not in over]
        return [_name(made, key.public) for made, key in over]


def _is_ahead(keys: KeySet, now: datetime) -> bool:
    return keys.made - now > timedelta(seconds=CLOCK_SKEW_S_MAX)


def _name(made: datetime, public: PublicKey) -> str:
    return f"{int(made.timestamp() * 1_000_000)}/{public.use}/{int(public.alg)}"
