"""The broker's cluster as the gateway knows it, and as it shows it to clients.

Clients see the brokers' own node ids, each at the address of a live gateway, so
that their per-broker batching stays as it is. Which gateway stands for which node
depends on the client's identity alone: identities spread over the gateways, every
gateway gives the same answer, and one sender keeps to one gateway's replay memory.
Gateways that stand for no node are shown under node ids no broker has, live or not:
some clients forget their bootstrap list, and one that met a gateway before its
neighbour was up would have nowhere to go when that gateway dies. Pure state, no I/O.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from typing import TypeAlias

from fabric.gateway.apis import Api, intersect
from fabric.kafka.broker_answers import Cluster
from fabric.model.limits import LEADERS_REMEMBERED

Address: TypeAlias = tuple[str, int]

_SPARE = 1_000_000_000
"""Node ids from here on, by place in the advertised list, are gateways that stand for no node."""


class Directory:
    """Nodes, leaders and offered versions, learned from brokers; live gateways, told by the shell.

    Args:
        advertised: addresses of all gateways, as clients reach them.
    """

    def __init__(self, advertised: Sequence[Address]) -> None:
        self._advertised = tuple(advertised)
        self._live = self._advertised
        self._nodes: dict[int, Address] = {}
        self._leaders: dict[tuple[str, int], int] = {}
        self._spans = intersect(dict.fromkeys(Api, (0, 2**15 - 1)))

    @property
    def advertised(self) -> tuple[Address, ...]:
        """Every gateway, live or not."""
        return self._advertised

    @property
    def spans(self) -> Mapping[Api, tuple[int, int]]:
        """What ApiVersions answers say."""
        return self._spans

    def offered(self, by_broker: Mapping[int, tuple[int, int]]) -> None:
        """Take in which versions the brokers serve."""
        self._spans = intersect(by_broker)

    def alive(self, gateways: Iterable[Address]) -> None:
        """Take in which gateways answer; none at all is taken as all."""
        found = set(gateways)
        self._live = tuple(a for a in self._advertised if a in found) or self._advertised

    def learn(self, cluster: Cluster) -> None:
        """Take in a Metadata answer."""
        self._nodes = dict(cluster.nodes) or self._nodes
        if len(self._leaders) + len(cluster.leaders) > LEADERS_REMEMBERED:
            self._leaders.clear()  # who leads the others is asked anew
        self._leaders.update(cluster.leaders)

    def forget(self, topic: str, partition: int) -> None:
        """The leader of a partition is not what we thought."""
        self._leaders.pop((topic, partition), None)

    def leader(self, topic: str, partition: int) -> int | None:
        """Node that leads a partition, as far as known."""
        node = self._leaders.get((topic, partition))
        return node if node in self._nodes else None

    def address(self, node: int) -> Address | None:
        """Where a broker is reached."""
        return self._nodes.get(node)

    def shown(self, identity: str) -> dict[int, Address]:
        """The nodes as a client of this identity shall see them; empty before any was learned."""
        live = self._live
        turn = int.from_bytes(sha256(identity.encode()).digest()[:4])
        shown = {
            node: live[(turn + place) % len(live)] for place, node in enumerate(sorted(self._nodes))
        }
        for place, address in enumerate(self._advertised):
            if shown and address not in shown.values():
                shown[_SPARE + place] = address
        return shown
