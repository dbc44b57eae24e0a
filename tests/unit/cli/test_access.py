"""Commands on a host that has taken no policy yet: the repository's server is asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric.cli.access import named
from fabric.demo.process import free_port
from fabric.model.errors import ConfigInvalid
from fabric.model.names import Topic
from tests.fakes.agent_page import FakeAgent, write_config


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """An agent that runs; the server of its policy is away."""
    with FakeAgent().serve() as port:
        path = write_config(tmp_path, port=port)
        served = f'repository = "https://127.0.0.1:{free_port()}/policy"'
        path.write_text(path.read_text().replace('repository = "policy"', served))
        yield path


@pytest.mark.parametrize(
    "command",
    [("attest", "show"), ("audit", "prove", "secret.G01.residents:0:0"), ("quarantine", "list")],
    ids=" ".join,
)
def test_a_policy_that_cannot_be_fetched_is_one_line_and_exit_1(fabric, config, command) -> None:
    done = fabric(*command, "-c", config)
    assert (done.code, done.out) == (1, "")
    assert "fetched" in done.err
    assert done.err.count("\n") == 1


def test_status_without_a_policy_still_says_how_the_agent_fares(fabric, config) -> None:
    done = fabric("status", "-c", config, "-o", "json")
    assert done.code == 10
    assert [item["sealed"] for item in done.json["datasets"]] == [None, None]


def test_doctor_names_the_policy_and_no_bug(fabric, config) -> None:
    done = fabric("doctor", "-c", config, "-o", "json")
    assert done.code == 10
    assert [item for item in done.json if item["seen"].startswith("internal")] == []


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        ("WHO", ("suspend", "g01/x", "--why", "x")),
        ("HOST", ("forget", "G01", "--why", "x")),
    ],
)
def test_a_name_that_is_none_is_a_matter_of_usage_and_told_with_its_argument(
    fabric, config, argument, command
) -> None:
    word, *rest = command
    done = fabric("authority", word, config, *rest)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"fabric: config_invalid: {argument}: ")


def test_a_topic_that_is_none_is_told_before_anything_is_asked() -> None:
    with pytest.raises(ConfigInvalid, match="WHERE: "):
        named("WHERE", Topic.parse, "residents")
