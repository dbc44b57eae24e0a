"""Settings of the pages /metrics, /livez and /readyz: the table `[web]` of every process's file.

`fabric.config` reads the files; this is a section of them.
"""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from fabric.config_fields import Address, AddressField


class WebConfig(BaseModel):
    """Where the pages are: plain HTTP on loopback, TLS 1.3 with clients' certificates elsewhere.

    The files are asked for, never taken from `[tls]`: its CAs vouch for every attested host of
    every agency, and an agent has no certificate when its pages are needed most.

    Attributes:
        listen: where they are served.
        local: on loopback, in plain HTTP, beside a `listen` that is not: for probes of this
            machine and `fabric status`.
        certificate, key: of the server, PEM; read again when they change.
        client_ca: CAs of those who may read the pages, PEM; read again when it changes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    listen: AddressField = Address("127.0.0.1", 0)
    local: AddressField | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        files = {"certificate": self.certificate, "key": self.key, "client_ca": self.client_ca}
        given = [name for name, value in files.items() if value is not None]
        missing = [name for name in files if name not in given]
        if self.listen.is_loopback and (given or self.local is not None):
            idle = ", ".join([*given, *(["local"] if self.local is not None else [])])
            raise ValueError(
                f"{idle}: only for a listen that is not on loopback; remove this, or change listen"
            )
        if not self.listen.is_loopback and missing:
            raise ValueError(
                "listen: is not on loopback, so its pages need TLS and clients' certificates; add"
                f" {', '.join(missing)} (PEM files), or write 127.0.0.1 as its host"
            )
        if self.local is not None and not self.local.is_loopback:
            raise ValueError("local: is not on loopback; write 127.0.0.1 as its host")
        return self

    @property
    def plain(self) -> Address | None:
        """Where this machine asks in plain HTTP; None for nowhere."""
        return self.listen if self.listen.is_loopback else self.local

    @property
    def files(self) -> tuple[Path, Path, Path] | None:
        """Certificate, key and CAs; None when all is plain."""
        if self.certificate is None or self.key is None or self.client_ca is None:
            return None
        return self.certificate, self.key, self.client_ca

    @property
    def addresses(self) -> tuple[tuple[str, Address], ...]:
        """Every address with its key in the settings."""
        local = () if self.local is None else (("web.local", self.local),)
        return (("web.listen", self.listen), *local)
