"""The resume token of a SQLite source: which life of which database, how far, what is snapshot.

The cursor holds the last key that a snapshot read, so a token is as secret as the
rows; it stays in the agent's state file on the same host.
"""

import json
from dataclasses import dataclass
from typing import Any

from fabric.database.sqlite_values import SqlValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the snapshot of one dataset came.

    Attributes:
        table: the table it reads; another table means another snapshot.
        fingerprint: of the schema it was read with.
        begun: the begin mark is out.
        done: the end mark is out.
        cursor: SQLite values of the last key read, or None before the first chunk.
    """

    table: str
    fingerprint: str
    begun: bool = False
    done: bool = False
    cursor: tuple[SqlValue, ...] | None = None

    def __repr__(self) -> str:  # the cursor is row data
        return f"Progress({self.table}, begun={self.begun}, done={self.done})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Where to go on; `mark` is the random value of the watermark at `position`."""

    database: bytes
    generation: int
    position: int
    mark: bytes
    snapshots: dict[str, Progress]

    def __repr__(self) -> str:
        return f"Token(generation={self.generation}, position={self.position})"


def encode(token: Token) -> str:
    """As JSON text."""
    return json.dumps(
        {
            "kind": "sqlite",
            "version": 1,
            "database": token.database.hex(),
            "generation": token.generation,
            "position": token.position,
            "mark": token.mark.hex(),
            "snapshots": {name: _progress_out(p) for name, p in token.snapshots.items()},
        },
        separators=(",", ":"),
    )


def decode(text: str) -> Token | None:
    """Read a token, or None when it is not one of ours: then there is nothing to go on from."""
    try:
        data: Any = json.loads(text)
        if data["kind"] != "sqlite" or data["version"] != 1:
            return None
        return Token(
            database=bytes.fromhex(data["database"]),
            generation=int(data["generation"]),
            position=int(data["position"]),
            mark=bytes.fromhex(data["mark"]),
            snapshots={name: _progress_in(p) for name, p in data["snapshots"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def generation_in(text: str) -> int:
    """The generation of any source's token, 0 when it has none; new ones must be greater."""
    try:
        return int(json.loads(text)["generation"])
    except (ValueError, KeyError, TypeError):
        return 0


def _progress_out(progress: Progress) -> dict[str, Any]:
    cursor = progress.cursor
    return {
        "table": progress.table,
        "fingerprint": progress.fingerprint,
        "begun": progress.begun,
        "done": progress.done,
        "cursor": None if cursor is None else [_value_out(value) for value in cursor],
    }


def _progress_in(data: Any) -> Progress:
    cursor = data["cursor"]
    return Progress(
        table=str(data["table"]),
        fingerprint=str(data["fingerprint"]),
        begun=bool(data["begun"]),
        done=bool(data["done"]),
        cursor=None if cursor is None else tuple(_value_in(value) for value in cursor),
    )


def _value_out(value: SqlValue) -> Any:
    return {"bytes": value.hex()} if isinstance(value, bytes) else value


def _value_in(value: Any) -> SqlValue:
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"])
    if isinstance(value, int | float | str):
        return value
    raise ValueError
