"""The host's keys: sets, rotation, and which of them a result binds."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent import keyring
from fabric.agent.keyring import (
    KEY_LIFE,
    KEY_LIFE_MAX,
    KeyPlan,
    Keyring,
    KeySet,
    plan_for,
    to_records,
)
from fabric.attest.keys import Alg, Kem, Signer, SigningKey, Use
from fabric.model.errors import ConfigInvalid, DeniedError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.seal.suites import suite_of
from fabric.store.file_keys import FileKeys
from fabric.store.state import KeyRecord
from tests.fakes.verifier import a_result

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RESULT_LIFE = timedelta(minutes=10)
PLAN = plan_for(("classic", "hybrid"))
TOP = plan_for(("classic", "hybrid", "hybrid-top"))


class TokenKeys:
    """A store that keeps keys to itself, of one algorithm."""

    name = "pkcs11"
    algs = frozenset({Alg.ED25519})

    def __init__(self) -> None:
        self.held: dict[bytes, SigningKey] = {}

    def make(self, alg: Alg) -> tuple[Signer, bytes]:
        key = SigningKey.generate(alg)
        self.held[key.public.thumbprint] = key
        return key, key.public.thumbprint

    def load(self, alg: Alg, reference: bytes) -> Signer:
        if reference not in self.held:
            raise DeniedError(Reason.SEALED_STATE_LOST, "token no longer holds the key")
        return self.held[reference]

    def drop(self, alg: Alg, reference: bytes) -> None:
        self.held.pop(reference, None)


STORES = (FileKeys(),)


def generate(now: datetime, plan: KeyPlan = PLAN) -> KeySet:
    return keyring.generate(now, plan, STORES)


def ring_of(records: Sequence[KeyRecord]) -> Keyring:
    return Keyring(records, STORES)


def test_an_empty_ring_is_due() -> None:
    assert ring_of(()).is_due(NOW, PLAN, RESULT_LIFE)
    assert ring_of(()).newest is None


def test_bound_keys_are_signing_then_tls_then_hpke() -> None:
    keys = generate(NOW)
    uses = [key.use for key in keys.bound]
    assert uses == [Use.SIGN, Use.SIGN, Use.TLS, Use.HPKE, Use.HPKE]
    signers = [key.public for key in keys.signers]
    assert signers == [key for key in keys.bound if key.use is not Use.HPKE]


def test_a_ring_comes_back_from_its_records() -> None:
    first, second = generate(NOW), generate(NOW + timedelta(hours=21))
    ring = ring_of([*to_records(second), *to_records(first)])
    assert ring.newest is not None
    assert ring.newest.bound == second.bound
    assert len(ring.hpke) == 4


def test_keys_live_less_than_a_day() -> None:
    ring = ring_of(to_records(generate(NOW)))
    assert not ring.is_due(NOW + timedelta(hours=1), PLAN, RESULT_LIFE)
    assert ring.is_due(NOW + KEY_LIFE, PLAN, RESULT_LIFE)
    assert timedelta(hours=24) == KEY_LIFE_MAX


def test_blocks_are_signed_by_the_keys_their_result_binds() -> None:
    old, new = generate(NOW), generate(NOW + timedelta(hours=21))
    ring = ring_of([*to_records(old), *to_records(new)])
    suite = suite_of("hybrid")
    for keys in (old, new):
        signers = ring.signers(a_result(keys=keys.bound), suite)
        assert [key.public for key in signers] == [key.public for key in keys.signing]
    assert len(ring.signers(a_result(keys=new.bound), suite_of("classic"))) == 1


def test_a_hosts_own_statements_are_signed_by_every_key_its_result_binds() -> None:
    keys = generate(NOW, TOP)
    ring = ring_of(to_records(keys))
    signers = ring.all_signers(a_result(keys=keys.bound))
    assert [key.public for key in signers] == [key.public for key in keys.signing]
    with pytest.raises(DeniedError):
        ring.all_signers(a_result())


def test_a_result_that_binds_others_keys_signs_nothing() -> None:
    ring = ring_of(to_records(generate(NOW)))
    with pytest.raises(DeniedError) as caught:
        ring.signers(a_result(), suite_of("hybrid"))
    assert caught.value.reason is Reason.NOT_ATTESTED


def aged(hours: int, *, retention: timedelta | None) -> tuple[Keyring, Keyring, list[str]]:
    """Five sets, one every 20 h; the ring `hours` after the first, what is left, what went."""
    sets = [generate(NOW + timedelta(hours=20 * n)) for n in range(5)]
    records = [record for keys in sets for record in to_records(keys)]
    ring = ring_of(records)
    gone = ring.retire(NOW + timedelta(hours=hours), retention)
    left = ring_of([record for record in records if record.name not in gone])
    assert [key.public for key in left.hpke] == [key.public for key in ring.hpke]
    return ring, left, gone


def test_signing_and_tls_keys_are_erased_when_they_are_a_day_old() -> None:
    ring, left, gone = aged(81, retention=timedelta(days=7))
    assert len(gone) == 3 * 3
    assert all("/hpke/" not in name for name in gone)
    for it in (ring, left):
        assert len(it.hpke) == 10
        assert it.newest is not None
        assert len(it.signers(a_result(keys=it.newest.bound), suite_of("hybrid"))) == 2


def test_an_erased_set_signs_nothing_more() -> None:
    first, second = generate(NOW), generate(NOW + timedelta(hours=20))
    ring = ring_of([*to_records(first), *to_records(second)])
    ring.retire(NOW + timedelta(hours=23), None)
    assert ring.signers(a_result(keys=first.bound), suite_of("hybrid"))
    ring.retire(NOW + timedelta(hours=24), None)
    with pytest.raises(DeniedError):
        ring.signers(a_result(keys=first.bound), suite_of("hybrid"))


def test_a_set_from_a_clock_that_was_ahead_is_replaced_and_signs_nothing_more() -> None:
    ahead, skew = generate(NOW + timedelta(days=40)), timedelta(seconds=CLOCK_SKEW_S_MAX)
    ring = ring_of(to_records(ahead))
    assert not ring.is_due(NOW + timedelta(days=40) - skew, PLAN, RESULT_LIFE)
    assert ring.is_due(NOW, PLAN, RESULT_LIFE)
    right = generate(NOW)
    ring.add(right)
    gone = ring.retire(NOW, timedelta(hours=1))
    assert len(gone) == 3
    assert all("/hpke/" not in name for name in gone)
    again = ring_of([r for r in (*to_records(ahead), *to_records(right)) if r.name not in gone])
    for it in (ring, again):
        assert it.newest is not None
        assert it.newest.made == NOW
        assert not it.is_due(NOW, PLAN, RESULT_LIFE)
        assert len(it.hpke) == 4  # something may have been sealed to the others
        with pytest.raises(DeniedError):
            it.signers(a_result(keys=ahead.bound), suite_of("hybrid"))


def test_hpke_keys_stay_as_long_as_data_that_were_sealed_to_them() -> None:
    retention = timedelta(hours=24)
    ring, _, _ = aged(24 + 48 - 1, retention=retention)
    assert len(ring.hpke) == 10
    ring, _, gone = aged(24 + 48, retention=retention)
    assert len(ring.hpke) == 8
    assert sum("/hpke/" in name for name in gone) == 2


def test_the_newest_set_stays_however_old_it_is() -> None:
    ring, _, _ = aged(10_000, retention=timedelta(hours=1))
    assert ring.newest is not None
    assert len(ring.hpke) == 2
    assert len(ring.signers(a_result(keys=ring.newest.bound), suite_of("hybrid"))) == 2


def test_without_a_dataset_no_hpke_key_is_erased() -> None:
    ring, _, _ = aged(10_000, retention=None)
    assert len(ring.hpke) == 10


@pytest.mark.parametrize("hours", [0, 3, 4, 12, 24])
def test_no_result_outlives_the_keys_it_binds(hours: int) -> None:
    ring, life = ring_of(to_records(generate(NOW))), timedelta(hours=hours)
    last = next(m for m in range(24 * 60) if ring.is_due(NOW + timedelta(minutes=m), PLAN, life))
    assert timedelta(minutes=last) + life <= KEY_LIFE_MAX


def test_nothing_of_a_private_key_shows() -> None:
    keys = generate(NOW)
    ring = ring_of(to_records(keys))
    for record in to_records(keys):
        shown = f"{record!r} {ring!r} {keys!r}"
        assert record.private.hex() not in shown
        assert repr(record.private) not in shown


def test_keys_follow_from_the_suites_and_their_order_from_the_table() -> None:
    assert PLAN.signing == (Alg.ED25519, Alg.ML_DSA_65)
    assert PLAN.kems == (Kem.X25519, Kem.MLKEM768_X25519)
    assert plan_for(("hybrid-top", "hybrid", "classic")) == TOP
    assert TOP.signing == (Alg.ED25519, Alg.ML_DSA_65, Alg.ESP384, Alg.ML_DSA_87)
    assert plan_for(("hybrid-top",)).kems == (Kem.MLKEM1024_P384,)


@pytest.mark.parametrize("suites", [(), ("a-suite-of-tomorrow",)])
def test_a_host_always_has_keys_to_attest_with(suites: tuple[str, ...]) -> None:
    assert plan_for(suites) == plan_for(("classic",))


def test_a_policy_that_asks_for_other_keys_makes_the_ring_due() -> None:
    ring = ring_of(to_records(generate(NOW, TOP)))
    assert not ring.is_due(NOW, TOP, RESULT_LIFE)
    assert ring.is_due(NOW, PLAN, RESULT_LIFE)
    assert ring.is_due(NOW, plan_for(("hybrid-top",)), RESULT_LIFE)
    newest = ring.newest
    assert newest is not None
    suite = suite_of("hybrid-top")
    signers = ring.signers(a_result(keys=newest.bound), suite)
    assert tuple(key.public.alg for key in signers) == suite.signatures


def test_a_store_that_is_preferred_now_makes_the_ring_due_and_gets_the_next_key() -> None:
    records = to_records(generate(NOW))
    token = TokenKeys()
    stores = (token, FileKeys())
    ring = Keyring(records, stores)
    assert ring.is_due(NOW, PLAN, RESULT_LIFE)
    fresh = keyring.generate(NOW + timedelta(hours=1), PLAN, stores)
    assert [(key.public.alg, key.store) for key in fresh.signing] == [
        (Alg.ED25519, "pkcs11"),
        (Alg.ML_DSA_65, "file"),
    ]
    again = Keyring([*records, *to_records(fresh)], stores)
    assert not again.is_due(NOW + timedelta(hours=1), PLAN, RESULT_LIFE)
    assert again.newest is not None
    assert again.newest.bound == fresh.bound


def test_a_key_that_its_store_lost_or_a_store_that_is_gone_makes_the_ring_due() -> None:
    token = TokenKeys()
    fresh = keyring.generate(NOW, PLAN, (token, FileKeys()))
    for stores in ((FileKeys(),), (TokenKeys(), FileKeys())):
        ring = Keyring(to_records(fresh), stores)
        assert ring.is_due(NOW, PLAN, RESULT_LIFE)
        assert len(ring.hpke) == 2
        with pytest.raises(DeniedError):
            ring.signers(a_result(keys=fresh.bound), suite_of("hybrid"))


def test_retired_keys_are_destroyed_where_they_live() -> None:
    token = TokenKeys()
    stores = (token, FileKeys())
    ring = Keyring((), stores)
    for day in range(5):
        ring.add(keyring.generate(NOW + timedelta(days=day), PLAN, stores))
    assert len(token.held) == 5
    now = NOW + timedelta(days=4)
    assert len(ring.retire(now, None)) == 4 * 3
    assert len(token.held) == 1
    assert ring.retire(now, None) == []


def test_a_host_that_no_store_can_serve_says_which_setting() -> None:
    with pytest.raises(ConfigInvalid, match=r"keys\.provider.*ML_DSA_65"):
        keyring.generate(NOW, PLAN, (TokenKeys(),))
