from fabric.database import sqlite


def test_the_three_adapters_are_what_the_module_offers() -> None:
    assert set(sqlite.__all__) == {"SqliteOutbox", "SqliteSink", "SqliteSource"}
