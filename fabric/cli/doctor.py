"""`fabric doctor`: check every part this host depends on; each failure with cause and remedy."""

from fabric.cli import output
from fabric.cli.access import Config
from fabric.model.errors import ConfigInvalid


def doctor(config: Config = None, form: output.Output = output.Form.TABLE) -> None:
    """Check everything that an agent needs, changing nothing; exit 10 when a check fails."""
    from fabric.cli.doctor_agent import examine

    if config is None:
        raise ConfigInvalid("this needs an agent; name its file with --config agent.toml")
    examine(config, form)
