"""The gateway's machine on a stage: requests in words, commands in words.

Topics are called `sealed`, `open`, `grants`, `members`, `results`. A part of a Produce
request is `topic:partition=record[+record...]`; `record_of` knows the words.
"""

import gzip
from collections.abc import Callable, Sequence
from datetime import timedelta

from fabric.attest.members import notice_record
from fabric.gateway.apis import Api
from fabric.gateway.cluster import Directory
from fabric.gateway.identity import Identity
from fabric.gateway.machine import (
    Answered,
    Close,
    Command,
    Connection,
    Event,
    Expired,
    Failed,
    Forward,
    Note,
    Pass,
    Received,
    Reply,
)
from fabric.kafka.producer import CONTENT_TYPE
from fabric.model.names import MEMBERS, RESULTS
from tests.fakes import kafka_frames
from tests.fakes.gateway import GATEWAYS, GRANTS, OPEN, SEALED, World, a_directory, batch
from tests.fakes.kafka_frames import Broker, read_answer, read_request
from tests.fakes.verifier import a_notice

TOPICS = {
    "sealed": SEALED,
    "open": OPEN,
    "grants": GRANTS,
    "members": MEMBERS,
    "results": RESULTS,
    "unknown": "secret.G01.unknown",
    "other": "public.G01.other",
}
_ALIASES = {topic: alias for alias, topic in TOPICS.items()}


def alias(topic: str) -> str:
    return _ALIASES.get(topic, topic)


def flipped(data: bytes) -> bytes:
    """With another last byte, whatever it was: one signature in sixteen ends in zero."""
    return data[:-1] + bytes([data[-1] ^ 1])


class Stage:
    """One connection in front of a scripted broker.

    Args:
        client: `a`, `b`, `verifier` or `admin`.
        nodes: broker nodes; partition p is led by node p modulo their number.
        view: `fresh`, `stale` (two heartbeats missed), `unread` or `none`.
    """

    def __init__(
        self, client: str = "a", *, nodes: Sequence[int] = (1,), view: str = "fresh"
    ) -> None:
        self.world = World()
        self.now = self.world.now
        self.broker = Broker({node: (f"broker{node}", 9092) for node in nodes})
        self.directory: Directory = a_directory(nodes=tuple(nodes))
        self.broker.leaders = {
            (topic, partition): nodes[partition % len(nodes)]
            for topic in (SEALED, OPEN)
            for partition in range(2)
        }
        self.judge = self.world.judge()
        if view == "none":
            self.judge.view = None
        if view == "unread":
            self.judge.is_caught_up = lambda: False
        if view == "stale":
            self.now += timedelta(seconds=3)
        self.machine = Connection(self._identity(client), self.judge, self.directory)
        self.forwards: dict[int, Forward] = {}
        self._asked: list[tuple[int, int]] = []
        self._correlation = 0

    def _identity(self, client: str) -> Identity:
        if client in ("verifier", "admin"):
            return self.world.platform(client)
        return self.world.identity(self.world.a if client == "a" else self.world.b)

    def forget_leaders(self) -> None:
        """As a gateway that has just started."""
        self.directory = Directory(GATEWAYS)
        self.machine = Connection(self.machine._identity, self.judge, self.directory)

    def suspend(self) -> None:
        """The authority suspends host a."""
        notice = a_notice(1, host=self.world.a.host, at=self.now)
        self.world.members.feed(MEMBERS, *notice_record(notice, self.world.verifier.signers))

    def step(self, event: Event) -> list[str]:
        """Run one event; the commands in words."""
        commands = self.machine.step(event, self.now)
        return [self._say(command) for command in commands]

    def request(self, words: str) -> list[str]:
        """A request such as `produce v9 acks=1 sealed:0=envelope`."""
        return self.step(Received(self.frame(words)))

    def frame(self, words: str) -> bytes:
        """The frame of a request in words."""
        name, version_word, *rest = words.split()
        version = int(version_word[1:])
        self._correlation += 1
        number = self._correlation
        options = dict(w.split("=", 1) for w in rest if ":" not in w and "=" in w)
        plain = [word for word in rest if "=" not in word]
        if name == "produce":
            self._asked.append((0, version))
            parts = [self._part(word) for word in rest if ":" in word]
            return kafka_frames.produce(
                version,
                number,
                parts,
                acks=int(options.get("acks", "-1")),
                timeout_ms=int(options.get("timeout", "5000")),
                transactional_id=options.get("transaction"),
            )
        if name == "metadata":
            self._asked.append((3, version))
            topics = None if plain == ["all"] else [TOPICS[word] for word in plain]
            return kafka_frames.metadata(version, number, topics)
        if name == "api_versions":
            self._asked.append((18, version if version <= 4 else 0))
            frame = kafka_frames.api_versions(min(version, 4), number)
            return frame[:2] + version.to_bytes(2) + frame[4:]
        if name == "init_producer_id":
            self._asked.append((22, version))
            return kafka_frames.init_producer_id(version, number, options.get("transaction"))
        if name == "api":
            return int(version).to_bytes(2) + bytes(8)
        api = 3 if name == "raw-metadata" else 0
        tail = bytes.fromhex("".join(plain))
        return kafka_frames.head(api, version, number) + tail

    def _part(self, word: str) -> tuple[str, int, bytes | None]:
        place, _, content = word.partition("=")
        topic, _, partition = place.partition(":")
        return TOPICS[topic], int(partition), self._records(content)

    def _records(self, content: str) -> bytes | None:
        world = self.world
        whole: dict[str, Callable[[], bytes | None]] = {
            "none": lambda: None,
            "garbage": lambda: b"garbage",
            "torn": lambda: batch(world.seal())[:-1],
            "transactional": lambda: batch(world.open_record(), is_transactional=True),
            "keyed": lambda: batch(world.seal(), key=b"k"),
            "headed": lambda: batch(world.seal(), headers=[("name", b"Alice")]),
            "typed": lambda: batch(world.seal(), headers=[CONTENT_TYPE]),
            "mistyped": lambda: batch(world.seal(), headers=[("content-type", b"NAME=An")]),
            "zipped": lambda: batch(world.open_record(), codec=1),
            "zipped-envelope": lambda: batch(world.seal(), codec=1),
            "many": lambda: batch(*[world.seal()] * 257),
            "start": lambda: batch(world.started.value, key=f"{world.a.host}/start/1".encode()),
            "foreign-start": lambda: batch(
                world.started.value, key=f"{world.b.host}/start/1".encode()
            ),
            "heartbeat": lambda: batch(world.heartbeat()[2], key=world.heartbeat()[1]),
            "forged-heartbeat": lambda: batch(World().heartbeat()[2], key=world.heartbeat()[1]),
            "tombstone": lambda: batch(None, key=world.heartbeat()[1]),
        }
        if content in whole:
            return whole[content]()
        return batch(*(self.record_of(word) for word in content.split("+")))

    def record_of(self, word: str) -> bytes | None:
        """The value of a record."""
        world = self.world
        words: dict[str, Callable[[], bytes | None]] = {
            "envelope": world.seal,
            "again": lambda: world.sealed[-1].data,
            "first": lambda: world.sealed[0].data,
            "bs-envelope": lambda: world.seal_as(world.b),
            "changed": lambda: flipped(world.seal()),
            "old": lambda: world.seal(now=self.now - timedelta(seconds=61)),
            "unknown-result": lambda: world.seal(result_id=bytes(16)),
            "plain": lambda: b"plain text",
            "gzip": lambda: gzip.compress(b"x"),
            "null": lambda: None,
            "open": world.open_record,
            "foreign": lambda: world.open_record("G02/health/main"),
            "schema": lambda: world.open_record(schema_id=99),
        }
        return words[word]()

    def answer(self, ticket: int) -> list[str]:
        """The broker answers a forward."""
        frame = self.broker.answer(self.forwards.pop(ticket).frame)
        return self.step(Answered(ticket, frame))

    def garble(self, ticket: int, frame: bytes = b"nonsense") -> list[str]:
        """The broker answers nonsense."""
        del self.forwards[ticket]
        return self.step(Answered(ticket, frame))

    def fail(self, ticket: int) -> list[str]:
        """A forward gets no answer."""
        del self.forwards[ticket]
        return self.step(Failed(ticket))

    def expire(self) -> list[str]:
        """The certificate ends, or nobody spoke for long."""
        return self.step(Expired())

    def _say(self, command: Command) -> str:
        match command:
            case Forward():
                self.forwards[command.ticket] = command
                node = "any" if command.node is None else str(command.node)
                return f"forward {command.ticket} to {node}: {_asked(command.frame)}"
            case Reply():
                api, version = self._asked.pop(0)
                assert command.api == api
                if command.frame is None:
                    return "reply nothing"
                return f"reply {_told(api, version, command.frame)}"
            case Pass():
                return f"pass {alias(command.topic)} {command.records}"
            case Note():
                digest = "" if command.digest else " without a record"
                place = f"{alias(command.topic)}:{command.partition}" if command.topic else "-"
                return f"note {place} {command.reason}{digest}"
            case Close():
                return "close" if command.reason is None else f"close {command.reason}"


def _asked(frame: bytes) -> str:
    asked = read_request(frame)
    name = Api(asked.api).name.lower()
    if asked.api == 0:
        places = [
            f"{alias(str(topic.name))}:{part.index}"
            for topic in asked.body.topic_data
            for part in topic.partition_data
        ]
        return f"{name} v{asked.version} acks={asked.body.acks} {' '.join(places)}"
    if asked.api == 3:
        topics = asked.body.topics
        names = "all" if topics is None else " ".join(alias(str(t.name)) for t in topics)
        return f"{name} v{asked.version} {names}"
    return f"{name} v{asked.version}"


def _told(api: int, version: int, frame: bytes) -> str:
    correlation, body = read_answer(api, version, frame)
    if api == 0:
        return f"{correlation}: " + ", ".join(
            _outcome(str(topic.name), part)
            for topic in body.responses
            for part in topic.partition_responses
        )
    if api == 3:
        nodes = " ".join(f"{b.node_id}={b.host}:{b.port}" for b in body.brokers)
        topics = [f"{alias(str(t.name))}/{int(t.error_code)}" for t in body.topics]
        return f"{correlation}: {nodes} {' '.join(topics)}".rstrip()
    if api == 22:
        return f"{correlation}: error {int(body.error_code)} producer {body.producer_id}"
    spans = " ".join(f"{k.api_key}={k.min_version}..{k.max_version}" for k in body.api_keys)
    return f"{correlation}: error {int(body.error_code)} {spans}"


def _outcome(topic: str, part: object) -> str:
    place = f"{alias(topic)}:{part.index}"  # type: ignore[attr-defined]  # kio's, any version
    error = int(part.error_code)  # type: ignore[attr-defined]
    if error == 0:
        return f"{place} stored at {part.base_offset}"  # type: ignore[attr-defined]
    bad = "".join(f" #{e.batch_index}" for e in getattr(part, "record_errors", ()))
    return f"{place} error {error}{bad}"
