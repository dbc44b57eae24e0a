"""Read single fields of a header or manifest: exact type, range and length, or Malformed.

The plain ones are the attest package's; here stand those that only sealing needs.
"""

from collections.abc import Mapping

from fabric.attest.fields import HASH_BYTES, ID_BYTES, array, instant, milliseconds, octets, uint
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.names import HostId

_SCHEME = "spiffe://"


def exact_keys(value: canonical.Value, count: int, what: str) -> Mapping[int, canonical.Value]:
    """A map whose keys are exactly 0..count-1."""
    if not isinstance(value, dict) or value.keys() != set(range(count)):
        raise Malformed(f"{what} has missing or unknown keys")
    return value


def text(value: canonical.Value, what: str) -> str:
    """A text string; its grammar is for the caller's parser."""
    if not isinstance(value, str):
        raise Malformed(f"{what} is not text")
    return value


def spiffe(value: canonical.Value, what: str) -> tuple[str, HostId]:
    """A SPIFFE id of a host, as trust domain and host."""
    uri = text(value, what)
    domain = uri.removeprefix(_SCHEME).partition("/")[0]
    return domain, HostId.from_spiffe(uri, domain)


__all__ = [
    "HASH_BYTES",
    "ID_BYTES",
    "array",
    "exact_keys",
    "instant",
    "milliseconds",
    "octets",
    "spiffe",
    "text",
    "uint",
]
