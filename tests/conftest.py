"""Servers that the tests share: real ones, on loopback, started at most once a run."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fabric.demo.broker import Broker, BrokerFiles
from fabric.demo.postgresql import Postgres
from fabric.demo.swtpm import SoftTpm, TpmCa

if sys.dont_write_bytecode:
    # Where bytecode is not to lie beside the sources, each of the many processes that the tests
    # start would compile the whole fabric again, for a second of a processor.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.setdefault(
        "PYTHONPYCACHEPREFIX", str(Path(__file__).parents[1] / ".cache" / "bytecode")
    )

# How long an example takes says how busy the machine is, and nothing of what is tested.
settings.register_profile("fabric", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fabric")


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that other users may enter, because PostgreSQL runs as a user of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fabric-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL server with logical replication; make your own databases in it."""
    server = Postgres(server_folder / "postgres").create()
    with (server.folder / "data" / "postgresql.conf").open("a") as conf:
        conf.write("fsync = off\n")  # nobody cuts its power, and it makes many databases
    yield server.start()
    server.stop()


@pytest.fixture(scope="session")
def tpm_ca(server_folder: Path) -> TpmCa:
    """The manufacturer whose TPMs the tests trust."""
    return TpmCa(server_folder / "tpm-ca").create()


@pytest.fixture(scope="session")
def delivered(server_folder: Path, tpm_ca: TpmCa) -> Callable[[int], Path]:
    """Folders of TPMs as they left `tpm_ca`, by number; never switched on, only copied."""
    folder = server_folder / "delivered"

    @cache
    def made(number: int) -> Path:
        return SoftTpm(folder / str(number), f"test-{number}", tpm_ca).create().folder

    return made


@pytest.fixture
def soft_tpm(
    server_folder: Path, tpm_ca: TpmCa, delivered: Callable[[int], Path]
) -> Iterator[Callable[[str], SoftTpm]]:
    """Make and start software TPMs by name; they are stopped when the test ends.

    All of one test differ. Each is as new: to manufacture one takes seconds, so that those of
    `tpm_ca` are copies of a few that no test has used.
    """
    made: list[SoftTpm] = []

    def make(name: str, ca: TpmCa = tpm_ca) -> SoftTpm:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=server_folder))
        tpm = SoftTpm(folder, name, ca)
        if ca is tpm_ca:
            shutil.copytree(delivered(len(made)), folder, dirs_exist_ok=True)
        else:
            tpm.create()
        made.append(tpm.start())
        return tpm

    yield make
    for tpm in made:
        tpm.stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestBroker:
    """The shared broker with the platform's PKI.

    Attributes:
        address: bootstrap address.
        ca: file with the platform CA's certificate, trusted by the broker.
        folder: holds `<name>.pem` (certificate) and `<name>.key` for
            broker, gateway, verifier and admin.
    """

    __test__ = False
    address: str
    ca: Path
    folder: Path
    server: Broker

    def files(self, name: str) -> tuple[Path, Path]:
        """Certificate and key file of a platform identity."""
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"


@pytest.fixture(scope="session")
def platform_ca() -> "object":
    """The platform's CA, as fabric.authority.pki makes it."""
    from fabric.authority.pki import make_ca

    return make_ca("fabric test platform")


@pytest.fixture(scope="session")
def svid_ca() -> "object":
    """The verifier's issuing CA, trusted by the broker too."""
    from fabric.authority.pki import make_ca

    return make_ca("fabric test verifier")


@pytest.fixture(scope="session")
def broker(server_folder: Path, platform_ca: "object", svid_ca: "object") -> Iterator[TestBroker]:
    """A real Kafka broker, every listener mTLS; admin and broker are super users."""
    from fabric.authority.pki import Ca, issue_platform

    assert isinstance(platform_ca, Ca)
    assert isinstance(svid_ca, Ca)
    folder = server_folder / "pki"
    folder.mkdir()
    ca = folder / "ca.pem"
    ca.write_bytes(platform_ca.cert_pem + svid_ca.cert_pem)
    for name in ("broker", "gateway", "verifier", "admin"):
        certificate, key = issue_platform(
            platform_ca, name, hosts=["localhost", "127.0.0.1"], days=2
        )
        (folder / f"{name}.pem").write_bytes(certificate)
        (folder / f"{name}.key").write_bytes(key)
    both = folder / "broker-both.pem"
    both.write_bytes((folder / "broker.key").read_bytes() + (folder / "broker.pem").read_bytes())
    server = Broker(server_folder / "kafka", BrokerFiles(key_and_certificate=both, ca=ca))
    server.create().start()
    yield TestBroker(address=server.address, ca=ca, folder=folder, server=server)
    server.stop()
