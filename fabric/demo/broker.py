"""One Apache Kafka broker (KRaft) from Maven jars, every listener mTLS.

The jars come from `deploy/kafka/pom.xml` into `.cache/kafka/lib` (or the folder
that FABRIC_KAFKA_LIB names); `make setup` brings them.
"""

import base64
import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fabric.demo import archive
from fabric.demo.process import await_that, free_port, is_listening, spawn, stop
from fabric.model.errors import Reason, UnavailableError

_SMALL = ("-Xmx640m", "-XX:+UseSerialGC", "-Xshare:auto")
_JVM = ("-Xms256m", *_SMALL)
_SOON_FAST = "-XX:TieredStopAtLevel=1"
_FORMAT_S_MAX = 60
_SESSION_MS = 3_000
_HEARTBEAT_MS = 500

PRINCIPAL_RULES = (
    "RULE:^CN=([a-z0-9-]+),OU=([a-z0-9-]+),O=([A-Z0-9.]+)$/$3:$2:$1/,"
    "RULE:^CN=(broker|gateway|admin|verifier),O=fabric-platform$/$1/"
)
"""Design section 9: agency hosts and platform parts; no DEFAULT, so nobody else has a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFiles:
    """PEM files of the broker: PKCS#8 key followed by its certificate, and the trusted CAs."""

    key_and_certificate: Path
    ca: Path


def jars() -> Path:
    """Folder of Kafka's jars; raises UnavailableError with the remedy."""
    named = os.environ.get("FABRIC_KAFKA_LIB")
    folder = Path(named) if named else Path(__file__).parents[2] / ".cache" / "kafka" / "lib"
    folder = folder.resolve()  # an archive is of the jars' paths
    if not any(folder.glob("kafka_2.13-*.jar")):
        raise UnavailableError(
            Reason.BROKER_UNAVAILABLE, "Kafka's jars are missing; run `make setup` to bring them"
        )
    return folder


class Broker:
    """A combined broker and controller that stores its log in `folder`.

    Args:
        lasts: it runs for many minutes, and its JVM uses all compilers as a real broker's
            does; else it compiles little and starts sooner.
        archive_to: its JVM writes there, when it ends, the archive of the classes it loaded.
    """

    def __init__(
        self,
        folder: Path,
        files: BrokerFiles,
        *,
        keep: bool = False,
        lasts: bool = False,
        archive_to: Path | None = None,
    ) -> None:
        self.folder = folder
        self._keep = keep
        self.files = files
        self.port = free_port()
        self._controller_port = free_port()
        self._child: subprocess.Popen[bytes] | None = None
        if shutil.which("java") is None:
            raise UnavailableError(
                Reason.BROKER_UNAVAILABLE, "Java is missing; install openjdk-17-jre-headless"
            )
        lib = jars()
        self._jars = ["-cp", f"{lib}/*"]
        self._archive = archive.options(lib)
        self._jvm = [*_JVM] if lasts else [*_JVM, _SOON_FAST]
        self._jvm += [f"-XX:ArchiveClassesAtExit={archive_to}"] if archive_to else self._archive

    @property
    def address(self) -> str:
        """Bootstrap address; clients verify the name `localhost`."""
        return f"localhost:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the running broker."""
        return self._child.pid if self._child else None

    @property
    def log_folder(self) -> Path:
        """Where the broker keeps its log segments."""
        return self.folder / "log"

    def create(self) -> "Broker":
        """Write the configuration and format the log folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            "".join(f"{key}={value}\n" for key, value in self._settings().items())
        )
        cluster = "A" + base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[1:22]
        command = ["java", *_SMALL, _SOON_FAST, *self._archive, *self._jars]
        command += ["kafka.tools.StorageTool", "format", "--standalone"]
        command += ["-t", cluster, "-c", str(self._properties)]
        done = subprocess.run(command, capture_output=True, timeout=_FORMAT_S_MAX, check=False)
        if done.returncode != 0:
            (self.folder / "format.log").write_bytes(done.stdout + done.stderr)
            raise UnavailableError(
                Reason.BROKER_UNAVAILABLE, f"Kafka format failed; see {self.folder / 'format.log'}"
            )
        return self

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _settings(self) -> dict[str, str | int]:
        controller = f"localhost:{self._controller_port}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": controller,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CONTROLLER://{controller},MTLS://{self.address}",
            "advertised.listeners": f"MTLS://{self.address}",
            "listener.security.protocol.map": "CONTROLLER:SSL,MTLS:SSL",
            "inter.broker.listener.name": "MTLS",
            "log.dirs": str(self.log_folder.resolve()),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:broker;User:admin",
            "allow.everyone.if.no.acl.found": "false",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.files.key_and_certificate.resolve()),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.files.ca.resolve()),
            "ssl.client.auth": "required",
            "ssl.enabled.protocols": "TLSv1.3",
            "ssl.principal.mapping.rules": PRINCIPAL_RULES,
            "auto.create.topics.enable": "false",
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # A broker that was killed is taken back once its former session is over, not sooner.
            "broker.session.timeout.ms": _SESSION_MS,
            "broker.heartbeat.interval.ms": _HEARTBEAT_MS,
            "log.cleaner.dedupe.buffer.size": 1_048_577,
            "num.network.threads": 2,
            "num.io.threads": 4,
        }

    def start(self) -> "Broker":
        """Start and wait until the listener accepts connections."""
        command = ["java", *self._jvm, *self._jars, "kafka.Kafka", str(self._properties)]
        self._child = spawn(command, self.folder / "broker.log", keep=self._keep)
        await_that(self._is_ready, "Kafka", wait_s=60, child=self._child)
        return self

    def _is_ready(self) -> bool:
        return is_listening(self.port) and b"Kafka Server started" in self._log()

    def _log(self) -> bytes:
        log = self.folder / "broker.log"
        return log.read_bytes() if log.exists() else b""

    def stop(self, *, kill: bool = False, wait_s: float = 30) -> None:
        """Stop the broker; by force when it does not go in time."""
        stop(self._child, kill=kill, wait_s=wait_s)
        self._child = None
