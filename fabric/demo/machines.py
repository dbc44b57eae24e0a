"""The demo's hosts as machines: a TPM each, a measured boot, an approval, databases."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from fabric.demo.layout import CHANGED_PCR, PCRS, Host
from fabric.demo.policy import PolicyWriter
from fabric.demo.swtpm import SoftTpm, TpmCa
from fabric.tpm.device import TpmDevice


def _measurement(name: str) -> bytes:
    return hashlib.sha256(f"fabric demo {name}".encode()).digest()


class Machine:
    """A host with a software TPM that is booted, changed and put right."""

    def __init__(self, host: Host, folder: Path, ca: TpmCa, *, keep: bool) -> None:
        self.host = host
        self.tpm = SoftTpm(folder, f"host-{host.letter.lower()}", ca, keep=keep)
        self.device = TpmDevice(self.tpm.tcti)

    def manufacture(self) -> None:
        """Make the TPM with its endorsement certificate."""
        self.tpm.create()

    def boot(self) -> None:
        """Power on and measure the platform's parts, as firmware would."""
        self.tpm.start()
        for pcr in PCRS:
            self.device.unsafe_extend(pcr, _measurement(f"boot stage {pcr}"))

    def reboot(self) -> None:
        """Power cycle into the approved state."""
        self.tpm.stop()
        self.boot()

    def tamper(self) -> None:
        """Load something that nobody approved."""
        self.device.unsafe_extend(CHANGED_PCR, _measurement("an unapproved boot loader"))

    def approve(self, policy: PolicyWriter) -> None:
        """First person: this TPM, in this state. The attestation key comes after enrolment."""
        policy.approve(
            self.host,
            ek_sha256=hashlib.sha256(self.device.ek_certificate()).hexdigest(),
            digests=[self.device.pcr_digest(PCRS).hex()],
        )


def make_machines(
    hosts: Sequence[Host], folder: Path, begun: list[Callable[[], None]], *, keep: bool
) -> tuple[TpmCa, dict[str, Machine]]:
    """Manufacture and boot a machine for each host; the maker's CA and the machines by letter.

    Args:
        begun: takes what powers each off, before it is booted.
    """
    ca = TpmCa(folder / "ca").create()
    machines = {}
    for host in hosts:
        machine = Machine(host, folder / host.letter.lower(), ca, keep=keep)
        machine.manufacture()
        begun.append(machine.tpm.stop)
        machine.boot()
        machines[host.letter] = machine
    return ca, machines
