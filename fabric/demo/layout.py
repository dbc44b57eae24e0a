"""Where everything of one demo lives, and under which names."""

from dataclasses import dataclass, field
from pathlib import Path

from fabric.demo.process import free_port
from fabric.model.names import HostId, Topic

TRUST_DOMAIN = "fabric.example"
PUBLIC = Topic.parse("public.G01.wards")
SECRET = Topic.parse("secret.G01.residents")
OTHER = Topic.parse("secret.G01.notes")
PCRS = (0, 1, 2, 3, 4, 5, 7)
CHANGED_PCR = 4
SOURCE_NAME = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host of the demo: what it is called, what it may have, how it is reached."""

    letter: str
    id: HostId
    level: int
    clearance: str
    folder: Path
    web_port: int = field(default_factory=free_port)

    @property
    def web(self) -> str:
        """Address of its metrics and health pages."""
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def certificate(self) -> Path:
        """Its X.509-SVID, written by its agent."""
        return self.folder / "state" / "svid.pem"

    @property
    def key(self) -> Path:
        """The SVID's private key."""
        return self.folder / "state" / "svid.key"

    @property
    def config(self) -> Path:
        """Its agent.toml."""
        return self.folder / "agent.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Folders and ports of one demo."""

    folder: Path
    authority_port: int = field(default_factory=free_port)
    authority_web_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    gateway_side_port: int = field(default_factory=free_port)
    gateway_web_port: int = field(default_factory=free_port)
    hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def pki(self) -> Path:
        """Certificates of the platform."""
        return self.folder / "pki"

    @property
    def ca(self) -> Path:
        """Every CA that the parts trust."""
        return self.pki / "ca.pem"

    @property
    def workspace(self) -> Path:
        """Where the policy is written, signed and published."""
        return self.folder / "policy"

    @property
    def policy(self) -> Path:
        """The policy's documents as people write them; no part reads them."""
        return self.workspace / "source"

    @property
    def repository(self) -> Path:
        """The signed policy repository, which the authority serves."""
        return self.workspace / "repository"

    @property
    def anchor(self) -> Path:
        """The trust anchor that every part starts from."""
        return self.repository / "metadata" / "1.root.json"

    @property
    def authority(self) -> str:
        """URL of the authority."""
        return f"https://localhost:{self.authority_port}"

    @property
    def gateway(self) -> str:
        """Bootstrap address of the gateway."""
        return f"localhost:{self.gateway_port}"

    @property
    def refusals(self) -> str:
        """URL of the gateway's refusal log."""
        return f"https://localhost:{self.gateway_side_port}"

    def platform(self, name: str) -> tuple[Path, Path]:
        """Certificate and key of a platform part."""
        return self.pki / f"{name}.pem", self.pki / f"{name}.key"


def lay_out(folder: Path) -> Layout:
    """Choose folders, names and free ports for a new demo."""
    hosts = {
        "A": Host(
            letter="A",
            id=HostId.parse("G01/registry/host-a"),
            level=4,
            clearance="secret+personal-data",
            folder=folder / "host-a",
        ),
        "B": Host(
            letter="B",
            id=HostId.parse("G02/health/host-b"),
            level=4,
            clearance="secret+personal-data",
            folder=folder / "host-b",
        ),
        "C": Host(
            letter="C",
            id=HostId.parse("G03/statistics/host-c"),
            level=4,
            clearance="internal",
            folder=folder / "host-c",
        ),
    }
    return Layout(folder=folder, hosts=hosts)
