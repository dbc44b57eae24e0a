from datetime import UTC, datetime, timedelta

import pytest

from fabric.admit.view import Place
from fabric.gateway import producers
from fabric.gateway.producers import Producers
from fabric.model.errors import DeniedError, Reason

NOW = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "PRODUCER_IDS_PER_IDENTITY_MAX", 3)


def test_an_identity_has_so_many_producer_ids_and_its_own() -> None:
    known = Producers()
    for partition, ident in ((0, 7), (1, 7), (0, 8)):
        known.use("a", Place("open", partition), ident, NOW)
    known.use("a", Place("open", 0), 7, NOW)
    with pytest.raises(DeniedError) as caught:
        known.use("a", Place("open", 0), 9, NOW)
    assert caught.value.reason is Reason.OVERLOADED
    known.use("b", Place("open", 0), 9, NOW)


def test_an_id_is_forgotten_a_day_after_its_last_use_as_brokers_do() -> None:
    known = Producers()
    for ident in (1, 2, 3):
        known.use("a", Place("open", 0), ident, NOW)
    known.use("a", Place("open", 0), 1, NOW + timedelta(hours=20))
    later = NOW + timedelta(hours=24, seconds=1)
    known.use("a", Place("open", 0), 4, later)
    known.use("a", Place("open", 0), 5, later)
    with pytest.raises(DeniedError):
        known.use("a", Place("open", 0), 6, later)
    known.use("a", Place("open", 0), 1, later)


def test_who_uses_none_is_not_remembered() -> None:
    known = Producers()
    for partition in range(9):
        known.use("a", Place("open", partition), -1, NOW)
    assert not known._last_used


def test_an_identity_that_has_gone_is_forgotten_a_day_after_its_last_use() -> None:
    known = Producers()
    for number in range(100):
        known.use(f"gone {number}", Place("open", 0), 7, NOW)
    known.use("stays", Place("open", 0), 7, NOW)
    known.use("gone 3", Place("open", 0), 7, NOW + timedelta(hours=1))
    later = NOW + timedelta(hours=24, seconds=1)
    known.use("stays", Place("open", 1), 7, later)
    assert len(known._last_used) >= 90, "one call does a bounded work"
    for _ in range(100):
        known.use("stays", Place("open", 1), 7, later)
    assert known._last_used.keys() == {"gone 3", "stays"}
    for ident in (8, 9):
        known.use("gone 3", Place("open", 0), ident, later)
    with pytest.raises(DeniedError):
        known.use("gone 3", Place("open", 0), 10, later)
