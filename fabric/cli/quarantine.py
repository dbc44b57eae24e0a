"""`fabric quarantine`: changes that could not be applied, and what to do with them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeAlias, TypeVar

import typer

from fabric.cli import output
from fabric.cli.access import Config, sinks_of
from fabric.model.errors import ConfigInvalid, DeniedError, Reason
from fabric.model.names import Topic
from fabric.ports import ChangeSink, Parked

app = typer.Typer(help="Changes that could not be applied.", no_args_is_help=True)
Result = TypeVar("Result")
Sinks: TypeAlias = Sequence[tuple[frozenset[str], ChangeSink]]
Ident = Annotated[int, typer.Argument(help="number from `quarantine list`")]
Only = Annotated[str, typer.Option("--topic", help="one dataset only")]


def _with_sink(
    config: Config, topic: str, act: Callable[[ChangeSink], Awaitable[Result]]
) -> Result:
    async def body() -> Result:
        async with sinks_of(config) as sinks:
            _check_applied(sinks, topic)
            chosen = [sink for topics, sink in sinks if not topic or topic in topics]
            if len(chosen) > 1:
                raise ConfigInvalid("several targets are configured; choose one with --topic")
            return await act(chosen[0])

    return asyncio.run(body())


def _check_applied(sinks: Sinks, topic: str) -> None:
    """Raises ConfigInvalid where nothing is applied, or not this topic: no quarantine is there."""
    known = sorted(name for topics, _ in sinks for name in topics)
    if not known:
        raise ConfigInvalid("agent.toml applies nothing, so nothing can be in quarantine")
    if topic and topic not in known:
        raise ConfigInvalid(f"--topic: {topic} is not applied here; these are: {', '.join(known)}")


def _fields(parked: Parked) -> dict[str, object]:
    return {
        "id": parked.id,
        "topic": str(parked.topic),
        "partition": parked.partition,
        "offset": parked.offset,
        "reason": parked.reason,
    }


@app.command("list")
def list_(config: Config, topic: Only = "", form: output.Output = output.Form.TABLE) -> None:
    """List what waits, oldest first, without rows."""

    async def body() -> list[Parked]:
        async with sinks_of(config) as sinks:
            _check_applied(sinks, topic)
            wanted = Topic.parse(topic) if topic else None
            return [item for _, sink in sinks for item in await sink.quarantined(wanted)]

    output.rows(form, [_fields(item) for item in asyncio.run(body())], empty="quarantine is empty")


@app.command()
def show(
    ident: Ident, config: Config, topic: Only = "", form: output.Output = output.Form.TABLE
) -> None:
    """Show one parked change with its row: it is plaintext of the dataset's label."""
    parked = _with_sink(config, topic, lambda sink: sink.parked(ident))
    if parked is None or parked.change is None:
        raise ConfigInvalid(f"no change {ident} is in quarantine; see fabric quarantine list")
    change = parked.change
    fields = {"operation": change.op.name, "sequence": list(change.sequence), "row": change.row}
    output.record(form, {**_fields(parked), **fields})


@app.command()
def retry(ident: Ident, config: Config, topic: Only = "") -> None:
    """Apply a parked change and later ones of its key, in order; exit 1 when one stays."""
    applied, left = _with_sink(config, topic, lambda sink: _retry(sink, ident))
    typer.echo(f"{applied} changes applied", err=True)
    if left is not None:
        raise DeniedError(
            Reason.APPLY_FAILED,
            f"change {left.id} of {left.topic} still cannot be applied: {left.reason}; correct the"
            " table and retry, or drop the change",
        )


async def _retry(sink: ChangeSink, ident: int) -> tuple[int, Parked | None]:
    """How many were applied, and the first of the same key that was not."""
    asked = await sink.parked(ident)
    applied = await sink.retry(ident)
    if asked is None:
        return applied, None
    for item in await sink.quarantined(asked.topic):
        if (item.partition, item.key) != (asked.partition, asked.key):
            continue
        # Two origins may have a key in common; a retry is of one's changes alone.
        left = await sink.parked(item.id)
        if left and left.change and asked.change and left.change.origin == asked.change.origin:
            return applied, left
    return applied, None


@app.command()
def drop(ident: Ident, config: Config, topic: Only = "") -> None:
    """Forget a parked change; its dataset is incomplete from then on."""
    typer.confirm("the dataset will be incomplete until it is read anew; go on?", abort=True)
    _with_sink(config, topic, lambda sink: sink.drop(ident))
    typer.echo("dropped; the dataset is marked incomplete", err=True)
