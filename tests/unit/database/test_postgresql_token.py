"""fabric.database.postgresql_token"""

import json
from dataclasses import replace

import pytest

from fabric.database import postgresql_token as tokens
from fabric.database.postgresql_identity import Identity
from fabric.database.postgresql_token import BEGUN, Gone, Progress, Token
from fabric.database.postgresql_unseen import Past

TOKEN = Token(
    generation=5,
    system_id="7",
    timeline=1,
    slot="s",
    position=99,
    snapshots={
        "secret.G01.people": Progress(
            table="public.people",
            fingerprint="00",
            state=BEGUN,
            last_key=("secret key", 1, b"\x00", True),
            rows=3,
            identity=Identity(table=5, publication=6, entries=frozenset({7})),
            gone=Gone(until=98, keys=frozenset({("gone key", 2, b"\x01", False)})),
        )
    },
    unseen=Past(ids=frozenset({5, 6}), span=(8, 9)),
)


def test_a_token_reads_as_it_is_written() -> None:
    assert tokens.decode(tokens.encode(TOKEN)) == TOKEN


def test_a_token_that_does_not_say_which_table_it_is_of_is_read() -> None:
    data = json.loads(tokens.encode(TOKEN))
    del data["snapshot"]["secret.G01.people"]["identity"]
    token = tokens.decode(json.dumps(data))
    assert token is not None
    progress = token.snapshots["secret.G01.people"]
    assert (progress.identity, progress.state, progress.rows) == (None, BEGUN, 3)


def test_a_token_that_does_not_say_what_may_be_unseen_is_read() -> None:
    data = json.loads(tokens.encode(TOKEN))
    del data["unseen"], data["snapshot"]["secret.G01.people"]["gone"]
    token = tokens.decode(json.dumps(data))
    assert token is not None
    assert token.unseen is None
    assert token.snapshots["secret.G01.people"].gone is None


@pytest.mark.parametrize("span", [None, (8, 9)])
def test_a_token_that_knows_no_ids_of_what_may_be_unseen_is_read(
    span: tuple[int, int] | None,
) -> None:
    token = replace(TOKEN, unseen=Past(span=span))
    data = json.loads(tokens.encode(token))
    assert data["unseen"] == list(span or ())
    assert tokens.decode(json.dumps(data)) == token


def test_rows_that_are_gone_are_kept_until_the_log_is_past_them() -> None:
    progress = Progress(table="t", fingerprint="f").without((1,), at=10, until=20)
    progress = progress.without((2,), at=20, until=30)
    assert progress.gone == Gone(until=30, keys=frozenset({(1,), (2,)}))
    progress = progress.without((3,), at=31, until=40)
    assert progress.gone == Gone(until=40, keys=frozenset({(3,)}))
    assert [progress.gone.has((key,)) for key in (1, 3)] == [False, True]


def test_no_key_of_a_gone_row_stays_once_the_log_is_past_it() -> None:
    (topic,) = TOKEN.snapshots
    until = TOKEN.at(98)
    assert until.snapshots == TOKEN.snapshots
    assert until.at(99).snapshots == {topic: replace(TOKEN.snapshots[topic], gone=None)}


def test_rows_that_a_sink_wrote_are_kept_whatever_the_log_is_past() -> None:
    progress = Progress(table="t", fingerprint="f").without((1,), at=10, until=20)
    progress = progress.with_foreign([(2,)], at=15).without((3,), at=30, until=40)
    token = TOKEN.with_progress("t", progress).at(2**62)
    gone = token.snapshots["t"].gone
    assert gone is not None
    assert [gone.has((key,)) for key in (2, 3, 4)] == [True, True, False]
    read = tokens.decode(tokens.encode(token))
    assert read is not None
    assert read.snapshots["t"].gone == gone


def test_of_too_many_gone_rows_no_keys_are_kept_and_any_may_be_one() -> None:
    progress = Progress(table="t", fingerprint="f")
    for key in range(65):
        progress = progress.without((key,), at=10, until=20)
    assert progress.gone == Gone(until=20, keys=None)
    assert progress.gone.has((99,))
    token = TOKEN.with_progress("t", progress.without((99,), at=20, until=30))
    read = tokens.decode(tokens.encode(token))
    assert read is not None
    assert read.snapshots["t"].gone == Gone(until=30, keys=None)


def test_garbage_is_no_token() -> None:
    text = tokens.encode(TOKEN)
    bad = [None, "", "null", "[]", "{}", '{"kind": "sqlite", "version": 1}', text[:-2]]
    bad.append(text.replace("begun", "halfway"))
    bad += [text.replace("[8,9]", each) for each in ("[8]", '[8,"x"]', "8", "[8,9,9]")]
    bad += [text.replace("[5,6]", each) for each in ("5", '["x"]', "null")]
    bad += [text.replace('"until":98', '"until":null'), text.replace('"gone key"', "null")]
    assert [tokens.decode(each) for each in bad] == [None] * len(bad)


def test_the_generation_of_any_token_is_found() -> None:
    assert tokens.generation_in(tokens.encode(TOKEN)) == 5
    assert tokens.generation_in('{"kind": "other", "generation": 8}') == 8
    assert tokens.generation_in("x") == tokens.generation_in(None) == 0


def test_a_token_shows_no_key() -> None:
    assert "secret key" not in repr(TOKEN)
    assert "gone key" not in repr(TOKEN)


def test_a_token_moves_without_changing_the_old_one() -> None:
    assert (TOKEN.at(100).position, TOKEN.position) == (100, 99)
    moved = TOKEN.with_progress("t", Progress(table="a", fingerprint="b"))
    assert set(moved.snapshots) == {"t", "secret.G01.people"}


def test_a_token_knows_what_is_unseen_only_while_all_datasets_go_on() -> None:
    (topic,) = TOKEN.snapshots
    progress = TOKEN.snapshots[topic]
    assert TOKEN.with_snapshots({topic: progress}) == TOKEN
    moved = replace(progress, identity=Identity(table=5, publication=6, entries=frozenset({8})))
    for other in ({topic: moved}, {**TOKEN.snapshots, "secret.G01.more": progress}):
        token = TOKEN.with_snapshots(other)
        assert (token.snapshots, token.unseen) == (other, None)
