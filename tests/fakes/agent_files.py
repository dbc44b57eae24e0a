"""An agent.toml with its policy repository, for agents whose peers are all away."""

from pathlib import Path

from fabric.authority.pki import make_ca
from fabric.demo.process import free_port
from tests.fakes.policy_repository import Repository


def write_agent(folder: Path, *, more: str = "", web_port: int = 0) -> Path:
    """Write everything an agent reads; the path of agent.toml."""
    Repository(folder / "policy").publish()
    (folder / "ca.pem").write_bytes(make_ca("a test").cert_pem)
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
url = "https://localhost:{free_port()}"
[tls]
ca = "ca.pem"
[gateway]
bootstrap = ["localhost:{free_port()}"]
[broker]
bootstrap = ["localhost:{free_port()}"]
[tpm]
tcti = "swtpm:path={folder / "no.sock"}"
[web]
listen = "127.0.0.1:{web_port}"
{more}
"""
    )
    return config
