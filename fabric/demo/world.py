"""Build the demo's world: servers, keys, policy, hosts, databases, and the fabric's processes."""

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fabric.demo import configs
from fabric.demo.broker import Broker, BrokerFiles
from fabric.demo.fleet import Part, await_that
from fabric.demo.intruder import Papers
from fabric.demo.layout import Host, Layout, lay_out
from fabric.demo.machines import Machine, make_machines
from fabric.demo.papers import create_papers
from fabric.demo.policy import PolicyWriter
from fabric.demo.postgresql import Postgres, server_folder
from fabric.demo.registry import Registry, open_registry
from fabric.demo.say import Teller
from fabric.model.errors import ConfigInvalid

_PLATFORM_S = 40.0
_MARK = "demo.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for; `lasts` is a broker as one that runs for days."""

    folder: Path
    rows: int = 50_000
    source: str = "postgresql"
    target: str = "postgresql"
    keep: bool = False
    lasts: bool = False


@dataclass(slots=True)
class World:
    """Everything that runs, and how to reach it."""

    wish: Wish
    layout: Layout
    teller: Teller
    broker: Broker
    postgres: Postgres | None
    machines: dict[str, Machine]
    policy: PolicyWriter
    urls: dict[str, str]
    parts: dict[str, Part] = field(default_factory=dict)
    registry: Registry | None = None

    def host(self, letter: str) -> Host:
        """A host by its letter."""
        return self.layout.hosts[letter]

    def papers(self, letter: str) -> Papers:
        """The SVID of a host."""
        host = self.host(letter)
        return Papers(certificate=host.certificate, key=host.key, ca=self.layout.ca)

    def platform(self, name: str) -> Papers:
        """The certificate of a platform part, or of one of the intruder's."""
        certificate, key = self.layout.platform(name)
        return Papers(certificate=certificate, key=key, ca=self.layout.ca)

    def kind(self, letter: str) -> str:
        """Kind of the database of a host."""
        return self.wish.source if letter == "A" else self.wish.target

    def remember(self) -> None:
        """Write the process ids down, so that `--down` finds them even after a crash."""
        pids = {
            "broker": self.broker.pid,
            "postgres": self.postgres.pid if self.postgres else None,
            **{f"tpm-{key}": machine.tpm.pid for key, machine in self.machines.items()},
            **{key: part.pid for key, part in self.parts.items()},
        }
        running = {name: [pid, started(pid)] for name, pid in pids.items() if pid}
        (self.layout.folder / _MARK).write_text(json.dumps(running, indent=2))

    def stop(self) -> None:
        """End everything, agents first."""
        for name in ("C", "B", "A", "gateway", "authority"):
            if name in self.parts:
                self.parts[name].stop()
        if self.registry is not None:
            self.registry.close()
        if self.postgres is not None:
            self.postgres.stop()
        self.broker.stop()
        for machine in self.machines.values():
            machine.tpm.stop()
        (self.layout.folder / _MARK).unlink(missing_ok=True)
        (self.layout.folder / "endpoints.json").unlink(missing_ok=True)


def started(pid: int) -> str:
    """When a process started, in the kernel's ticks: tells it from a later one of its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def running(folder: Path) -> dict[str, int]:
    """Processes of an earlier demo in `folder` that still run, by name."""
    try:
        known: dict[str, list[object]] = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError):
        return {}
    return {
        name: int(str(pid))
        for name, (pid, since) in known.items()
        if started(int(str(pid))) == since
    }


def default_kind() -> str:
    """PostgreSQL where a server can be had, else SQLite."""
    return "postgresql" if server_folder() is not None else "sqlite"


def prepare_folder(folder: Path) -> None:
    """An empty folder that other users may enter; an earlier demo's remains are removed.

    Raises:
        ConfigInvalid: the folder holds something else, or its demo still runs.
    """
    if running(folder):
        end = f"fabric demo --down --folder {shlex.quote(str(folder))}"
        raise ConfigInvalid(f"a demo runs in {folder}; end it with: {end}")
    if folder.exists() and any(folder.iterdir()) and not (folder / "pki").is_dir():
        raise ConfigInvalid(f"{folder} is not empty and no demo's; choose another --folder")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)


def build(wish: Wish, teller: Teller) -> World:
    """Start servers and machines and write keys, policy and configuration.

    Where something fails, what has been started is stopped: it would outlive us, unknown.
    """
    layout = lay_out(wish.folder.resolve())
    prepare_folder(layout.folder)
    begun: list[Callable[[], None]] = []
    try:
        return _built(wish, teller, layout, begun)
    except BaseException:
        for stop in reversed(begun):
            stop()
        raise


def _built(wish: Wish, teller: Teller, layout: Layout, begun: list[Callable[[], None]]) -> World:
    verifier_keys = create_papers(layout)
    with ThreadPoolExecutor(4) as pool:
        broker_soon = pool.submit(_broker, wish, layout, begun)
        postgres_soon = pool.submit(_postgres, wish, layout, begun)
        hosts = list(layout.hosts.values())
        machines_soon = pool.submit(make_machines, hosts, layout.folder / "tpm", begun, keep=True)
        postgres = postgres_soon.result()
        urls = _databases(wish, layout, postgres)
        ca, machines = machines_soon.result()
        broker = broker_soon.result()
    policy = PolicyWriter(layout)
    for machine in machines.values():
        machine.approve(policy)
    policy.create(verifier_keys, ca.pem)
    world = World(wish, layout, teller, broker, postgres, machines, policy, urls)
    world.remember()
    _write_configs(world)
    return world


def _broker(wish: Wish, layout: Layout, begun: list[Callable[[], None]]) -> Broker:
    files = BrokerFiles(key_and_certificate=layout.pki / "broker-both.pem", ca=layout.ca)
    broker = Broker(layout.folder / "kafka", files, keep=True, lasts=wish.lasts).create()
    begun.append(broker.stop)
    return broker.start()


def _postgres(wish: Wish, layout: Layout, begun: list[Callable[[], None]]) -> Postgres | None:
    if "postgresql" not in (wish.source, wish.target):
        return None
    postgres = Postgres(layout.folder / "postgres", keep=True).create()
    begun.append(postgres.stop)
    return postgres.start()


def _databases(wish: Wish, layout: Layout, postgres: Postgres | None) -> dict[str, str]:
    urls = {}
    for letter in layout.hosts:
        kind = wish.source if letter == "A" else wish.target
        name = f"agency_{letter.lower()}"
        if kind == "postgresql" and postgres is not None:
            urls[letter] = postgres.create_database(name)
        else:
            urls[letter] = str(layout.hosts[letter].folder / f"{name}.db")
    return urls


def _write_configs(world: World) -> None:
    layout, broker = world.layout, world.broker.address
    for name, text, web in (
        ("authority", configs.authority_toml(layout, broker), layout.authority_web_port),
        ("gateway", configs.gateway_toml(layout, broker), layout.gateway_web_port),
    ):
        folder = layout.folder / name
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)
        world.parts[name] = Part(
            name, name, folder / f"{name}.toml", f"http://127.0.0.1:{web}", keep=True
        )
    for letter, host in layout.hosts.items():
        kind, url = world.kind(letter), world.urls[letter]
        part = configs.capture(kind, url) if letter == "A" else configs.apply(kind, url)
        tcti = world.machines[letter].tpm.tcti
        host.folder.mkdir(exist_ok=True)
        host.config.write_text(configs.agent_toml(layout, host, broker, tcti, part))
        world.parts[letter] = Part(f"agent {letter}", "agent", host.config, host.web, keep=True)


def fill(world: World) -> None:
    """Host A's application makes its tables and fills them."""
    world.registry = open_registry(world.wish.source, world.urls["A"])
    world.registry.create(world.wish.rows)


def start_platform(world: World) -> None:
    """Authority and gateway, until both are ready.

    Each waits for the other: who ended is found at once, not by the other's giving up.
    """
    authority, gateway = world.parts["authority"], world.parts["gateway"]
    for part in (authority, gateway):
        part.start()
    world.remember()

    def answers() -> bool:
        authority.check_runs()
        return gateway.health()[0]

    await_that(answers, "gateway to be ready", wait_s=_PLATFORM_S, part=gateway)
    authority.await_ready()


def endpoints(world: World) -> dict[str, object]:
    """Everything a program needs to reach the demo."""
    layout = world.layout
    return {
        "authority": layout.authority,
        "gateway": layout.gateway,
        "gateway_refusals": layout.refusals,
        "broker": world.broker.address,
        "ca": str(layout.ca),
        "policy": str(layout.policy),
        "admin": {
            "certificate": str(layout.platform("admin")[0]),
            "key": str(layout.platform("admin")[1]),
        },
        "topics": configs.tables(world.wish.source),
        "hosts": {
            letter: {
                "principal": f"User:{host.id.principal}",
                "host": str(host.id),
                "certificate": str(host.certificate),
                "key": str(host.key),
                "config": str(host.config),
                "database": world.urls[letter],
                "database_kind": world.kind(letter),
                "metrics": f"{host.web}/metrics",
            }
            for letter, host in layout.hosts.items()
        },
        "metrics": {name: f"{part.web}/metrics" for name, part in world.parts.items()},
        "pid": os.getpid(),
        "written": int(time.time()),
    }


def write_endpoints(world: World) -> Path:
    """Write DIR/endpoints.json; it exists while the demo runs."""
    path = world.layout.folder / "endpoints.json"
    path.write_text(json.dumps(endpoints(world), indent=2))
    return path


__all__ = ["Wish", "World", "await_that", "build", "fill", "start_platform", "write_endpoints"]
