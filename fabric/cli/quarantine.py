"""`fabric quarantine`: changes that could not be applied, and what to do with them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from fabric.cli import output
from fabric.cli.access import Config, sinks_of
from fabric.model.errors import ConfigInvalid
from fabric.model.names import Topic
from fabric.ports import ChangeSink, Parked

app = typer.Typer(help="Changes that could not be applied.", no_args_is_help=True)
Result = TypeVar("Result")
Ident = Annotated[int, typer.Argument(help="number from `quarantine list`")]
Only = Annotated[str, typer.Option("--topic", help="one dataset only")]


def _with_sink(
    config: Config, topic: str, act: Callable[[ChangeSink], Awaitable[Result]]
) -> Result:
    async def body() -> Result:
        async with sinks_of(config) as sinks:
            chosen = [sink for topics, sink in sinks if not topic or topic in topics]
            if len(chosen) != 1:
                raise ConfigInvalid("several targets are configured; choose one with --topic")
            return await act(chosen[0])

    return asyncio.run(body())


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
        wanted = Topic.parse(topic) if topic else None
        async with sinks_of(config) as sinks:
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
    """Apply a parked change and later ones of its key, in order."""
    applied = _with_sink(config, topic, lambda sink: sink.retry(ident))
    typer.echo(f"{applied} changes applied", err=True)


@app.command()
def drop(ident: Ident, config: Config, topic: Only = "") -> None:
    """Forget a parked change; its dataset is incomplete from then on."""
    typer.confirm("the dataset will be incomplete until it is read anew; go on?", abort=True)
    _with_sink(config, topic, lambda sink: sink.drop(ident))
    typer.echo("dropped; the dataset is marked incomplete", err=True)
