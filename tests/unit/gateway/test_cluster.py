import pytest

from fabric.gateway import cluster
from fabric.gateway.apis import Api
from fabric.gateway.cluster import Directory
from fabric.kafka.broker_answers import Cluster
from tests.fakes.gateway import GATEWAYS, a_directory

CLIENTS = [f"G01/registry/a{number}" for number in range(40)]


def test_nodes_keep_their_ids_and_get_gateways_addresses() -> None:
    directory = a_directory(nodes=(1, 2, 3))
    for client in CLIENTS:
        shown = directory.shown(client)
        assert set(shown) == {1, 2, 3}
        assert set(shown.values()) == set(GATEWAYS)


def test_every_gateway_shows_a_client_the_same() -> None:
    one, other = a_directory(nodes=(1, 2)), a_directory(nodes=(1, 2))
    assert [one.shown(c) for c in CLIENTS] == [other.shown(c) for c in CLIENTS]


def test_clients_spread_over_gateways_and_learn_of_all_of_them_with_one_broker() -> None:
    directory = a_directory()
    assert {directory.shown(client)[1] for client in CLIENTS} == set(GATEWAYS)
    for client in CLIENTS:
        assert set(directory.shown(client).values()) == set(GATEWAYS)


def standing_for_nodes(directory: Directory) -> set[tuple[str, int]]:
    return {directory.shown("x")[node] for node in (1, 2)}


def test_dead_gateways_stand_for_no_node_and_all_dead_means_all() -> None:
    directory = a_directory(nodes=(1, 2))
    directory.alive(GATEWAYS[:1])
    assert standing_for_nodes(directory) == set(GATEWAYS[:1])
    directory.alive(())
    assert standing_for_nodes(directory) == set(GATEWAYS)
    directory.alive([("elsewhere", 1)])
    assert standing_for_nodes(directory) == set(GATEWAYS)


def test_a_gateway_that_is_down_is_shown_under_a_spare_id_because_it_may_be_all_that_is_left() -> (
    None
):
    directory = a_directory(nodes=(1, 2))
    before = directory.shown("x")
    directory.alive(GATEWAYS[:1])
    shown = directory.shown("x")
    assert set(shown.values()) == set(before.values()) == set(GATEWAYS)
    assert min(set(shown) - {1, 2}) > 2**29


def test_before_anything_was_learned_nothing_is_shown() -> None:
    directory = Directory(GATEWAYS)
    assert directory.shown("x") == {}
    assert directory.leader("a", 0) is None
    assert directory.address(1) is None


def test_leaders_are_learned_and_forgotten() -> None:
    directory = a_directory({("a", 0): 1, ("a", 1): -1, ("a", 2): 9})
    assert directory.leader("a", 0) == 1
    assert directory.leader("a", 1) is None  # no leader now
    assert directory.leader("a", 2) is None  # a node without an address
    directory.forget("a", 0)
    directory.forget("a", 0)
    assert directory.leader("a", 0) is None


def test_an_answer_without_nodes_does_not_lose_them() -> None:
    directory = a_directory()
    directory.learn(Cluster(nodes={}, leaders={}))
    assert directory.address(1) == ("broker1", 9092)


def test_versions_are_the_tables_until_a_broker_narrows_them() -> None:
    directory = Directory(GATEWAYS)
    assert directory.spans[Api.PRODUCE] == (0, 12)
    directory.offered({0: (3, 9)})
    assert directory.spans == {Api.PRODUCE: (3, 9), Api.API_VERSIONS: (0, 4)}


def test_a_broker_that_names_partitions_without_end_fills_no_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "LEADERS_REMEMBERED", 100)
    directory = Directory(GATEWAYS)
    for number in range(50):
        leaders = {(f"topic{number}", partition): 1 for partition in range(40)}
        directory.learn(Cluster(nodes={1: ("broker1", 9092)}, leaders=leaders))
        assert len(directory._leaders) <= 100
    assert directory.leader("topic49", 39) == 1
