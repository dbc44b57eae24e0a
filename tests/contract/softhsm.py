"""A software token for tests: SoftHSM with tokens of its own, in a temporary folder.

SoftHSM reads its configuration once in a process, so there is one folder for all
tests of a run, and every token is made before anyone opens the module.
"""

import atexit
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fabric.store.token_keys import TokenKeys

MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")
LABELS = ("agent", "other", "locked")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Where the tokens are; each has this PIN in a file."""

    folder: Path
    module: Path
    pin: str

    def pin_file(self, pin: str | None = None) -> Path:
        """A file with the right PIN, or with another."""
        path = self.folder / f"pin-{secrets.token_hex(4)}"
        path.write_text((self.pin if pin is None else pin) + "\n")
        path.chmod(0o600)
        return path

    def keys(self, token: str = "agent") -> TokenKeys:
        """A store on one of the tokens."""
        return TokenKeys(self.module, token, self.pin_file())


@cache
def tokens() -> Tokens:
    """Make the tokens, once in a run; `deploy/setup` brings SoftHSM."""
    folder = Path(tempfile.mkdtemp(prefix="fabric-softhsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "tokens").mkdir()
    config = folder / "softhsm2.conf"
    config.write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(config)
    pin = secrets.token_hex(4)
    for label in LABELS:
        command = ["softhsm2-util", "--init-token", "--free", "--label", label]
        secret = ["--pin", pin, "--so-pin", secrets.token_hex(4)]
        subprocess.run([*command, *secret], check=True, capture_output=True, timeout=30)
    module = next(Path(name) for name in MODULES if Path(name).exists())
    return Tokens(folder=folder, module=module, pin=pin)
