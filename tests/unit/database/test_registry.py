import pytest

from fabric.database.finding import Capture, Usage
from fabric.database.registry import (
    examine_source,
    examine_target,
    given_name,
    open_sink,
    open_source,
    sqlite_path,
)
from fabric.database.sqlite import SqliteSink, SqliteSource
from fabric.model.errors import ConfigInvalid


def test_sqlite_is_known_on_both_ends() -> None:
    assert isinstance(open_source("sqlite", "sqlite:///a.db", [], "main"), SqliteSource)
    assert isinstance(open_sink("sqlite", "a.db"), SqliteSink)


@pytest.mark.parametrize(
    ("url", "path"),
    [("sqlite:///a.db", "a.db"), ("sqlite:////var/a.db", "/var/a.db"), ("b/a.db", "b/a.db")],
)
def test_a_url_and_a_bare_path_name_the_same_file(url: str, path: str) -> None:
    assert sqlite_path(url) == path


def test_another_databases_url_is_no_path_and_is_not_shown() -> None:
    with pytest.raises(ConfigInvalid, match="sqlite:///path") as caught:
        open_sink("sqlite", "postgresql://fabric:hunter2@db/registry")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_kind_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigInvalid, match="use postgresql or sqlite"):
        open_sink("oracle", "x")
    with pytest.raises(ConfigInvalid, match="kind"):
        open_source("", "x", [], "main")


async def test_each_kind_is_looked_at_by_its_own() -> None:
    capture = Capture(tables=[], slot="s", publication="p", resume=None, agent=None)
    usage = Usage(captures=1, targets=0, tables=0, is_running=False)
    away = "postgresql://127.0.0.1:1/x"
    for kind, url, part in (("sqlite", "/no/a.db", "file"), ("postgresql", away, "server")):
        assert [found.part for found in await examine_source(kind, url, capture, usage)] == [part]
        assert [found.part for found in await examine_target(kind, url, [], usage)] == [part]
    with pytest.raises(ConfigInvalid, match="kind"):
        await examine_source("oracle", "x", capture, usage)
    with pytest.raises(ConfigInvalid, match="kind"):
        await examine_target("oracle", "x", [], usage)


def test_a_slot_is_named_after_its_capture() -> None:
    assert given_name("main-2") == "fabric_main_2"
