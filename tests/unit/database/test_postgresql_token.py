"""fabric.database.postgresql_token"""

import json

from fabric.database import postgresql_token as tokens
from fabric.database.postgresql_identity import Identity
from fabric.database.postgresql_token import BEGUN, Progress, Token

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
        )
    },
    unseen=(8, 9),
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
    del data["unseen"]
    token = tokens.decode(json.dumps(data))
    assert token is not None
    assert token.unseen is None


def test_garbage_is_no_token() -> None:
    text = tokens.encode(TOKEN)
    bad = [None, "", "null", "[]", "{}", '{"kind": "sqlite", "version": 1}', text[:-2]]
    bad.append(text.replace("begun", "halfway"))
    bad += [text.replace("[8,9]", each) for each in ("[8]", '[8,"x"]', "8", "[8,9,9]")]
    assert [tokens.decode(each) for each in bad] == [None] * len(bad)


def test_the_generation_of_any_token_is_found() -> None:
    assert tokens.generation_in(tokens.encode(TOKEN)) == 5
    assert tokens.generation_in('{"kind": "other", "generation": 8}') == 8
    assert tokens.generation_in("x") == tokens.generation_in(None) == 0


def test_a_token_does_not_show_the_last_key() -> None:
    assert "secret key" not in repr(TOKEN)


def test_a_token_moves_without_changing_the_old_one() -> None:
    assert (TOKEN.at(100).position, TOKEN.position) == (100, 99)
    moved = TOKEN.with_progress("t", Progress(table="a", fingerprint="b"))
    assert set(moved.snapshots) == {"t", "secret.G01.people"}
