"""fabric.database.postgresql"""

from fabric.database import postgresql, registry
from fabric.model.names import Topic
from fabric.model.schema import RowSchema
from fabric.ports import SourceTable

TABLE = SourceTable(
    table="public.people",
    topic=Topic("secret", "G01", "people"),
    schema=RowSchema.parse(
        '{"type": "record", "name": "P", "fields": [{"name": "id", "type": "long"}]}', ("id",)
    ),
)


def test_the_registry_finds_both_ends() -> None:
    url = "postgresql://127.0.0.1/x"
    source = registry.open_source("postgresql", url, [TABLE], "main-one")
    assert isinstance(source, postgresql.PostgresSource)
    assert isinstance(registry.open_sink("postgresql", url), postgresql.PostgresSink)
