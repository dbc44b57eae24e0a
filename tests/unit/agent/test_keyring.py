"""The host's keys: sets, rotation, and which of them a result binds."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.keyring import KEY_LIFE, KEY_LIFE_MAX, Keyring, generate, to_records
from fabric.attest.keys import Use
from fabric.model.errors import DeniedError, Reason
from fabric.seal.suites import suite_of
from tests.fakes.verifier import a_result

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
RESULT_LIFE = timedelta(minutes=10)


def test_an_empty_ring_is_due() -> None:
    assert Keyring(()).is_due(NOW, RESULT_LIFE)
    assert Keyring(()).newest is None


def test_bound_keys_are_signing_then_tls_then_hpke() -> None:
    keys = generate(NOW)
    uses = [key.use for key in keys.bound]
    assert uses == [Use.SIGN, Use.SIGN, Use.TLS, Use.HPKE, Use.HPKE]
    signers = [key.public for key in keys.signers]
    assert signers == [key for key in keys.bound if key.use is not Use.HPKE]


def test_a_ring_comes_back_from_its_records() -> None:
    first, second = generate(NOW), generate(NOW + timedelta(hours=21))
    ring = Keyring([*to_records(second), *to_records(first)])
    assert ring.newest is not None
    assert ring.newest.bound == second.bound
    assert len(ring.hpke) == 4


def test_keys_live_less_than_a_day() -> None:
    ring = Keyring(to_records(generate(NOW)))
    assert not ring.is_due(NOW + timedelta(hours=1), RESULT_LIFE)
    assert ring.is_due(NOW + KEY_LIFE, RESULT_LIFE)
    assert timedelta(hours=24) == KEY_LIFE_MAX


@pytest.mark.parametrize("hours", [0, 3, 4, 12, 24])
def test_no_result_outlives_the_keys_it_binds(hours: int) -> None:
    ring, life = Keyring(to_records(generate(NOW))), timedelta(hours=hours)
    last = next(m for m in range(24 * 60) if ring.is_due(NOW + timedelta(minutes=m), life))
    assert timedelta(minutes=last) + life <= KEY_LIFE_MAX


def test_blocks_are_signed_by_the_keys_their_result_binds() -> None:
    old, new = generate(NOW), generate(NOW + timedelta(hours=21))
    ring = Keyring([*to_records(old), *to_records(new)])
    suite = suite_of("hybrid")
    for keys in (old, new):
        signers = ring.signers(a_result(keys=keys.bound), suite)
        assert [key.public for key in signers] == [key.public for key in keys.signing]
    assert len(ring.signers(a_result(keys=new.bound), suite_of("classic"))) == 1


def test_a_result_that_binds_others_keys_signs_nothing() -> None:
    ring = Keyring(to_records(generate(NOW)))
    with pytest.raises(DeniedError) as caught:
        ring.signers(a_result(), suite_of("hybrid"))
    assert caught.value.reason is Reason.NOT_ATTESTED


def aged(hours: int, *, retention: timedelta | None) -> tuple[Keyring, Keyring, list[str]]:
    """Five sets, one every 20 h; the ring `hours` after the first, what is left, what went."""
    sets = [generate(NOW + timedelta(hours=20 * n)) for n in range(5)]
    records = [record for keys in sets for record in to_records(keys)]
    ring = Keyring(records)
    gone = ring.erase(NOW + timedelta(hours=hours), retention)
    left = Keyring([record for record in records if record.name not in gone])
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
    ring = Keyring([*to_records(first), *to_records(second)])
    ring.erase(NOW + timedelta(hours=23), None)
    assert ring.signers(a_result(keys=first.bound), suite_of("hybrid"))
    ring.erase(NOW + timedelta(hours=24), None)
    with pytest.raises(DeniedError):
        ring.signers(a_result(keys=first.bound), suite_of("hybrid"))


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


def test_nothing_of_a_private_key_shows() -> None:
    keys = generate(NOW)
    ring = Keyring(to_records(keys))
    for record in to_records(keys):
        shown = f"{record!r} {ring!r} {keys!r}"
        assert record.private.hex() not in shown
        assert repr(record.private) not in shown
