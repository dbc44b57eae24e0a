"""`fabric doctor`: check every part this host depends on; each failure with cause and remedy."""

from fabric.cli import output
from fabric.cli.access import File, Option, one_file


def doctor(
    file: File = None, config: Option = None, form: output.Output = output.Form.TABLE
) -> None:
    """Check everything that an agent needs, changing nothing; exit 10 when a check fails."""
    from fabric.cli.doctor_agent import examine

    examine(one_file(file, config, "agent.toml"), form)
