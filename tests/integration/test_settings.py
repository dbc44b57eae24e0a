"""Wrong settings end each process with exit code 2, the key and the remedy, and no traceback.

The files are the demo's own, with one thing changed each; no server is needed to refuse them.
"""

import fcntl
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from fabric.authority.pki import make_ca
from fabric.demo import configs
from fabric.demo.layout import Layout, lay_out
from fabric.demo.papers import create_papers
from fabric.demo.policy import PolicyWriter
from tests.support.world import fabric

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

_BROKER = "localhost:1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that is changed in a process's file, and what the message must name."""

    kind: str
    old: str
    new: str
    named: str


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    made = lay_out(tmp_path_factory.mktemp("settings"))
    keys = create_papers(made)
    PolicyWriter(made).create(keys, make_ca("a maker of TPMs").cert_pem)
    return made


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def texts(layout: Layout) -> dict[str, str]:
    host = layout.hosts["A"]
    part = configs.capture("sqlite", str(layout.folder / "a.db"))
    made = {
        "agent": configs.agent_toml(layout, host, _BROKER, "swtpm:path=none", part),
        "gateway": configs.gateway_toml(layout, _BROKER),
        "authority": configs.authority_toml(layout, _BROKER),
    }
    # No authority serves here: each process reads the published files themselves.
    served, mirror = f"{layout.authority}/policy", str(layout.repository)
    return {kind: text.replace(served, mirror) for kind, text in made.items()}


def cases(layout: Layout, taken: int) -> dict[str, Case]:
    ca = f'ca = "{layout.ca}"'
    no_ca = 'ca = "no-ca.pem"'
    found = {}
    for kind in ("agent", "gateway", "authority"):
        found[f"{kind} unknown key"] = Case(
            kind=kind, old="[policy]", new="[policy]\ncolour = 1", named="policy.colour"
        )
        found[f"{kind} no policy"] = Case(
            kind=kind, old=str(layout.anchor), new="nowhere", named="policy.root"
        )
        found[f"{kind} no CA"] = Case(kind=kind, old=ca, new=no_ca, named="tls.ca")
    listen = f'[web]\nlisten = "127.0.0.1:{taken}" #'
    found["agent taken"] = Case(kind="agent", old="[web]\nlisten =", new=listen, named="web.listen")
    found["gateway taken"] = Case(
        kind="gateway", old="[web]\nlisten =", new=listen, named="web.listen"
    )
    found["agent wrong value"] = Case(
        kind="agent", old="refresh_s = 1", new='refresh_s = "often"', named="policy.refresh_s"
    )
    found["gateway no TOML"] = Case(kind="gateway", old="[gateway]", new="[gateway", named="toml")
    found["authority no section"] = Case(
        kind="authority", old="[broker]", new="[brokers]", named="broker"
    )
    return found


def is_clear(said: str, named: str) -> bool:
    """One line that names the key, and no trace of where in the code it was found."""
    return named in said and said.startswith("fabric: ") and "\n" not in said.strip()


def test_wrong_settings_end_each_process_with_code_2_key_and_remedy(
    layout: Layout, taken: int, tmp_path: Path
) -> None:
    wanted, plain = cases(layout, taken), texts(layout)
    with ThreadPoolExecutor(3) as pool:
        runs = {}
        for number, (name, case) in enumerate(wanted.items()):
            text = plain[case.kind]
            assert case.old in text, name
            path = tmp_path / f"{number}.toml"
            path.write_text(text.replace(case.old, case.new).replace('"state"', f'"{number}"'))
            runs[name] = pool.submit(fabric, case.kind, "run", path)
    done = {name: run.result() for name, run in runs.items()}
    assert not {
        name: (it.returncode, it.stderr[-600:])
        for name, it in done.items()
        if it.returncode != 2 or not is_clear(it.stderr, wanted[name].named)
    }


def test_a_second_agent_in_one_folder_is_told_so(layout: Layout, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text(texts(layout)["agent"])
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = fabric("agent", "run", path)
    assert done.returncode == 2
    assert is_clear(done.stderr, "agent.folder"), done.stderr


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    done = fabric("gateway", "run", tmp_path / "none.toml")
    assert done.returncode == 2
    assert "none.toml" in done.stderr
    assert "Traceback" not in done.stderr
