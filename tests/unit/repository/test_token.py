"""Keys on a token (SoftHSM): made there, never leaving it, signing a whole policy.

Each command runs in a process of its own: a PKCS#11 library reads its settings once.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fabric.model.errors import ConfigInvalid
from fabric.repository.keys import read_public
from fabric.repository.roster import FILE, first_roster
from fabric.repository.token import TokenKey, _pin
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import make_workspace

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
needs_softhsm = pytest.mark.skipif(not MODULE.exists(), reason="softhsm2 is not installed")


def uri(folder: Path, label: str, *, token: str = "policy") -> str:
    return f"pkcs11:token={token};object={label}?module-path={MODULE}&pin-source=file:{folder}/pin"


def test_uri_names_library_token_key_and_pin() -> None:
    found = TokenKey.parse(uri(Path("/x"), "an%20tran"))
    assert (found.module, found.token, found.label) == (MODULE, "policy", "an tran")
    assert found.pin_file == Path("/x/pin")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pkcs11:",
        "pkcs11:token=t;object=o",
        "pkcs11:token=t;object=?module-path=m&pin-source=file:p",
        "pkcs11:token=t;object=o?module-path=m&pin-value=1234",
        "pkcs11:token=t;object=o;id=1?module-path=m&pin-source=p",
        "file:token=t;object=o?module-path=m&pin-source=p",
    ],
)
def test_other_uris_are_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid, match="pkcs11:token="):
        TokenKey.parse(text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_pin_that_others_may_reach_is_refused(tmp_path: Path, mode: int) -> None:
    pin = tmp_path / "pin"
    pin.write_text("1234\n")
    pin.chmod(0o600)
    assert _pin(pin) == "1234"
    pin.chmod(mode)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        _pin(pin)


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """A token with its PIN."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm.conf").write_text(
        f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    (tmp_path / "pin").write_text("1234\n")
    (tmp_path / "pin").chmod(0o600)
    done = run(
        tmp_path,
        *("softhsm2-util", "--init-token", "--free", "--label", "policy"),
        *("--pin", "1234", "--so-pin", "5678"),
    )
    assert done.returncode == 0, done.stderr
    return tmp_path


def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "SOFTHSM2_CONF": str(folder / "softhsm.conf"),
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def policy(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return run(folder, sys.executable, "-m", "fabric.cli", "policy", *command)


@needs_softhsm
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p384"])
def test_person_whose_key_is_on_a_token_signs_a_policy(folder: Path, kind: str) -> None:
    made = policy(folder, "key", uri(folder, "an"), "--kind", kind)
    assert made.returncode == 0, made.stderr
    persons = {"an": read_public(folder / "an.pub"), "binh": key("binh").public_key}
    workspace = make_workspace(folder)
    agencies = {"G01": key("agency-G01").public_key}
    online = {name: key(name).public_key for name in ("snapshot", "timestamp")}
    text = first_roster(persons, agencies, **online)
    (workspace.folder / FILE).write_bytes(text)
    done = policy(folder, "sign", workspace.folder, "--key", uri(folder, "an"))
    assert done.returncode == 0, done.stderr
    shown = policy(folder, "show", workspace.folder, "-o", "json")
    assert shown.stdout.count('"missing": [\n      "binh"\n    ]') == 4


@needs_softhsm
def test_what_is_wrong_with_a_token_is_said_with_its_remedy(folder: Path) -> None:
    workspace = make_workspace(folder).folder
    missing = policy(folder, "sign", workspace, "--key", uri(folder, "nobody"))
    assert "has no key nobody; make it with: fabric policy key" in missing.stderr
    other = policy(folder, "sign", workspace, "--key", uri(folder, "an", token="other"))
    assert "there is no token other" in other.stderr
    (folder / "pin").write_text("0000")
    wrong = policy(folder, "sign", workspace, "--key", uri(folder, "an"))
    assert "refuses this PIN" in wrong.stderr
    assert "0000" not in wrong.stderr
    assert [done.returncode for done in (missing, other, wrong)] == [2, 2, 2]
    assert "Traceback" not in missing.stderr + other.stderr + wrong.stderr
