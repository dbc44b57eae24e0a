"""The resume token of a PostgreSQL source: which cluster, which slot, how far, what is snapshot.

`last_key` and `gone` hold rows' keys, so a token is as secret as the rows; it stays in the
agent's state file on the same host.
"""

import json
from collections.abc import Iterable, Set
from dataclasses import dataclass, field, replace
from typing import Any

from fabric.database import postgresql_identity as identities
from fabric.database.postgresql_identity import Identity
from fabric.database.postgresql_unseen import Past
from fabric.database.postgresql_window import Key

PENDING, BEGUN, DONE = "pending", "begun", "done"


GONE_KEYS_MAX = 64
"""Rows of a dataset that readers lack and that are remembered one by one.

A token is written often and must stay small: from one more on every key counts as one of them.
Nothing is lost by that, nor given out in part. Each change whose large values the log leaves out
is made whole from the table, which is slower; a row that readers have already they get again as
it is. It ends with the dataset's next snapshot, with a TRUNCATE, or, of rows that no sink wrote,
behind `Gone.until`.
"""
_FOR_EVER = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Rows that readers never had, or not as they are here.

    They were gone when they were to be read, or one of our sinks wrote them, which is not sent.

    Attributes:
        until: where the log ended then; what removed them lies before it. The last position of
            all when a sink wrote one of them: such a row stays until it goes out whole.
        keys: theirs; None for too many.
    """

    until: int
    keys: frozenset[Key] | None = field(repr=False)

    def has(self, key: Key) -> bool:
        """Whether a row may be one of them."""
        return self.keys is None or key in self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the snapshot of one dataset came.

    Attributes:
        table: the table it reads; another table means another snapshot.
        fingerprint: of the schema it reads with, hexadecimal.
        state: `pending`, `begun` (the begin mark is out) or `done`.
        last_key: physical values of the last key read; None before the first chunk.
        rows: rows emitted so far.
        identity: which table it is of; None in tokens that do not say.
        gone: rows of which the log may hold changes in part, that nobody can use.
    """

    table: str
    fingerprint: str
    state: str = PENDING
    last_key: Key | None = field(default=None, repr=False)
    rows: int = 0
    identity: Identity | None = None
    gone: Gone | None = None

    def without(self, key: Key, *, at: int, until: int) -> "Progress":
        """The same when the row of a change at position `at` is gone by `until`."""
        old = self.gone if self.gone and self.gone.until >= at else Gone(until=0, keys=frozenset())
        keys = None if old.keys is None else old.keys | {key}
        keys = None if keys is None or len(keys) > GONE_KEYS_MAX else keys
        return replace(self, gone=Gone(until=max(until, old.until), keys=keys))

    def with_foreign(self, keys: Iterable[Key], *, at: int) -> "Progress":
        """The same when a sink of ours wrote rows at position `at`."""
        progress = self
        for key in keys:
            progress = progress.without(key, at=at, until=_FOR_EVER)
        return progress

    def having(self, keys: Set[Key] | None) -> "Progress":
        """The same when readers have these rows, or none is left of them; None for all."""
        if self.gone is None or keys is None:
            return replace(self, gone=None)
        if self.gone.keys is None:
            return self
        left = self.gone.keys - keys
        return replace(self, gone=replace(self.gone, keys=left) if left else None)

    @property
    def lacks_any(self) -> bool:
        """Whether any row may be one that a sink wrote: there were too many to remember."""
        return self.gone is not None and self.gone.keys is None and self.gone.until == _FOR_EVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Where to go on.

    Attributes:
        generation: life of the source.
        system_id, timeline: the cluster and its history, which give log positions meaning.
        position: every change at or before it is out.
        snapshots: progress by topic.
        unseen: transactions that are out and may not be visible yet; None when any may be
            one, and in tokens that do not say.
    """

    generation: int
    system_id: str
    timeline: int
    slot: str
    position: int
    snapshots: dict[str, Progress]
    unseen: Past | None = field(default_factory=Past)

    def at(self, position: int) -> "Token":
        """The same at another position; what was gone no longer matters behind its end."""
        past = {
            name: replace(each, gone=None)
            for name, each in self.snapshots.items()
            if each.gone and position > each.gone.until
        }
        snapshots = {**self.snapshots, **past} if past else self.snapshots
        return replace(self, position=position, snapshots=snapshots)

    def with_progress(self, topic: str, progress: Progress) -> "Token":
        """The same with one dataset's progress."""
        return replace(self, snapshots={**self.snapshots, topic: progress})

    def with_snapshots(self, snapshots: dict[str, Progress]) -> "Token":
        """The same with the progress of all datasets.

        What is written into a table before it is published goes by in no stream. So unless
        all datasets go on as they were, every transaction of now may be unseen.
        """
        is_same = all(self.snapshots.get(name) == each for name, each in snapshots.items())
        return replace(self, snapshots=snapshots, unseen=self.unseen if is_same else None)


def encode(token: Token) -> str:
    """As JSON text."""
    return json.dumps(
        {
            "kind": "postgresql",
            "version": 1,
            "generation": token.generation,
            "system_id": token.system_id,
            "timeline": token.timeline,
            "slot": token.slot,
            "lsn": token.position,
            "unseen": _unseen_out(token.unseen),
            "snapshot": {name: _progress_out(each) for name, each in token.snapshots.items()},
        },
        separators=(",", ":"),
    )


def decode(text: str | None) -> Token | None:
    """Read a token, or None when it is not one of ours: then there is nothing to go on from."""
    try:
        data: Any = json.loads(text or "")
        if data["kind"] != "postgresql" or data["version"] != 1:
            return None
        return Token(
            generation=int(data["generation"]),
            system_id=str(data["system_id"]),
            timeline=int(data["timeline"]),
            slot=str(data["slot"]),
            position=int(data["lsn"]),
            snapshots={name: _progress_in(each) for name, each in data["snapshot"].items()},
            unseen=_unseen_in(data.get("unseen")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def generation_in(text: str | None) -> int:
    """The generation of any source's token, 0 when it has none; new ones must be greater."""
    try:
        return int(json.loads(text or "")["generation"])
    except (ValueError, KeyError, TypeError):
        return 0


def _progress_out(progress: Progress) -> dict[str, Any]:
    last = progress.last_key
    return {
        "table": progress.table,
        "fingerprint": progress.fingerprint,
        "state": progress.state,
        "rows": progress.rows,
        "last_key": None if last is None else _key_out(last),
        "identity": identities.to_json(progress.identity),
        "gone": _gone_out(progress.gone),
    }


def _progress_in(data: Any) -> Progress:
    last = data["last_key"]
    if data["state"] not in (PENDING, BEGUN, DONE):
        raise ValueError
    return Progress(
        table=str(data["table"]),
        fingerprint=str(data["fingerprint"]),
        state=data["state"],
        last_key=None if last is None else _key_in(last),
        rows=int(data["rows"]),
        identity=identities.from_json(data.get("identity")),
        gone=_gone_in(data.get("gone")),
    )


def _gone_out(gone: Gone | None) -> Any:
    if gone is None:
        return None
    keys = None if gone.keys is None else [_key_out(key) for key in gone.keys]
    return {"until": gone.until, "keys": keys}


def _gone_in(data: Any) -> Gone | None:
    if data is None:
        return None
    keys = data["keys"]
    return Gone(
        until=int(data["until"]),
        keys=None if keys is None else frozenset(_key_in(key) for key in keys),
    )


def _unseen_out(past: Past | None) -> Any:
    """A span alone is a list, as in tokens that know no ids; so is nothing at all."""
    if past is None:
        return None
    span = list(past.span or ())
    return {"ids": sorted(past.ids), "span": span} if past.ids else span


def _unseen_in(data: Any) -> Past | None:
    if data is None:
        return None
    ids, span = (data["ids"], data["span"]) if isinstance(data, dict) else ((), data)
    if len(span) not in (0, 2):
        raise ValueError
    return Past(
        ids=frozenset(int(each) for each in ids),
        span=(int(span[0]), int(span[1])) if span else None,
    )


def _key_out(key: Key) -> list[Any]:
    return [_out(value) for value in key]


def _key_in(data: Any) -> Key:
    return tuple(_in(value) for value in data)


def _out(value: Any) -> Any:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _in(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, int | str):
        return value
    raise ValueError
