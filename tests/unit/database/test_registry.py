import pytest

from fabric.database.registry import open_sink, open_source, sqlite_path
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


def test_an_unknown_kind_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigInvalid, match="use postgresql or sqlite"):
        open_sink("oracle", "x")
    with pytest.raises(ConfigInvalid, match="kind"):
        open_source("", "x", [], "main")
