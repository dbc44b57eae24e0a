"""An agent.toml with its policy repository, for agents whose peers are all away."""

import socket
from functools import cache
from pathlib import Path

from fabric.authority.pki import make_ca
from tests.fakes.policy_repository import Repository


@cache
def _away() -> socket.socket:
    """Takes a port and never listens: whoever connects is refused, and no other process gets it."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def write_agent(folder: Path, *, more: str = "") -> Path:
    """Write everything an agent reads; the path of agent.toml."""
    Repository(folder / "policy").publish()
    (folder / "ca.pem").write_bytes(make_ca("a test").cert_pem)
    away = f"127.0.0.1:{_away().getsockname()[1]}"
    config = folder / "agent.toml"
    config.write_text(
        f"""
[agent]
host = "G01/registry/host-a"
folder = "state"
[policy]
root = "policy/metadata/1.root.json"
repository = "policy"
state = "state/policy"
refresh_s = 0.2
[authority]
url = "https://{away}"
[tls]
ca = "ca.pem"
[gateway]
bootstrap = ["{away}"]
[broker]
bootstrap = ["{away}"]
[tpm]
tcti = "swtpm:path={folder / "no.sock"}"
[web]
listen = "127.0.0.1:0"
{more}
"""
    )
    return config
