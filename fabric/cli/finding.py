"""Find a row's newest change by its key: this host opens blocks that were granted to it.

That is reading, so it is audited like reading: before the first block is opened, in a
log of its own beside the agent's, and refused when that cannot be written.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from fabric.admit.reader import admit_read
from fabric.admit.view import Place, View
from fabric.agent.grant_book import GrantBook
from fabric.agent.identity import Identity
from fabric.cli.topics import read_all, records
from fabric.config import AgentConfig
from fabric.model.block import Block
from fabric.model.change import Change, changes_of
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    FabricError,
    Malformed,
    Reason,
    UnavailableError,
)
from fabric.model.names import Topic, grants_topic
from fabric.model.partition import key_bytes, partition_of
from fabric.policy import decide
from fabric.policy.types import Dataset
from fabric.ports import Log, Record
from fabric.seal.opening import open_
from fabric.store.audit import Bounds, FileAudit
from fabric.store.clock import SystemClock

AUDIT_FILE = "opened.jsonl"


async def find(
    host: AgentConfig, log: Log, view: View, topic: Topic, key: str
) -> tuple[Record, Mapping[str, object]]:
    """The newest record that changes the row, and which of its changes does.

    Raises:
        ConfigInvalid: the key is not the dataset's, or no block changes its row.
        DeniedError: TOPIC_UNKNOWN, NOT_A_CONSUMER, GRANT_MISSING.
        UnavailableError: the audit log cannot be written; TPM_UNAVAILABLE.
    """
    dataset = decide.dataset_of(view.policy, str(topic))
    wanted = key_bytes(dataset.schema, _row(dataset, key))
    partition = partition_of(wanted, dataset.salt, dataset.partitions)
    audited(host, topic, partition)
    identity = await asyncio.to_thread(_identity, host)
    try:
        book = GrantBook(topic, view.policy.trust.trust_domain, host.agent.host)
        for record in await read_all(log, grants_topic(topic)):
            _feed(book, record, view)
        async with aclosing(records(log, str(topic), partition)) as items:
            return await _newest(items, wanted, dataset, view=view, book=book, identity=identity)
    finally:
        identity.close()


def audited(host: AgentConfig, topic: Topic, partition: int) -> None:
    """Write that blocks are opened; raises UnavailableError when that cannot be written."""
    failures: list[bool] = []
    audit = FileAudit(
        host.agent.folder / AUDIT_FILE,
        SystemClock(),
        failed=lambda: failures.append(True),
        bounds=Bounds(file_bytes_max=host.audit.file_bytes_max, files_max=host.audit.files_max),
    )
    audit.write("blocks_opened", {"topic": str(topic), "partition": partition, "for": "prove"})
    audit.close()
    if failures:
        raise UnavailableError(
            Reason.OVERLOADED, "opening is not audited: make room on the disk, then try again"
        )


def _row(dataset: Dataset, key: str) -> dict[str, Any]:
    names = dataset.schema.key
    try:
        value = json.loads(key)
    except ValueError:
        # A key of one text may stand without quotes, but not what was to be JSON.
        is_text = dataset.schema.key_columns[0].item == "string"
        if not is_text or key.startswith(("{", "[", '"')):
            raise ConfigInvalid(
                f"--key is no JSON: give an object of the key columns ({', '.join(names)})"
            ) from None
        value = key
    row = value if isinstance(value, dict) else {names[0]: value}
    if set(row) != set(names):
        raise ConfigInvalid(f"--key must hold exactly {', '.join(names)}, as JSON")
    return row


def _identity(host: AgentConfig) -> Identity:
    from fabric.tpm.device import TpmDevice

    identity = Identity(host.agent.folder, TpmDevice(host.tpm.tcti), ca=host.tls.ca, stores=())
    if not identity.open_existing():
        raise DeniedError(Reason.NOT_ATTESTED, "this host has no state file yet; start the agent")
    return identity


def _feed(book: GrantBook, record: Record, view: View) -> None:
    try:
        book.feed(record.key or b"", record.value or b"", view.members)
    except FabricError:
        return  # what does not verify grants nothing


async def _newest(
    items: AsyncGenerator[Record, None],
    wanted: bytes,
    dataset: Dataset,
    *,
    view: View,
    book: GrantBook,
    identity: Identity,
) -> tuple[Record, Mapping[str, object]]:
    """Read on to the end and keep the last that matches: blocks are large, the log is long."""
    unopened = 0
    found: tuple[Record, Mapping[str, object]] | None = None
    async for record in items:
        block = _opened(record, dataset, view=view, book=book, identity=identity)
        if block is None:
            unopened += 1
            continue
        matches = [change for change in _changes(block) if _is_of(change, wanted, dataset)]
        if matches:
            change = matches[-1]
            said = {"operation": change.op.name.lower(), "sequence": list(change.sequence)}
            found = record, {"change": said}
    if found is not None:
        return found
    if unopened:
        raise DeniedError(
            Reason.GRANT_MISSING,
            f"no block that this host can open changes that row; {unopened} did not open",
        )
    raise ConfigInvalid("no block changes that row; check --key, and how long the topic is kept")


def _opened(
    record: Record, dataset: Dataset, *, view: View, book: GrantBook, identity: Identity
) -> Block | None:
    try:
        verified = admit_read(
            record.value or b"",
            Place(record.topic, record.partition),
            view,
            appended=record.timestamp,
        )
        start = book.start(verified.envelope.header.start_hash, view.members)
        if start is None:
            return None
        secret = book.secret(start, identity.keyring.hpke, view)
        return open_(verified, secret, dataset.schema)
    except FabricError:
        return None


def _changes(block: Block) -> Iterator[Change]:
    for run in block.runs:
        yield from changes_of(run, block.generation, block.stream.topic, block.stream.origin)


def _is_of(change: Change, wanted: bytes, dataset: Dataset) -> bool:
    if change.row is None:
        return False
    try:
        return key_bytes(dataset.schema, change.row) == wanted
    except Malformed:
        return False
