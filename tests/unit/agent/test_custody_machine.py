"""When a custodian acts for a sender."""

from datetime import UTC, datetime, timedelta

from fabric.agent.custody_machine import TURN_S, CustodyMachine, Held
from fabric.agent.epoch_machine import Served, Wanted
from fabric.model.limits import CUSTODY_AFTER_S
from fabric.model.names import HostId

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SENDER = HostId.parse("G01/registry/a1")
OTHER = HostId.parse("G01/registry/a2")
B = HostId.parse("G02/health/b1")
C = HostId.parse("G03/statistics/c1")
KEY = b"k" * 32


def held(number: int, *hosts: HostId, sender: HostId = SENDER, reset: bool = False) -> Held:
    served = frozenset((host, KEY) for host in hosts)
    started = NOW - timedelta(days=10 - number)
    return Held(
        sender=sender,
        served=Served(number=number, started=started, served=served),
        chain_reset=reset,
    )


def wanted(*hosts: HostId, retained: bool = True) -> Wanted:
    return Wanted(
        hosts=dict.fromkeys(hosts, KEY), refused={}, retained=retained, result_lifetime_s=600
    )


Due = list[tuple[HostId, int, tuple[HostId, ...]]]


class Custodian:
    """Asks the machine at times, in seconds from NOW."""

    def __init__(
        self,
        *epochs: Held,
        turn: int = 0,
        retained: bool = True,
        after_s: float = CUSTODY_AFTER_S,
    ) -> None:
        self._machine = CustodyMachine(after_s)
        self._epochs = epochs
        self._turn = turn
        self._retained = retained
        self.here = {SENDER: False, OTHER: True}

    def at(self, seconds: float) -> Due:
        return self._machine.due(
            self._epochs,
            wanted(B, C, retained=self._retained),
            here=self.here,
            turn=self._turn,
            now=NOW + timedelta(seconds=seconds),
        )


def test_a_custodian_waits_until_the_sender_has_been_away_for_a_while() -> None:
    it = Custodian(held(1, SENDER, B), held(2, SENDER, B, C))
    assert it.at(0) == []
    assert it.at(CUSTODY_AFTER_S - 1) == []
    assert it.at(CUSTODY_AFTER_S) == [(SENDER, 1, (C,))]


def test_how_long_a_custodian_waits_is_the_operators_choice() -> None:
    it = Custodian(held(1, SENDER, B), after_s=5)
    assert it.at(0) == it.at(4) == []
    assert it.at(5) == [(SENDER, 1, (C,))]


def test_a_sender_that_is_here_grants_for_itself() -> None:
    it = Custodian(held(1, SENDER, B))
    it.here[SENDER] = True
    assert it.at(0) == it.at(10_000) == []


def test_a_sender_that_came_back_has_its_time_anew() -> None:
    it = Custodian(held(1, SENDER, B))
    it.at(0)
    it.here[SENDER] = True
    it.at(CUSTODY_AFTER_S - 1)
    it.here[SENDER] = False
    assert it.at(CUSTODY_AFTER_S) == []
    assert it.at(2 * CUSTODY_AFTER_S) == [(SENDER, 1, (C,))]


def test_each_custodian_waits_longer_than_the_one_before_it() -> None:
    it = Custodian(held(1, SENDER, B), turn=2)
    it.at(0)
    assert it.at(CUSTODY_AFTER_S + TURN_S) == []
    assert it.at(CUSTODY_AFTER_S + 2 * TURN_S) == [(SENDER, 1, (C,))]


def test_nothing_is_due_when_everyone_is_served() -> None:
    it = Custodian(held(1, SENDER, B, C))
    it.at(0)
    assert it.at(CUSTODY_AFTER_S) == []


def test_each_sender_is_judged_alone() -> None:
    it = Custodian(held(1, SENDER, B), held(1, OTHER, B, sender=OTHER))
    it.at(0)
    assert it.at(CUSTODY_AFTER_S) == [(SENDER, 1, (C,))]


def test_epochs_before_a_chain_reset_are_orphans_though_their_sender_is_here() -> None:
    it = Custodian(held(1, SENDER, B), held(2, SENDER, B, reset=True), held(3, SENDER, B))
    it.here[SENDER] = True
    assert it.at(0) == []
    assert it.at(CUSTODY_AFTER_S) == [(SENDER, 1, (C,))]


def test_under_from_join_a_custodian_serves_an_epoch_only_to_whom_it_had_served_before() -> None:
    """Since when a host is named its sender alone knows."""
    renewed = Held(
        sender=SENDER,
        served=Served(number=2, started=NOW, served=frozenset({(SENDER, KEY), (B, b"o" * 32)})),
        chain_reset=False,
    )
    it = Custodian(held(1, SENDER), renewed, held(3, SENDER), retained=False)
    it.at(0)
    assert it.at(CUSTODY_AFTER_S) == [(SENDER, 2, (B,))]
