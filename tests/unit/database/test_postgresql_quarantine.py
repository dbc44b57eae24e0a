"""fabric.database.postgresql_quarantine"""

import pytest

from fabric.database import postgresql_quarantine as quarantine
from fabric.database.datum import encode_change
from fabric.model.change import Change, Op, Sequence
from fabric.model.errors import DeniedError, Malformed, UsageError
from tests.contract import postgresql_world
from tests.contract.postgresql_cases import ITEMS, ORIGIN, STREAM, TOPIC, applying, item, target

database = postgresql_world.database
pytestmark = pytest.mark.integration


def change(key: int) -> Change:
    return Change(
        topic=TOPIC,
        origin=ORIGIN,
        op=Op.UPSERT,
        sequence=Sequence(1, 2, key),
        commit_us=0,
        row=item(key),
    )


async def test_changes_are_kept_by_key_and_in_order(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with applying(database) as sink, sink.sink._using("test") as connection:
        many = [(change(n), b"key %d" % (n % 2)) for n in (1, 2, 3)]
        await quarantine.park(connection, target(), many, place=(STREAM, 5), reason="r")
        assert await quarantine.parked_keys(connection, STREAM) == {b"key 0", b"key 1"}
        listed = await quarantine.listing(connection, None)
        assert [each.key for each in listed] == [b"key 1", b"key 0", b"key 1"]
        assert await quarantine.siblings(connection, listed[2].id) == [listed[0].id, listed[2].id]
        found = await quarantine.fetch(connection, listed[0].id, {str(TOPIC): target()})
        assert found is not None
        assert (found[0].change, found[1]) == (change(1), STREAM)
        with pytest.raises(UsageError):
            await quarantine.fetch(connection, listed[0].id, {})
        monkeypatch.setattr(quarantine, "PARKED_KEYS_MAX", 3)
        with pytest.raises(DeniedError, match="full"):
            await quarantine.park(connection, target(), many, place=(STREAM, 5), reason="r")
        await quarantine.explain(connection, listed[0].id, "other")
        await quarantine.forget(connection, listed[1].id)
        assert [e.reason for e in await quarantine.listing(connection, TOPIC)] == ["other", "r"]
        await quarantine.forget_stream(connection, STREAM)
        assert await quarantine.listing(connection, None) == []


async def test_a_quarantine_from_before_schemas_were_kept_still_opens(database: str) -> None:
    async with applying(database) as sink, sink.sink._using("test") as connection:
        await connection.execute(
            "DROP TABLE fabric.schemas; ALTER TABLE fabric.quarantine DROP COLUMN schema"
        )
        await connection.execute(
            "INSERT INTO fabric.quarantine"
            ' (topic, origin, partition, "offset", reason, key, change)'
            " VALUES ($1, $2, 0, 42, 'because', ''::bytea, $3)",
            str(TOPIC),
            str(ORIGIN),
            encode_change(change(1), ITEMS),
        )
    async with applying(database) as sink, sink.sink._using("test") as connection:
        await quarantine.park(
            connection, target(), [(change(2), b"k")], place=(STREAM, 5), reason="r"
        )
        for parked, number in zip(await quarantine.listing(connection, None), (1, 2), strict=True):
            found = await quarantine.fetch(connection, parked.id, {str(TOPIC): target()})
            assert found is not None
            assert found[0].change == change(number)
        await connection.execute("DELETE FROM fabric.schemas")
        with pytest.raises(Malformed):  # somebody removed it: it is not taken for today's
            await quarantine.fetch(connection, parked.id, {str(TOPIC): target()})
