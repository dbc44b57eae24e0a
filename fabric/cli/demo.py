"""`fabric demo`: the whole fabric on this machine, with proofs."""

from pathlib import Path
from typing import Annotated

import typer

from fabric.cli import output
from fabric.model.errors import ConfigInvalid

_KINDS = ("postgresql", "sqlite")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="leave it running at the end")] = False,
    down: Annotated[bool, typer.Option("--down", help="end a demo that was kept")] = False,
    rows: Annotated[int, typer.Option(min=1_000, max=5_000_000, help="residents")] = 50_000,
    source: Annotated[str, typer.Option(help="postgresql or sqlite")] = "",
    target: Annotated[str, typer.Option(help="postgresql or sqlite")] = "",
    folder: Annotated[Path, typer.Option(help="where everything lives")] = Path("/tmp/fabric-demo"),  # noqa: S108
    form: output.Output = output.Form.TABLE,
) -> None:
    """Sync two agencies on this machine, then attack, kill and change hosts. 0 if all held."""
    from fabric.demo import run, world
    from fabric.demo.say import Teller

    teller = Teller(is_json=form is not output.Form.TABLE)
    if down:
        if not run.down(folder, teller):
            typer.echo(f"fabric: no demo runs in {folder}; another one needs --folder", err=True)
            raise typer.Exit(output.ERROR)
        return
    for name, kind in (("--source", source), ("--target", target)):
        if kind and kind not in _KINDS:
            raise ConfigInvalid(f"{name} must be one of {', '.join(_KINDS)}")
    default = world.default_kind()
    wish = world.Wish(
        folder=folder, rows=rows, source=source or default, target=target or default, keep=keep
    )
    raise typer.Exit(output.OK if run.demo(wish, teller) else output.ERROR)
