from datetime import UTC, datetime

import pytest

from fabric.attest import fields
from fabric.attest.keys import Alg, Kem, PublicKey, Use
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import BOUND_KEYS_MAX, RESULT_HEADS_MAX
from tests.fakes.verifier import HostKeys


def test_map_with_exactly_its_keys_is_read() -> None:
    assert fields.exact_map({0: 1, 1: 2}, frozenset({0, 1}), "map") == {0: 1, 1: 2}


@pytest.mark.parametrize("value", [{0: 1}, {0: 1, 1: 2, 2: 3}, {}, [1, 2], 0, b""])
def test_map_with_other_keys_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.exact_map(value, frozenset({0, 1}), "map")


@pytest.mark.parametrize("value", [-1, 11, "1", b"1", []])
def test_number_out_of_range_or_of_another_type_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.uint(value, "number", 10)


@pytest.mark.parametrize("value", [bytes(31), bytes(33), "a" * 32, 1])
def test_byte_string_of_another_length_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.octets(value, "hash")


@pytest.mark.parametrize("value", [b"", bytes(9), "text", 1])
def test_blob_that_is_empty_or_too_long_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.blob(value, "blob", 8)


@pytest.mark.parametrize("value", ["a\nb", "a" * 9, b"a", "\x1b[2J", "\u202e"])
def test_text_that_could_forge_a_log_line_is_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.text(value, "text", 8)


def test_instant_survives_to_the_millisecond() -> None:
    when = datetime(2026, 11, 24, 8, 0, 0, 123_000, tzinfo=UTC)
    assert fields.instant(fields.milliseconds(when), "time") == when


def test_instant_after_the_last_year_is_malformed() -> None:
    with pytest.raises(Malformed):
        fields.instant(253_402_300_800_000, "time")


def test_bound_keys_survive() -> None:
    keys = HostKeys().public
    assert fields.keys(canonical.decode(canonical.encode(fields.write_keys(keys)))) == keys


ED = [Use.SIGN.value, int(Alg.ED25519), bytes(32)]


@pytest.mark.parametrize(
    "value",
    [
        [],
        [ED, ED],
        [ED, ["sign", int(Alg.ED25519), b"\1" * 32]],
        [ED, ["hpke", int(Kem.X25519), bytes(32)]],
        [["seal", int(Alg.ED25519), bytes(32)]],
        [["sign", -7, bytes(32)]],
        [["sign", int(Kem.X25519), bytes(32)]],
        [["tls", int(Alg.ED25519), bytes(32)]],
        [["sign", int(Alg.ED25519), bytes(31)]],
        [["sign", int(Alg.ED25519)]],
        [ED] * (BOUND_KEYS_MAX + 1),
        "keys",
    ],
    ids=[
        "none",
        "twice",
        "two of one kind",
        "one key for two uses",
        "unknown use",
        "unknown algorithm",
        "algorithm of another use",
        "TLS without P-256",
        "short key",
        "no bytes",
        "too many",
        "no array",
    ],
)
def test_keys_that_are_unknown_or_repeated_are_malformed(value: canonical.Value) -> None:
    with pytest.raises(Malformed):
        fields.keys(value)


def test_too_many_heads_are_malformed() -> None:
    with pytest.raises(Malformed):
        fields.heads([bytes(32)] * (RESULT_HEADS_MAX + 1))


def test_known_kinds_of_keys_are_all_that_hosts_use() -> None:
    assert fields.keys([["hpke", int(Kem.X25519), bytes(32)]]) == (
        PublicKey(Use.HPKE, Kem.X25519, bytes(32)),
    )
