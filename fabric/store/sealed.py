"""The state file's birth: its tables, and the key that the TPM sealed for it.

The sealed key stands in the file itself, in the clear: it is of use to this TPM
in its approved state and to nobody else.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fabric.model.disk import disk_error
from fabric.model.errors import DeniedError, Reason, UnavailableError, sqlite_name

VERSION = 1
"""Of the tables below."""
_BUSY_S = 5.0
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CODE = 0xFF
"""The part of SQLite's extended codes that tells the kinds of failure apart."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secret (
    name TEXT PRIMARY KEY, kind TEXT NOT NULL, alg INTEGER NOT NULL, store TEXT NOT NULL,
    made_us INTEGER NOT NULL, box BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS source (
    name TEXT PRIMARY KEY, generation INTEGER NOT NULL, position INTEGER NOT NULL,
    resume TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS head (
    topic TEXT, origin TEXT, partition INTEGER, epoch BLOB NOT NULL, counter INTEGER NOT NULL,
    hash BLOB NOT NULL, generation INTEGER NOT NULL, position INTEGER NOT NULL,
    ordinal INTEGER NOT NULL, PRIMARY KEY (topic, origin, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (
    topic TEXT, origin TEXT, partition INTEGER, log TEXT NOT NULL, "offset" INTEGER NOT NULL,
    PRIMARY KEY (topic, origin, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch (
    topic TEXT, number INTEGER, started_us INTEGER NOT NULL, start BLOB NOT NULL,
    box BLOB NOT NULL, PRIMARY KEY (topic, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS granted (
    epoch BLOB, host TEXT, thumbprint BLOB, PRIMARY KEY (epoch, host, thumbprint)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS named (
    topic TEXT, host TEXT, since_us INTEGER NOT NULL, PRIMARY KEY (topic, host)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS position (
    topic TEXT, origin TEXT, partition INTEGER, generation INTEGER NOT NULL,
    position INTEGER NOT NULL, ordinal INTEGER NOT NULL, chain BLOB NOT NULL,
    "offset" INTEGER NOT NULL, cluster TEXT NOT NULL, topic_id TEXT NOT NULL,
    incomplete INTEGER NOT NULL, PRIMARY KEY (topic, origin, partition)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedKey:
    """The state key as the TPM sealed it, once for each state of the platform that opens it.

    Attributes:
        pcrs: the selection that tells the states apart.
        states: (digest over `pcrs`, blob), the state in which it was written first.
    """

    pcrs: tuple[int, ...]
    states: tuple[tuple[bytes, bytes], ...]

    @property
    def digests(self) -> frozenset[bytes]:
        """The states that open it."""
        return frozenset(digest for digest, _ in self.states)

    def blob(self, digest: bytes) -> bytes | None:
        """What a state opens; None when it opens nothing."""
        return dict(self.states).get(digest)


def read_sealed_key(path: Path) -> SealedKey | None:
    """The sealed key of an existing state file, or None when there is no file.

    Raises:
        DeniedError: SEALED_STATE_LOST, there is a file but it is no state file of ours.
        UnavailableError: OVERLOADED, it cannot be read now.
    """
    if not path.exists():
        return None
    try:
        # Read-only, so that a file that is not ours stays as it is.
        with mapped(path):
            opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
            with _closing(opened) as db:
                tables = db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone()
                query = "SELECT value FROM meta WHERE name = 'sealed'"
                row = db.execute(query).fetchone() if tables else None
        found = json.loads(row[0] if row else "")
        return SealedKey(
            pcrs=tuple(found["pcrs"]),
            states=tuple(
                (bytes.fromhex(digest), bytes.fromhex(blob)) for digest, blob in found["states"]
            ),
        )
    except (TypeError, ValueError, KeyError) as exc:
        raise _lost(path, "it is no state file") from exc


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Say what SQLite's failures mean for a state file at `path`.

    Raises:
        DeniedError: SEALED_STATE_LOST, the file is damaged: waiting mends nothing.
        UnavailableError: OVERLOADED, it cannot be read or written now.
    """
    try:
        yield
    except sqlite3.Error as exc:
        if _is_damage(exc):
            raise _lost(path, sqlite_name(exc)) from None
        raise (
            disk_error(exc, path.parent)
            or UnavailableError(
                Reason.OVERLOADED, f"state file {path} cannot be used now ({sqlite_name(exc)})"
            )
        ) from None


def _is_damage(exc: sqlite3.Error) -> bool:
    """Whether the file is wrong and not the moment; text that is no UTF-8 has no code."""
    if not hasattr(exc, "sqlite_errorcode"):
        return isinstance(exc, sqlite3.OperationalError)
    return exc.sqlite_errorcode & _CODE in _DAMAGED


def _lost(path: Path, why: str) -> DeniedError:
    return DeniedError(
        Reason.SEALED_STATE_LOST,
        f"{path} cannot be read ({why}); move it away to begin a new generation",
    )


def read_resume(path: Path, source: str) -> str | None:
    """Where a capture stood last, without the state key; None when no file of ours says.

    It holds a row's key: not for people's eyes.
    """
    if not path.exists():
        return None
    try:
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        with _closing(opened) as db:
            row = db.execute("SELECT resume FROM source WHERE name = ?", (source,)).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else str(row[0])


def read_heads(path: Path, topics: Sequence[str]) -> Mapping[str, bytes]:
    """Hash of the last acknowledged envelope of every stream of these topics, without the key.

    Raises:
        UnavailableError: DATABASE_UNAVAILABLE, there is no file of ours, or it cannot be read.
    """
    found: dict[str, bytes] = {}
    try:
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)
        with _closing(opened) as db:
            for topic in topics:
                query = "SELECT origin, partition, hash FROM head WHERE topic = ? AND hash != x''"
                for origin, partition, digest in db.execute(query, (topic,)):
                    found[f"{origin}@{topic}:{partition}"] = bytes(digest)
    except sqlite3.Error as exc:
        raise UnavailableError(
            Reason.DATABASE_UNAVAILABLE,
            f"{path}: cannot be read ({sqlite_name(exc)}); run as the agent's user",
        ) from None
    return found


def create_state(path: Path, sealed: SealedKey) -> None:
    """Write a new, empty state file that others cannot read; durable."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    # The key is in the file before the file has its name: a crash leaves no file, or a whole one.
    with _closing(connect(part)) as db:
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("INSERT INTO meta VALUES ('sealed', ?)", (sealed_json(sealed).encode(),))
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    part.replace(path)


@contextmanager
def _closing(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield db
    finally:
        db.close()


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for any one thread at a time, in write-ahead mode."""
    db = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA secure_delete = ON")  # what is erased is not left in free pages
    db.execute("PRAGMA trusted_schema = OFF")
    return db


def sealed_json(sealed: SealedKey) -> str:
    """The sealed key as the file keeps it."""
    states = [[digest.hex(), blob.hex()] for digest, blob in sealed.states]
    return json.dumps({"pcrs": list(sealed.pcrs), "states": states})
