"""Rehearse the start of a broker once, so that all later ones start sooner.

`python -m fabric.demo.rehearsal`, part of `make setup`, starts and ends a broker whose JVM
writes the archive of the classes that it has loaded. Where that cannot be, brokers start
without one, a few seconds later, and nothing else changes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from fabric.demo import archive
from fabric.demo.broker import Broker, BrokerFiles, jars
from fabric.model.errors import FabricError, Reason, UnavailableError

_ARCHIVE_S_MAX = 180
_PROVE_S_MAX = 60
_MAPPED = b"shared objects file (top)"


def main() -> int:
    """Make the archive unless it is there; a failure is said, and is none of the set-up's."""
    try:
        folder = jars()
        if archive.find(folder) is None:
            make(folder)
    except (FabricError, OSError, subprocess.SubprocessError) as error:
        print(f"setup: brokers start later, without an archive: {error}", file=sys.stderr)
    return 0


def make(folder: Path) -> Path:
    """Archive the classes of the jars in `folder` that a broker loads; the archive.

    Raises:
        UnavailableError: the broker did not start, or no JVM can use what it left.
        OSError: the folder takes no file.
    """
    with tempfile.TemporaryDirectory(prefix=".rehearsal-", dir=folder) as name:
        scratch = Path(name)
        print("setup: archiving Kafka's classes, so that brokers start sooner", file=sys.stderr)
        fresh = scratch / "fresh.jsa"
        broker = Broker(scratch / "kafka", _papers(scratch), archive_to=fresh)
        try:
            broker.create().start()
        finally:
            broker.stop(wait_s=_ARCHIVE_S_MAX)
        prove(fresh, folder)
        return archive.keep(fresh, folder)


def prove(fresh: Path, folder: Path) -> None:
    """Have a JVM check every byte of an archive and run with its classes, or UnavailableError."""
    command = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+VerifySharedSpaces"]
    command += [f"-XX:SharedArchiveFile={fresh}", "-Xlog:class+load", "-cp", f"{folder}/*"]
    command += ["kafka.tools.StorageTool", "random-uuid"]
    done = subprocess.run(command, capture_output=True, timeout=_PROVE_S_MAX, check=False)
    if done.returncode != 0 or _MAPPED not in done.stdout:
        raise UnavailableError(Reason.NOT_READY, "this Java made no archive that it can use")


def _papers(folder: Path) -> BrokerFiles:
    from fabric.authority.pki import issue_platform, make_ca

    ca = make_ca("fabric rehearsal")
    certificate, key = issue_platform(ca, "broker", hosts=["localhost"], days=1)
    files = BrokerFiles(key_and_certificate=folder / "broker.pem", ca=folder / "ca.pem")
    files.ca.write_bytes(ca.cert_pem)
    files.key_and_certificate.touch(mode=0o600)
    files.key_and_certificate.write_bytes(key + certificate)
    return files


if __name__ == "__main__":
    sys.exit(main())
