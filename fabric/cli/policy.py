"""`fabric policy`: write, check, sign and publish the policy that everything obeys.

Signing is split: each person signs on a machine of their own what is staged in the
workspace, and whoever holds the online keys publishes what enough persons signed.
"""

import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fabric.cli import output
from fabric.model.errors import ConfigInvalid, UsageError

if TYPE_CHECKING:
    from fabric.policy.types import Policy
    from fabric.repository.publishing import Step
    from fabric.repository.staging import Standing, Workspace

app = typer.Typer(help="Write, check, sign and publish the policy.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="workspace: source/, roles.yaml, repository/")]
Private = Annotated[str, typer.Option("--key", "-k", help="private key: a file or pkcs11: URI")]
_NAMED = "NAME=FILE.pub"


@app.command()
def key(
    where: Annotated[str, typer.Argument(help="new file, or pkcs11: URI of a token and a label")],
    kind: Annotated[str, typer.Option(help="ed25519; ml-dsa-65 (file), ecdsa-p384 (token)")] = (
        "ed25519"
    ),
) -> None:
    """Make a key that signs policies, and beside it NAME.pub to hand out."""
    from fabric.repository import keys, token

    is_token = where.startswith(token.SCHEME)
    kinds = token.KINDS if is_token else keys.KINDS
    if kind not in kinds:
        raise ConfigInvalid(f"--kind: must be one of {', '.join(sorted(kinds))}")
    if is_token:
        found = token.TokenKey.parse(where)
        public = Path(f"{found.label}.pub")
        keys.write_public(public, token.make_token_key(found, kind).public_key)
    else:
        keys.make_key(Path(where), kind)
        public = Path(f"{where}.pub")
    typer.echo(f"wrote {public}: hand it out; the private half stays where it was made")


@app.command()
def init(
    workspace: Folder,
    person: Annotated[list[str], typer.Option(help=f"{_NAMED}, twice or more")],
    snapshot: Annotated[Path, typer.Option(help="FILE.pub of whoever publishes")],
    timestamp: Annotated[Path, typer.Option(help="FILE.pub of the authority's machine")],
    agency: Annotated[list[str] | None, typer.Option(help="CODE=FILE.pub")] = None,
) -> None:
    """Begin a workspace: who signs what. Then put documents below source/ and sign."""
    from fabric.repository import roster
    from fabric.repository.keys import read_public

    path = workspace / roster.FILE
    if path.exists():
        raise ConfigInvalid(f"{path}: is there already; edit it, then sign the new root")
    persons = {name: read_public(Path(file)) for name, file in map(_named, person)}
    agencies = {code: read_public(Path(file)) for code, file in map(_named, agency or [])}
    if len(persons) < 2:
        raise ConfigInvalid("--person: name two persons or more; nobody decides alone")
    text = roster.first_roster(
        persons, agencies, snapshot=read_public(snapshot), timestamp=read_public(timestamp)
    )
    roster.Roster.parse(text)
    (workspace / "source").mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
    typer.echo(
        f"wrote {path}; put the documents below {workspace / 'source'} and run: fabric policy check"
    )


@app.command()
def check(workspace: Folder, form: output.Output = output.Form.TABLE) -> None:
    """Check the source as publication will; exit 2 with file, key and remedy when it is wrong."""
    step, policy = _checked(_begun(workspace), datetime.now(UTC))
    output.record(
        form,
        {
            "right": True,
            "datasets": sorted(policy.datasets),
            "approvals": sorted(map(str, policy.approvals)),
            "unreadable": [item.fields() for item in step.cuts],
            "later": list(step.later),
        },
    )


@app.command()
def sign(
    workspace: Folder,
    key: Private,
    renew: Annotated[bool, typer.Option(help="also roles in which nothing changed")] = False,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Add your signature to every staged role of yours; see `diff` before you do."""
    from fabric.repository import staging
    from fabric.repository.keys import open_signer

    space, now = _begun(workspace), datetime.now(UTC)
    _checked(space, now)
    found = staging.sign(space, open_signer(key), now, renew=renew)
    output.rows(form, [_standing(item) for item in found], empty="nothing of yours to sign")


@app.command()
def publish(
    workspace: Folder,
    snapshot: Annotated[str, typer.Option("--snapshot-key", help="private key")],
    timestamp: Annotated[str, typer.Option("--timestamp-key", help="private key")],
    only: Annotated[list[str] | None, typer.Option(help="role, while others wait")] = None,
    clock_is_right: Annotated[
        bool,
        typer.Option(
            "--clock-is-right",
            help="go by this machine's clock, whatever times were signed before",
        ),
    ] = False,
    form: output.Output = output.Form.TABLE,
) -> None:
    """Publish what is signed; refused below a threshold, with the names that are missing."""
    from fabric.repository import publishing
    from fabric.repository.keys import open_signer

    space = _begun(workspace)
    keys = publishing.OnlineKeys(snapshot=open_signer(snapshot), timestamp=open_signer(timestamp))
    done = publishing.publish(
        space,
        keys,
        datetime.now(UTC),
        only=frozenset(only) if only else None,
        clock_is_right=clock_is_right,
    )
    output.record(
        form,
        {
            "version": done.version,
            "roles": list(done.roles),
            "expires": done.expires,
            "unreadable": [item.fields() for item in done.step.cuts],
            "later": list(done.step.later),
        },
    )
    _warn(done.step)


@app.command()
def show(workspace: Folder, form: output.Output = output.Form.TABLE) -> None:
    """Show each role: published version and end, and what waits for whose signature."""
    from fabric.repository.changes import show_roles

    found = show_roles(_begun(workspace), datetime.now(UTC))
    output.rows(form, found, empty="nothing is signed yet; see fabric policy check, then sign")


@app.command()
def diff(workspace: Folder, form: output.Output = output.Form.TABLE) -> None:
    """Show what the source changes against what is published, file by file."""
    from fabric.repository.changes import changes

    found = changes(_begun(workspace))
    with contextlib.suppress(UsageError):  # of a source that is wrong, `check` speaks
        _checked(_begun(workspace), datetime.now(UTC))
    if form is not output.Form.TABLE:
        output.rows(form, [item.fields() for item in found])
        return
    for item in found:
        typer.echo(f"{item.change} {item.path} (signed by {item.role})")
        for line in item.lines:
            typer.echo(f"  {line}")
    if not found:
        typer.echo("the source is what is published", err=True)


def _checked(space: "Workspace", now: datetime) -> "tuple[Step, Policy]":
    """Check the source, and say on standard error what is not plain from its text."""
    from fabric.repository import publishing

    policy = publishing.check_source(space, now)
    step = publishing.step_to(space, policy, now)
    _warn(step)
    return step, policy


def _warn(step: "Step") -> None:
    from fabric.policy.history import REMEDY

    for sentence in step.later:
        typer.echo(sentence, err=True)
    for item in step.cuts:
        typer.echo(f"{item}\n  do: {REMEDY}", err=True)


def _begun(folder: Path) -> "Workspace":
    """The workspace in a folder; raises ConfigInvalid where there is none.

    To a folder that is not there, a workspace without a change looks alike.
    """
    from fabric.repository import roster
    from fabric.repository.staging import Workspace

    path = folder / roster.FILE
    if not path.is_file():
        raise ConfigInvalid(
            f"{folder}: is no workspace, {roster.FILE} is missing; correct the path, or begin one"
            " with: fabric policy init"
        )
    return Workspace(folder)


def _named(text: str) -> tuple[str, str]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise ConfigInvalid(f"{text}: must have the form {_NAMED}")
    return name, file


def _standing(item: "Standing") -> dict[str, object]:
    return {
        "role": item.role,
        "version": item.version,
        "signed": list(item.signed),
        "needs": item.threshold,
        "missing": list(item.missing),
    }
