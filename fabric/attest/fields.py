"""Read single fields of signed statements and messages: type, range, length, or Malformed.

Only this package's records use it; a value that passed is what its name says.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from fabric.attest.keys import Alg, Kem, PublicKey, Use
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import BOUND_KEYS_MAX, RESULT_HEADS_MAX

ID_BYTES = 16
HASH_BYTES = 32
_INT_MAX = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_MS_MAX = 253_402_300_799_999  # the last millisecond of year 9999, where datetime ends
_KEY_BYTES = {
    (Use.SIGN, Alg.ED25519): 32,
    (Use.SIGN, Alg.ESP256): 65,
    (Use.SIGN, Alg.ESP384): 97,
    (Use.SIGN, Alg.ML_DSA_65): 1952,
    (Use.SIGN, Alg.ML_DSA_87): 2592,
    (Use.TLS, Alg.ESP256): 65,
    (Use.HPKE, Kem.X25519): 32,
    (Use.HPKE, Kem.MLKEM768_X25519): 1216,
    (Use.HPKE, Kem.MLKEM1024_P384): 1665,
}


def exact_map(
    value: canonical.Value, keys: frozenset[int], what: str
) -> Mapping[int, canonical.Value]:
    """A map with exactly `keys`: nothing missing, nothing unknown."""
    if not isinstance(value, dict) or value.keys() != keys:
        raise Malformed(f"{what} has missing or unknown keys")
    return value


def array(value: canonical.Value, size_max: int, what: str) -> Sequence[canonical.Value]:
    """An array of at most `size_max` items."""
    if not isinstance(value, list) or len(value) > size_max:
        raise Malformed(f"{what} is not an array or too long")
    return value


def uint(value: canonical.Value, what: str, maximum: int = _INT_MAX) -> int:
    """An unsigned integer up to `maximum`."""
    if not isinstance(value, int) or not 0 <= value <= maximum:
        raise Malformed(f"{what} is not an unsigned integer in range")
    return value


def octets(value: canonical.Value, what: str, length: int = HASH_BYTES) -> bytes:
    """A byte string of exactly `length` bytes."""
    if not isinstance(value, bytes) or len(value) != length:
        raise Malformed(f"{what} is not {length} bytes")
    return value


def blob(value: canonical.Value, what: str, size_max: int) -> bytes:
    """A byte string of 1 to `size_max` bytes, whose form is for another parser."""
    if not isinstance(value, bytes) or not 1 <= len(value) <= size_max:
        raise Malformed(f"{what} is not 1 to {size_max} bytes")
    return value


def text(value: canonical.Value, what: str, size_max: int) -> str:
    """Printable text of at most `size_max` characters: nothing that could forge a log line."""
    if not isinstance(value, str) or len(value) > size_max or not value.isprintable():
        raise Malformed(f"{what} is not printable text of at most {size_max} characters")
    return value


def instant(value: canonical.Value, what: str) -> datetime:
    """Milliseconds since 1970 as an aware UTC time."""
    return _EPOCH + uint(value, what, _MS_MAX) * _MS


def milliseconds(when: datetime) -> int:
    """Undo `instant`; parts of a millisecond are cut off."""
    return (when - _EPOCH) // _MS


def heads(value: canonical.Value) -> tuple[bytes, ...]:
    """Hashes of streams' last acknowledged envelopes."""
    return tuple(octets(item, "head") for item in array(value, RESULT_HEADS_MAX, "heads"))


def keys(value: canonical.Value) -> tuple[PublicKey, ...]:
    """Bound keys [use, algorithm, bytes]: known, of their algorithm's length, none twice.

    A host has one current key per use and algorithm, and no key serves two uses.
    """
    found = tuple(_key(item) for item in array(value, BOUND_KEYS_MAX, "keys"))
    kinds = {(key.use, key.alg) for key in found}
    if not found or len(kinds) != len(found) or len({key.data for key in found}) != len(found):
        raise Malformed("keys are missing or repeated")
    return found


def write_keys(bound: Sequence[PublicKey]) -> list[canonical.Value]:
    """Undo `keys`."""
    return [[key.use.value, int(key.alg), key.data] for key in bound]


def _key(value: canonical.Value) -> PublicKey:
    match value:
        case [str() as use, int() as alg, bytes() as data]:
            for (known_use, known_alg), length in _KEY_BYTES.items():
                if (use, alg, len(data)) == (known_use.value, int(known_alg), length):
                    return PublicKey(known_use, int(known_alg), data)
    raise Malformed("key is of an unknown use, algorithm or length")
