"""fabric.cli.databases: what an agent's file says of its databases."""

from pathlib import Path

import pytest

from fabric.cli.databases import usage_of
from fabric.config import AgentConfig
from fabric.database.finding import Usage
from fabric.demo.process import free_port
from tests.fakes.agent_page import write_config

ONE = "postgresql://registry@one.example/registry"
PARTS = f"""
[[capture]]
source = "registry"
kind = "postgresql"
url = "{ONE}"
[capture.tables]
residents = "secret.G01.residents"
[[apply]]
kind = "postgresql"
url = "{ONE}"
[apply.tables]
"secret.G02.homes" = "homes"
"secret.G02.schools" = "schools"
[[apply]]
kind = "sqlite"
url = "b.db"
[apply.tables]
"secret.G02.roads" = "roads"
"""


@pytest.mark.parametrize("agent", [None, 4711])
def test_all_that_an_agent_does_with_one_database_is_counted_together(
    tmp_path: Path, agent: int | None
) -> None:
    config = AgentConfig.load(write_config(tmp_path, PARTS))
    is_running = agent is not None
    assert usage_of(config, ONE, agent=agent) == Usage(
        captures=1, targets=1, tables=2, is_running=is_running
    )


def test_a_postgresql_that_is_away_is_one_finding_of_source_and_target(
    fabric, tmp_path: Path
) -> None:
    url = f"postgresql://registry:hunter2@127.0.0.1:{free_port()}/x"
    config = write_config(tmp_path, PARTS.replace(ONE, url))
    found = fabric("doctor", "-c", config, "-o", "json").json
    servers = [item["check"] for item in found if item["check"].endswith(" server")]
    assert servers == ["source registry server", "target 1 server"]
