"""The tree of commands, and what an error looks like to a person."""

import sys

import typer

from fabric.cli import attest, audit, output, policy, processes, quarantine
from fabric.cli.demo import demo
from fabric.cli.doctor import doctor
from fabric.cli.look import inspect, tail
from fabric.cli.status import lag, status
from fabric.model.errors import FabricError

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
app.command("demo")(demo)
app.command("status")(status)
app.command("lag")(lag)
app.command("inspect")(inspect)
app.command("tail")(tail)
app.command("doctor")(doctor)
app.add_typer(processes.agent, name="agent")
app.add_typer(processes.gateway, name="gateway")
app.add_typer(processes.authority, name="authority")
app.add_typer(attest.app, name="attest")
app.add_typer(audit.app, name="audit")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(policy.app, name="policy")


def main() -> None:
    """Run the command line; errors of the fabric become one line and an exit code."""
    try:
        app()
    except FabricError as error:
        typer.echo(f"fabric: {error}", err=True)
        sys.exit(output.exit_code(error))
    except KeyboardInterrupt:
        sys.exit(130)
