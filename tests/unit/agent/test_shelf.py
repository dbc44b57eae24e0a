"""Epochs on their sender's shelf."""

from datetime import timedelta
from pathlib import Path

from fabric.agent.shelf import Shelf
from fabric.model.names import HostId
from fabric.store.state import StateFile, StoredEpoch
from tests.fakes.platform import A, Platform, TestHost
from tests.fakes.sealing import NOW, TOPIC, Party

SENDER, READER = Party.make(), Party.make("G02/health/b1")
LATE = (HostId.parse("G03/tax/c1"), b"t" * 32)


def stored(number: int) -> StoredEpoch:
    started = NOW + timedelta(days=number)
    made = SENDER.start(SENDER.draft(number, started=started), [READER])
    secret = SENDER.secret(number).private_bytes()
    return StoredEpoch(topic=TOPIC, number=number, started=started, start=made.value, secret=secret)


def state_of(folder: Path) -> StateFile:
    return TestHost(Platform(), A, folder).open().host.identity.state


def test_an_epoch_is_on_disk_when_it_is_on_the_shelf(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    it = Shelf(state, TOPIC)
    it.add(stored(1))
    assert [item.number for item in state.epochs(TOPIC)] == [1]
    assert it.secret_of(1) == SENDER.secret(1).private_bytes()
    assert it.secret_of(2) is None


def test_starts_and_grants_are_remembered_in_the_next_life(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    it = Shelf(state, TOPIC)
    for number in (1, 2):
        it.add(stored(number))
    first = next(iter(it))
    it.granted(first, frozenset({LATE}))
    again = Shelf(state, TOPIC)
    named = {(party.host, party.key.public.thumbprint) for party in (SENDER, READER)}
    assert [kept.served for kept in again] == [named | {LATE}, named]
    assert [kept.as_served() for kept in again] == [kept.as_served() for kept in it]


def test_only_manifests_stand_on_the_shelf(tmp_path: Path) -> None:
    it = Shelf(state_of(tmp_path), TOPIC)
    it.add(stored(1))
    assert [kept.opened.wraps for kept in it] == [()]


def test_numbers_rise_also_after_the_state_file_was_lost(tmp_path: Path) -> None:
    it = Shelf(state_of(tmp_path), TOPIC)
    assert it.next_number(NOW) == int(NOW.timestamp())
    it.add(stored(4))
    assert it.next_number(NOW) == 5


def test_old_epochs_are_erased_but_never_the_newest(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    it = Shelf(state, TOPIC)
    for number in (1, 2, 3):
        it.add(stored(number))
    it.erase(NOW + timedelta(days=2))
    assert [kept.number for kept in it] == [2, 3]
    it.erase(NOW + timedelta(days=9))
    assert [item.number for item in state.epochs(TOPIC)] == [3]
    assert it.next_number(NOW) == 4
