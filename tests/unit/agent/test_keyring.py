"""The host's keys: sets, rotation, and which of them a result binds."""

from datetime import UTC, datetime, timedelta

import pytest

from fabric.agent.keyring import KEY_LIFE, Keyring, generate, to_records
from fabric.attest.keys import Use
from fabric.model.errors import DeniedError, Reason
from fabric.seal.suites import suite_of
from tests.fakes.verifier import a_result

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def test_an_empty_ring_is_due() -> None:
    assert Keyring(()).is_due(NOW)
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
    assert not ring.is_due(NOW + timedelta(hours=1))
    assert ring.is_due(NOW + KEY_LIFE)
    assert timedelta(hours=24) > KEY_LIFE


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


def test_old_signing_keys_go_and_old_hpke_keys_stay() -> None:
    sets = [generate(NOW + timedelta(hours=21 * n)) for n in range(5)]
    records = [record for keys in sets for record in to_records(keys)]
    gone = set(Keyring(records).outdated())
    assert gone
    assert all("/hpke/" not in name for name in gone)
    left = Keyring([record for record in records if record.name not in gone])
    assert len(left.hpke) == 10
    assert left.newest is not None
    assert left.newest.bound == sets[-1].bound


def test_nothing_of_a_private_key_shows() -> None:
    keys = generate(NOW)
    ring = Keyring(to_records(keys))
    for record in to_records(keys):
        shown = f"{record!r} {ring!r} {keys!r}"
        assert record.private.hex() not in shown
        assert repr(record.private) not in shown
