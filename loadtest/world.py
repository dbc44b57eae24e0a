"""The load test's world: the demo's parts, with datasets, lifetimes and clients of its own."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fabric.authority.admin import list_enrolments
from fabric.config import AuthorityConfig
from fabric.demo import configs
from fabric.demo.fleet import await_that
from fabric.demo.layout import SOURCE_NAME
from fabric.demo.policy import LEVELS
from fabric.demo.process import spawn
from fabric.demo.say import Teller
from fabric.demo.world import Wish, World, build, start_platform
from fabric.model.errors import FabricError, Reason, UnavailableError
from loadtest.links import Route
from loadtest.rows import write_pool

_RESULT_S = 1_800
"""Results live through a whole run, so that no renewal falls into a measurement."""
_JOB_S_MAX = 300.0
_START_S_MAX = 60.0
ORIGIN = "G01/registry/bench"
OPEN, CLASSIC, HYBRID = "public.G01.open", "confidential.G01.classic", "secret.G01.hybrid"
PEER = "public.G01.peer"
GATEWAY = "-gateway"
"""Each dataset has a twin that only what goes through the gateway is written to."""
LIGHT = "confidential.G01.light"
TABLES = {LIGHT: {"suite": "classic", "producers": [f"G01/registry/{SOURCE_NAME}"]}}
"""Between two tables: the demo's own dataset with `hybrid`, and this one with `classic`."""
_SUITES = {OPEN: "", CLASSIC: "classic", HYBRID: "hybrid", PEER: ""}


class Client:
    """A worker process that measures; see loadtest.worker."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        self._child = subprocess.Popen(
            [sys.executable, "-m", "loadtest.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
            cwd=Path(__file__).parents[1],
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def send(self, job: Mapping[str, Any]) -> None:
        """Give it a job."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(job) + "\n")
        self._child.stdin.flush()

    def answer(self, wait_s: float = _JOB_S_MAX) -> dict[str, float]:
        """What came of it; raises UnavailableError when it failed or did not end in time."""
        assert self._child.stdout is not None
        watch = threading.Timer(wait_s, self._child.kill)
        watch.start()
        try:
            line = self._child.stdout.readline()
        finally:
            watch.cancel()
        told: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in told:
            raise UnavailableError(Reason.INTERNAL, f"client: {told['error']}; see {self._log}")
        result: dict[str, float] = told["ok"]
        return result

    def do(self, job: Mapping[str, Any], wait_s: float = _JOB_S_MAX) -> dict[str, float]:
        """Give it a job and wait for its answer."""
        self.send(job)
        return self.answer(wait_s)

    def stop(self) -> None:
        """End it: its input ends, and at last its patience is ours."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            self._child.wait(30)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait(10)


def as_delivered(config: str) -> str:
    """A demo's configuration without what it does every second or two for its viewers' sake."""
    for demo in ("refresh_s = 1\n", "head_interval_s = 2\n"):
        assert demo in config
        config = config.replace(demo, "")
    return config


class Bench:
    """Everything that runs during the load test."""

    def __init__(self, *, partitions: int = 1, more: Mapping[str, Any] | None = None) -> None:
        """Build it.

        Args:
            partitions: of the fabric's datasets.
            more: further dataset documents by topic, over the hybrid dataset's.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="fabric-bench-"))
        self.folder.chmod(0o755)
        self.pool = self.folder / "pool.json"
        self.clients: dict[str, Client] = {}
        self.world: World = build(Wish(folder=self.folder / "world", lasts=True), Teller())
        self._clean = False
        try:
            self.world.layout.hosts.pop("C")
            write_pool(self.pool)
            self._write_policy(partitions, more or {})
            self._trust_commit_times()
            gateway = self.world.layout.folder / "gateway" / "gateway.toml"
            gateway.write_text(as_delivered(gateway.read_text()))
            start_platform(self.world)
            self.admin = AdminClient(self.direct.librdkafka())
        except BaseException:
            self.stop()
            raise

    # What was built

    @property
    def direct(self) -> Route:
        """To the broker as a super-user: the way round the gateway."""
        certificate, key = self.world.layout.platform("admin")
        return Route(
            bootstrap=self.world.broker.address,
            certificate=certificate,
            key=key,
            ca=self.world.layout.ca,
        )

    @property
    def gateway(self) -> Route:
        """To the gateway as host A."""
        host = self.world.host("A")
        return Route(
            bootstrap=self.world.layout.gateway,
            certificate=host.certificate,
            key=host.key,
            ca=self.world.layout.ca,
        )

    def _write_policy(self, partitions: int, more: Mapping[str, Any]) -> None:
        folder = self.world.layout.policy
        levels = [{**level, "result_lifetime_s": _RESULT_S} for level in LEVELS]
        (folder / "levels.yaml").write_text(yaml.safe_dump(levels, sort_keys=False))
        sample = yaml.safe_load((folder / "datasets/G01/residents.yaml").read_text())
        sample["producers"] = [ORIGIN]
        for number, (topic, suite) in enumerate(_SUITES.items()):
            for twin in ("", GATEWAY):
                fields = {"schema_id": 100 + 2 * number + bool(twin), "partitions": partitions}
                self._write_dataset(topic + twin, {**sample, **fields, "suite": suite})
        for number, (topic, fields) in enumerate(more.items()):
            document = {**sample, "schema_id": 200 + number, "suite": "hybrid", **fields}
            self._write_dataset(topic, document)
        self.world.policy.publish()

    def _write_dataset(self, topic: str, document: dict[str, Any]) -> None:
        level, _, rest = topic.partition(".")
        agency, _, name = rest.rpartition(".")
        document |= {
            "level": level,
            "label": level if level == "public" else f"{level}+personal-data",
            "salt": os.urandom(32).hex(),
        }
        if level == "public":
            document["tags"] = {}
        path = self.world.layout.policy / "datasets" / agency / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def schema_id(self, topic: str) -> int:
        """Schema id of a dataset."""
        return 100 + 2 * [*_SUITES].index(topic.removesuffix(GATEWAY)) + topic.endswith(GATEWAY)

    def _trust_commit_times(self) -> None:
        """The server writes down when each transaction committed: no clock of ours is needed."""
        postgres = self.world.postgres
        assert postgres is not None
        with psycopg.connect(postgres.url("postgres"), autocommit=True) as server:
            server.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        postgres.stop()
        postgres.start()

    # Clients

    def start_clients(self) -> None:
        """Peers, and hosts A and B, attested."""
        self.clients["peers"] = Client(["peers"], self.folder / "peers.log")
        for letter in self.world.layout.hosts:
            host = self.world.host(letter)
            config = host.folder / "bench.toml"
            tcti = self.world.machines[letter].tpm.tcti
            broker = self.world.broker.address
            config.write_text(configs.agent_toml(self.world.layout, host, broker, tcti, ""))
            arguments = ["host", str(config), broker]
            self.clients[letter] = Client(arguments, self.folder / f"host-{letter}.log")
        self._approve()
        for letter in self.world.layout.hosts:
            self.clients[letter].do({"op": "ready"}, _START_S_MAX)

    def _approve(self) -> None:
        """The second person adds the keys that enrolled."""
        config = AuthorityConfig.load(self.world.layout.folder / "authority" / "authority.toml")
        wanted = {str(host.id) for host in self.world.layout.hosts.values()}
        found: dict[str, str] = {}

        def enrolled() -> bool:
            try:
                entries = asyncio.run(list_enrolments(config))
            except FabricError:
                return False
            found.update({str(entry["host"]): str(entry["ak_name"]) for entry in entries})
            return wanted <= found.keys()

        await_that(enrolled, "the hosts to enrol", wait_s=_START_S_MAX)
        for host in self.world.layout.hosts.values():
            self.world.policy.approve(host, ak_name=found[str(host.id)])
        self.world.policy.publish()

    def stop_clients(self) -> None:
        """End them; the hosts' folders are free again."""
        for client in self.clients.values():
            client.stop()
        self.clients.clear()

    # Topics

    def create_topic(self, topic: str) -> None:
        """A topic for peers, as the authority makes the fabric's."""
        config = {"compression.type": "producer", "message.timestamp.type": "LogAppendTime"}
        new = NewTopic(topic, num_partitions=1, replication_factor=1, config=config)
        for future in self.admin.create_topics([new], request_timeout=10).values():
            future.result(20)

    def end(self, topic: str, partition: int = 0) -> int:
        """Offset after the last record."""
        settings = {**self.direct.librdkafka(), "group.id": "unused"}
        consumer = Consumer(settings)
        try:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        finally:
            consumer.close()
        return int(high)

    @property
    def log_folder(self) -> Path:
        """Where the broker keeps its segments."""
        return self.world.broker.log_folder

    @property
    def broker_pid(self) -> int:
        """Process id of the broker."""
        found = self.world.broker.pid
        if found is None:
            raise UnavailableError(Reason.NOT_READY, "the broker does not run")
        return found

    def pid(self, part: str) -> int:
        """Process id of a part of the world."""
        found = self.world.parts[part].pid
        if found is None:
            raise UnavailableError(Reason.NOT_READY, f"{part} does not run")
        return found

    def spawn(self, arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
        """Start another process of the load test."""
        command = [sys.executable, "-m", *arguments]
        return spawn(command, log, cwd=Path(__file__).parents[1])

    def stop(self) -> None:
        """End everything and remove the folder."""
        self.stop_clients()
        self.world.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
