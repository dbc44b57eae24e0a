import json

import pytest

from fabric.database.sqlite_token import Progress, Token, decode, encode, generation_in

TOKEN = Token(
    database=b"d" * 16,
    generation=7,
    position=2**62,
    mark=b"m" * 8,
    snapshots={
        "secret.G01.people": Progress(
            table="people", fingerprint="ab", begun=True, cursor=(1, "x", b"\x00\xff")
        ),
        "secret.G01.notes": Progress(table="notes", fingerprint="cd", begun=True, done=True),
    },
)


def test_a_token_survives_text() -> None:
    assert decode(encode(TOKEN)) == TOKEN
    assert generation_in(encode(TOKEN)) == 7


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "7", '"x"', '{"kind": "outbox", "version": 1}', '{"kind": "sqlite"}'],
)
def test_anything_else_is_no_token(text: str) -> None:
    assert decode(text) is None


@pytest.mark.parametrize("key", ["database", "generation", "position", "mark", "snapshots"])
def test_a_token_without_a_part_is_no_token(key: str) -> None:
    data = json.loads(encode(TOKEN))
    del data[key]
    assert decode(json.dumps(data)) is None
    data[key] = "zz"
    assert decode(json.dumps(data)) is None


def test_the_cursor_does_not_show() -> None:
    assert "x" not in repr(TOKEN.snapshots["secret.G01.people"]).replace("people", "")
    assert "mark" not in repr(TOKEN)


def test_a_token_of_another_source_still_tells_its_generation() -> None:
    assert generation_in('{"kind": "postgresql", "generation": 12}') == 12
    assert generation_in("garbage") == 0
