"""`fabric inspect` and `fabric tail`: look at records without opening them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from fabric.cli import output
from fabric.cli.access import Config, as_host, log_of
from fabric.cli.topics import held_record
from fabric.config import AgentConfig
from fabric.model.errors import ConfigInvalid, DeniedError, FabricError, Malformed, Reason
from fabric.model.limits import ENVELOPE_BYTES_MAX
from fabric.ports import Log, Record

Source = Annotated[str, typer.Argument(help="a file, or topic:partition:offset")]
Topic = Annotated[str, typer.Argument(help="topic name")]


def inspect(source: Source, config: Config = None, form: output.Output = output.Form.TABLE) -> None:
    """Show the header of an envelope: who sealed what for whom to open; never the plaintext."""
    path = Path(source)
    if path.is_file():
        if path.stat().st_size > ENVELOPE_BYTES_MAX:
            raise Malformed("file is larger than any envelope")
        output.record(form, _described_file(path))
        return
    topic, partition, offset = _place(source)
    value = asyncio.run(_fetch(as_host(config), topic, partition, offset))
    output.record(form, described(value))


def _described_file(path: Path) -> Mapping[str, object]:
    try:
        return described(_content(path))
    except Malformed as exc:
        raise Malformed(
            f"{path}: {exc.args[0]}; give one record's value as it lies in the topic"
        ) from exc


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigInvalid(
            f"{path}: cannot be read ({exc.strerror}); check path and mode"
        ) from exc


def described(value: bytes) -> Mapping[str, object]:
    """A record's value in words: an envelope's header, or that it is open."""
    from fabric.seal import envelope

    if value[:1] == b"\x00" and len(value) > 5:
        schema = int.from_bytes(value[1:5])
        return {"form": "open", "schema_id": schema, "bytes": len(value)}
    return {"form": "sealed", **envelope.describe(envelope.parse(value)), "bytes": len(value)}


def _place(source: str) -> tuple[str, int, int]:
    parts = source.rsplit(":", 2)
    if len(parts) != 3 or not (parts[1].isdigit() and parts[2].isdigit()):
        raise ConfigInvalid(
            f"{source} is neither a file nor topic:partition:offset; correct the path, or write a"
            " place as in secret.G01.residents:0:42"
        )
    return parts[0], int(parts[1]), int(parts[2])


async def _bounds(log: Log, topic: str, partition: int) -> tuple[int, int]:
    """As ports.Log.bounds; raises ConfigInvalid for a place that is not there, or not ours.

    Whoever mistypes a topic or a partition has not found a drifted topic or a lost right.
    """
    try:
        return await log.bounds(topic, partition)
    except DeniedError as exc:
        if exc.reason is Reason.TOPIC_DRIFT:
            raise ConfigInvalid(f"{topic}: {exc.args[0]}") from exc
        if exc.reason is Reason.NOT_A_CONSUMER:
            said = "there is no such topic, or it is not yours to read"
            raise ConfigInvalid(f"{topic}: {said}") from exc
        raise


async def _check_offset(log: Log, topic: str, partition: int, offset: int) -> None:
    first, end = await _bounds(log, topic, partition)
    if not first <= offset < end:
        held = f"its offsets are {first} to {end - 1}" if first < end else "it is empty"
        raise ConfigInvalid(f"{topic}:{partition} has no record {offset}: {held}")


async def _fetch(host: AgentConfig, topic: str, partition: int, offset: int) -> bytes:
    async with log_of(host) as log:
        await _check_offset(log, topic, partition, offset)
        return (await held_record(log, topic, partition, offset)).value or b""


def tail(
    topic: Topic,
    config: Config = None,
    *,
    partition: Annotated[int, typer.Option(min=0, help="of the topic")] = 0,
    count: Annotated[int, typer.Option(min=0, help="end after so many; 0 goes on")] = 0,
    beginning: Annotated[
        bool, typer.Option("--from-beginning", help="all that the log holds, then what comes")
    ] = False,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Follow a topic: one line a record, headers only.

    It has no end that a JSON document could wait for: -o json and -o jsonl alike print JSON
    Lines, one object a record.
    """

    async def follow() -> None:
        async with log_of(as_host(config)) as log:
            start, end = await _bounds(log, topic, partition)
            first = start if beginning else max(start, end - (count or 0))
            await _print(log, (topic, partition, first), count, form)

    asyncio.run(follow())


async def _print(log: Log, place: tuple[str, int, int], count: int, form: output.Form) -> None:
    seen = 0
    topic, partition, first = place
    async for batch in log.read(topic, partition, first):
        for record in batch:
            _show(record, form)
            seen += 1
            if count and seen >= count:
                return


def _show(record: Record, form: output.Form) -> None:
    try:
        what = described(record.value or b"")
    except FabricError as error:
        what = {"form": "refused", "reason": error.reason.value}
    fields = {"offset": record.offset, "time": output.moment(record.timestamp), **what}
    if form is not output.Form.TABLE:
        output.line(fields)
        return
    wanted = ("form", "sender", "changes", "suite", "epoch_number", "counter", "schema_id", "bytes")
    words = [f"{key}={fields[key]}" for key in wanted if key in fields]
    typer.echo(f"{record.offset:>8}  {fields['time']}  {' '.join(words)}")
