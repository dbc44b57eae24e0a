"""YAML is read in one way or not at all."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.model.errors import Malformed
from fabric.policy.strict_yaml import read


def test_plain_document_is_read() -> None:
    text = b"a: 1\nb: [x, 'y', true, null]\nc: {d: 2.5}\n"
    assert read(text) == {"a": 1, "b": ["x", "y", True, None], "c": {"d": 2.5}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a: &x 1\nb: *x\n", "anchor or alias"),
        (b"a: &x [1]\n", "anchor or alias"),
        (b"a: !!python/object/apply:os.system ['true']\n", "has a tag"),
        (b"a: !!binary aGk=\n", "has a tag"),
        (b"a: 1\na: 2\n", "stands twice"),
        (b"x: {b: 1, b: 1}\n", "stands twice"),
        (b"<<: {a: 1}\n", "plain text"),
        (b"[1]: 2\n", "plain text"),
        (b"{a: 1}: 2\n", "plain text"),
        (b"[" * 20 + b"]" * 20, "too deep"),
        (b"[" * 100_000, "too deep"),
        (b"a: 1\n---\nb: 2\n", "not YAML"),
        (b"a: [", "not YAML near line"),
        (b"\ta: 1", "not YAML"),
        (b"a: \x00", "not YAML"),
        (b"\xff\xfe\xfa", "not UTF-8"),
        (b"a: 2027-13-45\n", "not YAML"),
    ],
    ids=lambda x: str(x)[:24],
)
def test_what_can_be_read_in_two_ways_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(text)


@given(st.binary(max_size=200) | st.text(alphabet="a1:-[]{}&*!<'\"\n #|>%@`?,~", max_size=80))
def test_garbage_is_malformed_and_nothing_else(data: bytes | str) -> None:
    with contextlib.suppress(Malformed):
        read(data if isinstance(data, bytes) else data.encode())
