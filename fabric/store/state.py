"""The agent's state file: where its captures stand, its heads, its epochs and its keys.

One SQLite file, write-ahead log. Secrets are encrypted by the vault, whose key is
sealed to the TPM; the rest is plain, and worth nothing to a thief. Every method
is one transaction. `durable` ones reach the disk before they return, because an
effect outside follows (an epoch start is sent, a source lets go); the others
survive a killed process, and a power cut costs at most what is sent again.

No method here is for the event loop's thread: call them through a worker thread.
A missing file is made by `fabric.store.sealed.create_state`.
"""

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fabric.model.change import Sequence as ChangeSequence
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.ports import StreamState
from fabric.seal.epoch import Head
from fabric.store.sealed import SCHEMA, VERSION, SealedKey, connect, mapped, sealed_json
from fabric.store.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One private key: `sign`, `tls` or `hpke`, its algorithm and when it was made.

    Attributes:
        store: where the key lives.
        private: the key itself, or what its store finds it by.
    """

    name: str
    kind: str
    alg: int
    store: str
    made: datetime
    private: bytes

    def __repr__(self) -> str:
        return f"KeyRecord({self.name}, private=hidden)"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceState:
    """Where a capture goes on: everything up to `position` is acknowledged."""

    generation: int
    position: int
    resume: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHead:
    """A stream's last acknowledged envelope, and the sequence up to which it was sent.

    Attributes:
        head: None for open topics, which have no chain.
        log: which log `offset` belongs to, empty when that is not known.
        offset: of the envelope's record.
    """

    stream: Stream
    head: Head | None
    upto: ChangeSequence
    log: str = ""
    offset: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEpoch:
    """One epoch of ours: its start's first record value, and the secret."""

    topic: Topic
    number: int
    started: datetime
    start: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"StoredEpoch({self.topic}, number={self.number}, secret=hidden)"


_INCOMPLETE, _IN_SNAPSHOT = 1, 2  # bits of one column, so that files made before it was two hold
# Generations only rise, so an older one is older news, too. At the same sequence the later word
# counts: a restored log moves chain and hint, and no change.
_MOVE_ON = (
    "INSERT INTO position VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (topic, origin, partition) DO UPDATE SET generation = excluded.generation,"
    " position = excluded.position, ordinal = excluded.ordinal, chain = excluded.chain,"
    ' "offset" = excluded."offset", cluster = excluded.cluster, topic_id = excluded.topic_id,'
    " incomplete = excluded.incomplete"
    " WHERE (excluded.generation, excluded.position, excluded.ordinal)"
    " >= (generation, position, ordinal)"
)


class StateFile:
    """An open state file; the key is what the TPM unsealed.

    Every method raises DeniedError SEALED_STATE_LOST for a damaged file, and
    UnavailableError OVERLOADED for one that cannot be read or written now.
    """

    def __init__(self, path: Path, key: bytes) -> None:
        self._path = path
        self._vault = Vault(key)
        self._lock = threading.Lock()
        with mapped(path):
            self._db = connect(path)
            self._db.executescript(SCHEMA)
            [version] = self._db.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            raise DeniedError(Reason.SEALED_STATE_LOST, "state file is of another version")

    @contextmanager
    def _write(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with self._lock, mapped(self._path):
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.rollback()
                raise
            self._db.commit()

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._lock, mapped(self._path):
            return self._db.execute(query, values).fetchall()

    # The sealed key and small facts

    def reseal(self, sealed: SealedKey) -> None:
        """Replace the sealed key, after the approved state of the platform changed; durable."""
        self.put("sealed", sealed_json(sealed).encode())

    def remember(self, name: str, value: bytes) -> None:
        """As `put`, for a fact that may be an older one after a power cut."""
        with self._write(durable=False) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def put(self, name: str, value: bytes) -> None:
        """Remember a small public fact; durable."""
        with self._write(durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def get(self, name: str) -> bytes | None:
        """A fact by name."""
        rows = self._rows("SELECT value FROM meta WHERE name = ?", name)
        return _octets(rows[0][0]) if rows else None

    # Keys

    def save_keys(self, records: Sequence[KeyRecord]) -> None:
        """Add private keys, encrypted; durable, because results will name them."""
        with self._write(durable=True) as db:
            for item in records:
                box = self._vault.lock(f"key:{item.name}", item.private)
                row = (item.name, item.kind, item.alg, item.store, _us(item.made), box)
                db.execute("INSERT OR REPLACE INTO secret VALUES (?, ?, ?, ?, ?, ?)", row)

    def drop_keys(self, names: Sequence[str]) -> None:
        """Erase keys that open or sign nothing any more."""
        if not names:
            return
        with self._write(durable=True) as db:
            db.executemany("DELETE FROM secret WHERE name = ?", [(name,) for name in names])
        self._empty_log()

    def _empty_log(self) -> None:
        """Leave no copy of what was erased in the write-ahead log."""
        with self._lock, mapped(self._path):
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def keys(self) -> list[KeyRecord]:
        """Every key, oldest first; raises DeniedError SEALED_STATE_LOST."""
        rows = self._rows(
            "SELECT name, kind, alg, store, made_us, box FROM secret ORDER BY made_us, name"
        )
        return [
            KeyRecord(
                name=str(name),
                kind=str(kind),
                alg=_int(alg),
                store=str(store),
                made=_time(made),
                private=self._vault.unlock(f"key:{name}", _octets(box)),
            )
            for name, kind, alg, store, made, box in rows
        ]

    # Captures

    def source(self, name: str) -> SourceState | None:
        """Where a capture goes on, or None for a new one."""
        rows = self._rows("SELECT generation, position, resume FROM source WHERE name = ?", name)
        if not rows:
            return None
        generation, position, resume = rows[0]
        return SourceState(generation=_int(generation), position=_int(position), resume=str(resume))

    def save_source(self, name: str, state: SourceState) -> None:
        """Move a capture's position; durable, because the source then lets go of it."""
        with self._write(durable=True) as db:
            row = (name, state.generation, state.position, state.resume)
            db.execute("INSERT OR REPLACE INTO source VALUES (?, ?, ?, ?)", row)

    def heads(self, topic: Topic) -> Mapping[Stream, StreamHead]:
        """The last acknowledged envelope of every stream of ours in `topic`."""
        rows = self._rows(
            "SELECT origin, partition, epoch, counter, hash, coalesce(log, ''),"
            ' coalesce("offset", -1), generation, position, ordinal'
            " FROM head LEFT JOIN place USING (topic, origin, partition) WHERE topic = ?",
            str(topic),
        )
        found = {}
        for origin, partition, epoch, counter, digest, log, offset, *upto in rows:
            stream = Stream(Origin.parse(str(origin)), topic, _int(partition))
            head = Head(
                origin=stream.origin,
                partition=stream.partition,
                epoch=_octets(epoch),
                counter=_int(counter),
                hash=_octets(digest),
            )
            found[stream] = StreamHead(
                stream=stream,
                head=head if head.hash else None,
                upto=ChangeSequence(*(_int(part) for part in upto)),
                log=str(log),
                offset=_int(offset),
            )
        return found

    def forget_source(self, name: str, topics: Sequence[Topic]) -> None:
        """Forget where a capture stood: it reads everything anew, as after a lost file; durable.

        Its generation stays in the token, so that the next one is above it whatever the clock
        says: readers go on with nothing else.
        """
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE source SET position = -1, resume = '{\"generation\": ' || generation || '}'"
                " WHERE name = ?",
                (name,),
            )
            for topic in topics:
                db.execute("DELETE FROM head WHERE topic = ?", (str(topic),))
                db.execute("DELETE FROM place WHERE topic = ?", (str(topic),))

    def save_heads(self, heads: Sequence[StreamHead], *, durable: bool = False) -> None:
        """Record acknowledgements."""
        with self._write(durable=durable) as db:
            for item in heads:
                stream, head = item.stream, item.head
                place = (str(stream.topic), str(stream.origin), stream.partition)
                link = (head.epoch, head.counter, head.hash) if head else (b"", 0, b"")
                db.execute(
                    "INSERT OR REPLACE INTO head VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*place, *link, *item.upto),
                )
                if item.log:
                    row = (*place, item.log, item.offset)
                    db.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?)", row)

    # Epochs

    def save_epoch(self, epoch: StoredEpoch) -> None:
        """Keep an epoch's start and secret; durable, before its start is sent."""
        box = self._vault.lock(f"epoch:{epoch.topic}:{epoch.number}", epoch.secret)
        with self._write(durable=True) as db:
            db.execute(
                "INSERT OR REPLACE INTO epoch VALUES (?, ?, ?, ?, ?)",
                (str(epoch.topic), epoch.number, _us(epoch.started), epoch.start, box),
            )

    def epochs(self, topic: Topic, number: int | None = None) -> list[StoredEpoch]:
        """Kept epochs, oldest first, or the one of `number`.

        Raises DeniedError SEALED_STATE_LOST.
        """
        rows = self._rows(
            "SELECT number, started_us, start, box FROM epoch WHERE topic = ?1"
            " AND (?2 IS NULL OR number = ?2) ORDER BY number",
            str(topic),
            number,
        )
        return [
            StoredEpoch(
                topic=topic,
                number=_int(number),
                started=_time(started),
                start=_octets(start),
                secret=self._vault.unlock(f"epoch:{topic}:{number}", _octets(box)),
            )
            for number, started, start, box in rows
        ]

    def epoch(self, topic: Topic, number: int) -> StoredEpoch | None:
        """One kept epoch; raises DeniedError SEALED_STATE_LOST."""
        return next(iter(self.epochs(topic, number)), None)

    def epoch_number(self, topic: Topic) -> int | None:
        """The greatest number of a kept epoch; no secret is touched."""
        rows = self._rows("SELECT max(number) FROM epoch WHERE topic = ?", str(topic))
        return None if rows[0][0] is None else _int(rows[0][0])

    def drop_epoch(self, topic: Topic, number: int, ident: bytes) -> None:
        """Erase an epoch's secret and whom it was granted to: its data are gone."""
        with self._write(durable=True) as db:
            db.execute("DELETE FROM epoch WHERE topic = ? AND number = ?", (str(topic), number))
            db.execute("DELETE FROM granted WHERE epoch = ?", (ident,))
        self._empty_log()

    def named(self, topic: Topic) -> Mapping[HostId, datetime]:
        """Since when each consumer of `topic` is named, as this host has seen the policy."""
        rows = self._rows("SELECT host, since_us FROM named WHERE topic = ?", str(topic))
        return {HostId.parse(str(host)): _time(since) for host, since in rows}

    def save_named(self, topic: Topic, named: Mapping[HostId, datetime]) -> None:
        """Replace who is named, and since when; durable, because epochs are granted by it."""
        rows = [(str(topic), str(host), _us(since)) for host, since in named.items()]
        with self._write(durable=True) as db:
            db.execute("DELETE FROM named WHERE topic = ?", (str(topic),))
            db.executemany("INSERT INTO named VALUES (?, ?, ?)", rows)

    def granted(self, epoch: bytes) -> frozenset[tuple[str, bytes]]:
        """(host, key thumbprint) pairs that later grants of an epoch served."""
        rows = self._rows("SELECT host, thumbprint FROM granted WHERE epoch = ?", epoch)
        return frozenset((str(host), _octets(thumbprint)) for host, thumbprint in rows)

    def save_granted(self, epoch: bytes, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Record that a grant was acknowledged."""
        with self._write(durable=False) as db:
            rows = [(epoch, host, thumbprint) for host, thumbprint in pairs]
            db.executemany("INSERT OR IGNORE INTO granted VALUES (?, ?, ?)", rows)

    # Positions of subscriptions

    def positions(self, topic: Topic) -> Mapping[Stream, StreamState]:
        """What subscribers of `topic` have acknowledged."""
        rows = self._rows(
            'SELECT origin, partition, generation, position, ordinal, chain, "offset", cluster,'
            " topic_id, incomplete FROM position WHERE topic = ?",
            str(topic),
        )
        found = {}
        for origin, partition, *high, chain, offset, cluster, topic_id, incomplete in rows:
            stream = Stream(Origin.parse(str(origin)), topic, _int(partition))
            found[stream] = StreamState(
                high=ChangeSequence(*(_int(part) for part in high)),
                chain=_octets(chain),
                offset=_int(offset),
                cluster=str(cluster),
                topic_id=str(topic_id),
                incomplete=bool(_int(incomplete) & _INCOMPLETE),
                in_snapshot=bool(_int(incomplete) & _IN_SNAPSHOT),
            )
        return found

    def save_position(self, stream: Stream, state: StreamState) -> None:
        """Move a subscription's position on; durable, because its caller relies on it.

        A state whose high-water sequence is below the stored one changes nothing.
        """
        place = (str(stream.topic), str(stream.origin), stream.partition)
        lacks = state.incomplete * _INCOMPLETE + state.in_snapshot * _IN_SNAPSHOT
        hint = (state.offset, state.cluster, state.topic_id, lacks)
        with self._write(durable=True) as db:
            db.execute(_MOVE_ON, (*place, *state.high, state.chain, *hint))

    def close(self) -> None:
        """Close the file; everything written stays."""
        with self._lock:
            self._db.close()


def _us(time: datetime) -> int:
    return int(time.timestamp() * 1_000_000)


def _time(value: object) -> datetime:
    return datetime.fromtimestamp(_int(value) / 1_000_000, UTC)


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def _octets(value: object) -> bytes:
    assert isinstance(value, bytes)
    return value
