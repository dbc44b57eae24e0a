"""Random blocks into SQLite and into the fake: the two never differ."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from fabric.database.sqlite import SqliteSink
from fabric.model.change import Op, Row
from fabric.ports import ChangeSink
from tests.contract.sink_suite import OTHER, Feed, stream, target
from tests.contract.test_sqlite import SqliteSinkWorld
from tests.contract.worlds import NOTES, NOTES_SCHEMA, POISON, note
from tests.fakes.table import MemorySink, MemoryStore

_TARGET = target(NOTES, NOTES_SCHEMA)
_ROWS = st.lists(
    st.builds(note, st.sampled_from("ab"), st.integers(0, 3), st.sampled_from(["x", "y", POISON])),
    min_size=1,
    max_size=6,
)
_PARTS = st.one_of(
    st.tuples(st.just(Op.UPSERT), _ROWS),
    st.tuples(st.just(Op.DELETE), _ROWS),
    st.tuples(
        st.sampled_from([Op.TRUNCATE, Op.SNAPSHOT_BEGIN, Op.SNAPSHOT_END, Op.SCHEMA]), st.just([])
    ),
)
_STEPS = st.lists(st.tuples(st.booleans(), st.lists(_PARTS, max_size=4)), max_size=12)


def _part(op: Op, rows: list[Row]) -> tuple[Op, list[Row]]:
    if op is Op.DELETE:
        return op, [{"region": row["region"], "number": row["number"]} for row in rows]
    return op, rows


async def _play(
    sink: ChangeSink, steps: list[tuple[bool, list[tuple[Op, list[Row]]]]]
) -> list[tuple[int, int, bool]]:
    feeds = {False: Feed(sink, stream(NOTES)), True: Feed(sink, stream(NOTES, origin=OTHER))}
    found = []
    for other, parts in steps:
        done = await feeds[other].apply(*(_part(op, rows) for op, rows in parts))
        found.append((done.applied, done.quarantined, done.state.incomplete))
    return found


@settings(max_examples=60, deadline=None)
@given(_STEPS)
async def test_sqlite_and_the_fake_agree(
    steps: list[tuple[bool, list[tuple[Op, list[Row]]]]],
) -> None:
    store = MemoryStore(refuses=lambda row: row.get("body") == POISON)
    fake = MemorySink(store)
    await fake.open([_TARGET])
    with TemporaryDirectory() as folder:
        world = SqliteSinkWorld(Path(folder) / "target.db")
        world.file.run(
            "CREATE TABLE notes (region TEXT, number INTEGER,"
            f" body TEXT CHECK (body <> '{POISON}'),"
            " PRIMARY KEY (region, number))"
        )
        real = SqliteSink(world.file.path)
        await real.open([_TARGET])
        assert await _play(real, steps) == await _play(fake, steps)
        await real.close()
        rows = await world.rows(_TARGET)
    expected = list(store.rows(NOTES).values())
    assert sorted(rows, key=repr) == sorted(expected, key=repr)
