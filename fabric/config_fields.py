"""What a single setting may be: addresses, URLs, names, texts; each is read from text.

`fabric.config` makes its sections of these.
"""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, PlainValidator

from fabric.model.errors import ConfigInvalid, FabricError
from fabric.model.names import HostId, Topic, part

_T = TypeVar("_T")
LIST_MAX = 1_000
"""Items of any list or map of settings."""


class Address(NamedTuple):
    """Where to listen or connect; written `host:port`, `[v6]:port` for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether no other machine can reach it; of a name other than `localhost` nobody knows."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `host:port`, port 0 to 65535; raises ConfigInvalid."""
        host, _, port = text.rpartition(":")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not bare or (":" in bare) is (bare is host) or not (port.isascii() and port.isdigit()):
            raise ConfigInvalid("is not of the form host:port; for example 127.0.0.1:9392")
        if len(port) > 5 or int(port) > 65535:
            raise ConfigInvalid("has a port above 65535")
        return cls(bare, int(port))


def _parsed(parse: Callable[[str], _T]) -> Callable[[object], _T]:
    """Let pydantic report what a parser of ours refuses."""

    def read(value: object) -> _T:
        if not isinstance(value, str):
            raise ValueError("must be text")
        try:
            return parse(value)
        except FabricError as exc:
            raise ValueError(str(exc.args[0])) from exc

    return read


def _bootstrap(text: str) -> str:
    return str(Address.parse(text))


def _https(text: str) -> str:
    try:
        url = urlsplit(text)
        is_plain = url.scheme == "https" and bool(url.hostname) and url.username is None
        is_plain = is_plain and not url.query and not url.fragment and url.port != 0
    except ValueError as exc:
        raise ConfigInvalid("is not a URL") from exc
    if not is_plain:
        raise ConfigInvalid("must be a URL of the form https://host:port")
    return text.rstrip("/")


def _repository(text: str) -> str | Path:
    """An HTTPS URL, or the path of a folder."""
    return _https(text) if "://" in text else Path(text)


RepositoryField = Annotated[str | Path, PlainValidator(_parsed(_repository))]
AddressField = Annotated[Address, PlainValidator(_parsed(Address.parse))]
BootstrapField = Annotated[str, PlainValidator(_parsed(_bootstrap))]
BootstrapsField = Annotated[tuple[BootstrapField, ...], Field(min_length=1, max_length=LIST_MAX)]
HttpsField = Annotated[str, PlainValidator(_parsed(_https))]
HostField = Annotated[HostId, PlainValidator(_parsed(HostId.parse))]
TopicField = Annotated[Topic, PlainValidator(_parsed(Topic.parse))]
PartField = Annotated[str, PlainValidator(_parsed(part))]
TextField = Annotated[str, Field(min_length=1, max_length=4096)]
IdentifierField = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,63}$")]
