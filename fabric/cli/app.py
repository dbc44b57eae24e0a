"""The tree of commands, and what an error looks like to a person."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

import typer
from typer.core import TyperCommand

from fabric.cli import output
from fabric.model.errors import FabricError, Reason, UnavailableError

_HOMES: Mapping[str, str] = MappingProxyType(
    {
        "demo": "fabric.cli.demo:demo",
        "status": "fabric.cli.status:status",
        "lag": "fabric.cli.status:lag",
        "inspect": "fabric.cli.look:inspect",
        "tail": "fabric.cli.look:tail",
        "doctor": "fabric.cli.doctor:doctor",
        "agent": "fabric.cli.processes:agent",
        "gateway": "fabric.cli.processes:gateway",
        "authority": "fabric.cli.processes:authority",
        "attest": "fabric.cli.attest:app",
        "audit": "fabric.cli.audit:app",
        "quarantine": "fabric.cli.quarantine:app",
        "policy": "fabric.cli.policy:app",
    }
)
"""Where each first word lives: a command's function, or the tree below the word."""


class Command(TyperCommand):
    """One command; its help writes arguments in capitals, as our messages and pages do."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        for param in self.params:
            if param.param_type_name == "argument" and param.metavar is None:
                param.metavar = (param.name or "").upper()

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What stands behind the command's words; typer puts what is required into braces."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in pieces]


def tree(first: Sequence[str]) -> typer.Typer:
    """The tree of commands.

    Args:
        first: the first word of the command line, if it has one. Of a tree with this word
            only its branch is loaded, so that a gateway that runs for months does not hold
            the code of every other command; else the whole tree, for help and completion.
    """
    app = typer.Typer(
        name="fabric",
        help=(
            "Sealed, attested synchronisation of agency databases over Kafka.\n\n"
            "Exit codes: 0 done, 1 error, 2 usage or configuration, 10 unhealthy, 11 denied, "
            "12 not attested."
        ),
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(_root)
    for word in [word for word in first if word in _HOMES] or _HOMES:
        module, _, name = _HOMES[word].partition(":")
        branch = getattr(import_module(module), name)
        if isinstance(branch, typer.Typer):
            app.add_typer(branch, name=word)
            for info in branch.registered_commands:
                info.cls = Command
        else:
            app.command(word, cls=Command)(branch)
    return app


def _root() -> None:
    # No docstring: it would stand in the help. Without a callback, a tree of one command
    # would be that command, and its word an argument.
    pass


def main() -> None:
    """Run the command line; errors of the fabric become one line and an exit code."""
    try:
        tree(sys.argv[1:2])(prog_name="fabric")
    except FabricError as error:
        typer.echo(f"fabric: {error}", err=True)
        sys.exit(output.exit_code(error))
    except TimeoutError:
        # Whoever waits names what it waited for; this is for the wait that somebody forgot.
        late = UnavailableError(Reason.NOT_READY, "no answer in time; see fabric doctor")
        typer.echo(f"fabric: {late}", err=True)
        sys.exit(output.exit_code(late))
    except OSError as error:
        # A file that somebody forgot to speak of; any other is a bug, and is told in full.
        if error.filename is None:
            raise
        typer.echo(f"fabric: {error.filename}: {error.strerror}; check path and mode", err=True)
        sys.exit(output.ERROR)
    except KeyboardInterrupt:
        sys.exit(130)
