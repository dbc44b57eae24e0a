"""Keep the policy alive: sign the repository's timestamp anew before it ends.

The one signature that is made without a person. It says that nothing newer is known,
and nothing else: what the policy is stands under other keys.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Timestamp

from fabric.model.errors import ConfigInvalid
from fabric.policy import roles
from fabric.policy.faults import translated
from fabric.repository.published import Published, locked, read_published, write_timestamp


@dataclass(frozen=True, slots=True)
class Renewal:
    """Renews the timestamp of one repository.

    Args:
        folder: the repository.
        valid_s: how long each timestamp holds, seconds.
    """

    folder: Path
    signer: Signer = field(repr=False)
    valid_s: float

    def renew(self, now: datetime, known: bytes) -> bool:
        """Sign anew when half of the time is over; whether it did. Blocks.

        Args:
            known: the timestamp under which our own policy is in force. Another one is left
                alone: it may be an old one that somebody put back, and our signature would
                make it fresh. If it is newer, the next refresh takes it.

        Raises:
            ConfigInvalid: the repository is missing, or the key is not the one it names.
            PeerError: the repository is not what was signed.
        """
        with locked(self.folder):
            published = read_published(self.folder)
            timestamp = published.signed(roles.TIMESTAMP, Timestamp)
            if timestamp is None:
                raise ConfigInvalid(
                    f"{self.folder}: holds no policy yet; publish one: fabric policy publish"
                )
            if published.metadata[roles.TIMESTAMP] != known:
                return False
            published.verified()
            left = (timestamp.expires - now).total_seconds()
            if left > self.valid_s / 2:
                return False
            signed = sign_timestamp(
                published, timestamp.snapshot_meta, self.signer, now=now, valid_s=self.valid_s
            )
            write_timestamp(self.folder, signed)
            return True


def check_key(published: Published, signer: Signer) -> None:
    """See that a key is the timestamp's; raises ConfigInvalid."""
    root = published.root
    if root is None or signer.public_key.keyid not in root.roles[roles.TIMESTAMP].keyids:
        raise ConfigInvalid(
            "the timestamp's key is not the one that roles.yaml names for timestamp;"
            " use that key, or sign a new root"
        )


def sign_timestamp(
    published: Published, meta: MetaFile, signer: Signer, *, now: datetime, valid_s: float
) -> bytes:
    """The next timestamp over a snapshot; raises ConfigInvalid when the key is not the role's."""
    check_key(published, signer)
    timestamp = Timestamp(
        version=_next_version(published.signed(roles.TIMESTAMP, Timestamp), now),
        expires=(now + timedelta(seconds=valid_s)).replace(microsecond=0),
        snapshot_meta=meta,
    )
    found: Metadata[Timestamp] = Metadata(timestamp)
    with translated():
        found.sign(signer)
    return found.to_bytes()


def _next_version(last: Timestamp | None, now: datetime) -> int:
    """Above the last one of this folder, and of any copy of it that was written to earlier.

    The authority renews in the folder that it serves, a person publishes in a workspace of
    their own: neither has seen the other's last version, and readers take no lower one.
    """
    return max(last.version + 1 if last is not None else 1, int(now.timestamp()))
