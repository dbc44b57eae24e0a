"""Software TPMs (swtpm): a manufacturer's CA and one TPM per host, on Unix sockets."""

import socket
import subprocess
from pathlib import Path

from fabric.demo.process import await_that, spawn, stop
from fabric.model.errors import Reason, UnavailableError

_SETUP_S_MAX = 60


class TpmCa:
    """A manufacturer: signs the endorsement certificates of its TPMs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> "TpmCa":
        """Write the configuration that swtpm_setup reads; the keys are made on first use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ca = self.folder.resolve()
        (ca / "localca.conf").write_text(
            f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\n"
            f"issuercert = {ca}/issuercert.pem\ncertserial = {ca}/certserial\n"
        )
        (ca / "localca.options").write_text(
            "--platform-manufacturer Fabric\n--platform-version 1\n--platform-model Demo\n"
        )
        (ca / "setup.conf").write_text(
            "create_certs_tool = swtpm_localca\n"
            f"create_certs_tool_config = {ca}/localca.conf\n"
            f"create_certs_tool_options = {ca}/localca.options\n"
            "active_pcr_banks = sha256\n"
        )
        return self

    @property
    def pem(self) -> bytes:
        """Root and issuing certificate, PEM; exists once a TPM was created."""
        root = (self.folder / "swtpm-localca-rootca-cert.pem").read_bytes()
        return root + (self.folder / "issuercert.pem").read_bytes()


class SoftTpm:
    """One TPM 2.0 with RSA and ECC endorsement certificates."""

    def __init__(self, folder: Path, name: str, ca: TpmCa, *, keep: bool = False) -> None:
        self.folder = folder
        self.name = name
        self._keep = keep
        self._ca = ca
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def tcti(self) -> str:
        """Connection string for tpm2-pytss."""
        return f"swtpm:path={self._socket}"

    @property
    def pid(self) -> int | None:
        """Process id of the running TPM."""
        return self._child.pid if self._child else None

    @property
    def _socket(self) -> Path:
        return self.folder.resolve() / "s"

    def create(self) -> "SoftTpm":
        """Manufacture: endorsement keys, certificates, empty PCRs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["swtpm_setup", "--tpm2", "--tpmstate", str(self.folder.resolve())]
        command += ["--create-ek-cert", "--create-platform-cert", "--lock-nvram", "--overwrite"]
        command += ["--config", str(self._ca.folder.resolve() / "setup.conf"), "--vmid", self.name]
        done = subprocess.run(
            command, capture_output=True, timeout=_SETUP_S_MAX, check=False, text=True
        )
        if done.returncode != 0:
            detail = done.stdout.strip().splitlines()[-1:] or ["no output"]
            raise UnavailableError(Reason.TPM_UNAVAILABLE, f"swtpm_setup failed: {detail[0]}")
        return self

    def start(self) -> "SoftTpm":
        """Power on: PCRs start from zero."""
        self._socket.unlink(missing_ok=True)
        command = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self.folder.resolve()}"]
        command += ["--server", f"type=unixio,path={self._socket}"]
        command += ["--ctrl", f"type=unixio,path={self._socket}.ctrl"]
        command += ["--flags", "not-need-init,startup-clear"]
        self._child = spawn(command, self.folder / "swtpm.log", keep=self._keep)
        await_that(self._answers, "swtpm", wait_s=10, child=self._child)
        return self

    def _answers(self) -> bool:
        """Whether it accepts connections: the socket's file is there a moment earlier."""
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._socket)) == 0

    def stop(self, *, kill: bool = False) -> None:
        """Power off."""
        stop(self._child, kill=kill)
        self._child = None
