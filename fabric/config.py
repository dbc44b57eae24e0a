"""The settings of the three processes: TOML files, checked when they load.

What a single setting may be is in config_fields.py; sections that stand alone are in
config_audit.py, config_keys.py and config_web.py. A value in the environment
(`FABRIC_<SECTION>__<KEY>`, config_env.py) stands above the file. Relative paths are relative to
the file's folder. No value ever shows in an error, because URLs hold passwords.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fabric.config_audit import AuditConfig, ReceiptsConfig
from fabric.config_env import NESTED, PREFIX, Environment, passed_over, told_of, unknown
from fabric.config_fields import (
    LIST_MAX,
    Address,
    AddressField,
    BootstrapsField,
    HostField,
    HttpsField,
    IdentifierField,
    PartField,
    RepositoryField,
    TextField,
    TopicField,
)
from fabric.config_file import explain, read
from fabric.config_keys import KeysConfig
from fabric.config_web import WebConfig
from fabric.model.errors import ConfigInvalid
from fabric.model.limits import (
    BLOCK_BYTES_MAX,
    BLOCK_CHANGES_MAX,
    CUSTODY_AFTER_S,
    HEARTBEAT_INTERVAL_S,
    POLICY_REFRESH_S,
    SILENCE_INTERVAL_S,
    TIMESTAMP_VALID_S_MAX,
)

_M = TypeVar("_M", bound=BaseModel)
_RESULT_LIFETIME_S_MAX = 24 * 3600
_OWNERS = (("agent", "an agent's file"), ("admin", "an authority's file"))
"""Tables that one process alone has: its file, given to another, is wrong in every line."""
_GATEWAYS_OWN = ("listen", "advertised", "side_listen")
"""Keys that [gateway] has in a gateway's own file alone; the others name gateways there."""


class Section(BaseModel):
    """One table of a file; unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PolicyConfig(Section):
    """Where the signed policy comes from and how often to look for a newer one, seconds.

    Attributes:
        root: the trust anchor, TUF root metadata that the authority hands out.
        repository: `https://host:port/policy` of the authority, or a folder that mirrors it.
        state: folder for what was seen and the last good copy; of this process alone.
    """

    root: Path
    repository: RepositoryField
    state: Path
    refresh_s: float = Field(default=POLICY_REFRESH_S, ge=0.1, le=3600)


class ClientTls(Section):
    """Certificates of the CAs whose servers are trusted, PEM."""

    ca: Path


class ServerTls(ClientTls):
    """A platform part's own certificate chain and private key, PEM."""

    certificate: Path
    key: Path


class Credential(Section):
    """Another certificate chain and private key, PEM: `admin` makes topics and ACLs."""

    certificate: Path
    key: Path


class Bootstrap(Section):
    """Addresses to begin with."""

    bootstrap: BootstrapsField


class AgentPart(Section):
    """Which host this is, the folder of its state file, SVID and audit log, and how many seconds
    a sender is not attested before this host, where it is a custodian, acts for it."""

    host: HostField
    folder: Path
    custody_after_s: float = Field(default=CUSTODY_AFTER_S, ge=1, le=7 * 24 * 3600)


class AuthorityUrl(Section):
    """Base URL of the authority."""

    url: HttpsField


class GatewayAddresses(Bootstrap):
    """Gateways to produce through, and the URLs of their refusal logs."""

    refusals: tuple[HttpsField, ...] = Field(default=(), max_length=LIST_MAX)


class TpmConfig(Section):
    """How to reach the TPM, in tpm2-tss's words, for example `device:/dev/tpmrm0`.

    Attributes:
        event_log: firmware's log of this boot, shown to the authority when it attests;
            Linux has it in /sys/kernel/security/tpm0/binary_bios_measurements.
    """

    tcti: TextField = "device:/dev/tpmrm0"
    event_log: Path | None = None


class BlockConfig(Section):
    """When a block is full: changes, plaintext bytes, seconds since its first change.

    `linger_s`: how long a change waits for others. With 0 it waits only while the stream's
    last block is on its way, which is best for latency; more makes blocks larger and fewer.
    `silence_s`: an empty block is sent after so many seconds without one.
    """

    changes_max: int = Field(default=4_000, ge=1, le=BLOCK_CHANGES_MAX)
    bytes_max: int = Field(default=500_000, ge=1_024, le=BLOCK_BYTES_MAX)
    linger_s: float = Field(default=0.0, ge=0, le=60)
    silence_s: float = Field(default=SILENCE_INTERVAL_S, ge=0.1, le=SILENCE_INTERVAL_S)


class Capture(Section):
    """One database to read: its tables, each with the topic of its dataset.

    Attributes:
        source: last part of the origin.
        slot, publication: PostgreSQL only; default `fabric_<source>`.
    """

    source: PartField
    kind: Literal["postgresql", "sqlite"]
    url: TextField = Field(repr=False)
    slot: IdentifierField | None = None
    publication: IdentifierField | None = None
    tables: dict[TextField, TopicField] = Field(min_length=1, max_length=LIST_MAX)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.tables.values())) != len(self.tables):
            raise ValueError("tables: two tables feed one topic; give each its own dataset")
        if self.kind != "postgresql" and (self.slot or self.publication):
            raise ValueError("slot and publication belong to kind postgresql; remove them")
        _demand_own_url(self.kind, self.url)
        return self


class Apply(Section):
    """One database to write: topics, each with the table its rows go to.

    Attributes:
        name: what metrics call it; its place in the file, from 0, where it has none.
    """

    name: PartField | None = None
    kind: Literal["postgresql", "sqlite"]
    url: TextField = Field(repr=False)
    tables: dict[TopicField, TextField] = Field(min_length=1, max_length=LIST_MAX)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.tables.values())) != len(self.tables):
            raise ValueError("tables: two topics fill one table; give each its own")
        _demand_own_url(self.kind, self.url)
        return self


def _demand_own_url(kind: str, url: str) -> None:
    # Messages name a SQLite file's path; another database's URL may hold a password.
    if kind == "sqlite" and "://" in url.removeprefix("sqlite:///"):
        raise ValueError("url: is not that of a SQLite file; write sqlite:///path or correct kind")


class Outbox(Section):
    """What `publish` may send: the last part of its origin, and the topics."""

    source: PartField = "outbox"
    topics: tuple[TopicField, ...] = Field(default=(), max_length=LIST_MAX)


class GatewayPart(Section):
    """Addresses of a gateway.

    Attributes:
        listen: for producers.
        advertised: every live gateway as producers reach it, this one among them.
        side_listen: for the refusal log (HTTPS).
        folder: its audit log; each gateway has its own.
        heartbeat_interval_s: how often the authority's heartbeat is due, seconds.
    """

    listen: AddressField
    advertised: tuple[AddressField, ...] = Field(min_length=1, max_length=LIST_MAX)
    side_listen: AddressField
    folder: Path = Path("state")
    heartbeat_interval_s: float = Field(default=HEARTBEAT_INTERVAL_S, ge=0.1, le=60)


class AuthorityPart(Section):
    """The authority's own files and habits.

    Attributes:
        folder: its state and audit log.
        verifier_key: both signing keys; its owner alone may read the file.
        issuing_certificate, issuing_key: the CA that issues X.509-SVIDs, PEM.
        result_lifetime_s: shortens the levels' lifetime of results, seconds.
        replication_factor: of the topics it makes.
        timestamp_key: signs the policy repository's timestamp anew before it ends, so that
            the policy lives as long as the authority does; the policy must be a folder.
        timestamp_valid_s: how long each of these timestamps holds, seconds: as long can
            somebody who withholds the repository hide a newer policy.
    """

    listen: AddressField
    folder: Path
    verifier_key: Path
    issuing_certificate: Path
    issuing_key: Path
    result_lifetime_s: int | None = Field(default=None, ge=2, le=_RESULT_LIFETIME_S_MAX)
    heartbeat_interval_s: float = Field(default=HEARTBEAT_INTERVAL_S, ge=0.1, le=60)
    replication_factor: int = Field(default=3, ge=1, le=15)
    timestamp_key: Path | None = None
    timestamp_valid_s: int = Field(default=24 * 3600, ge=10, le=TIMESTAMP_VALID_S_MAX)


class _File(BaseSettings):
    """A whole file. `load` is the way in.

    Attributes:
        file_name: what an operator calls such a file.
    """

    file_name: ClassVar[str]
    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *args: Any, **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment stands above the file, and nothing else is read."""
        del args
        return Environment(settings_cls), sources["init_settings"]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and check one TOML file.

        Raises:
            ConfigInvalid: the message names the file, the key or variable, and the remedy.
        """
        content = read(path)
        stranger = cls._stranger(content)
        if stranger is not None:
            raise ConfigInvalid(f"{path}: {stranger}")
        stray = unknown((AgentConfig, GatewayConfig, AuthorityConfig))
        if stray is not None:
            raise ConfigInvalid(f"{path}: {stray}: is no setting; correct its spelling or unset it")
        name = passed_over(cls)
        if name is not None:
            raise ConfigInvalid(f"{path}: {name} goes on below another variable; remove one")
        try:
            config = cls(**content)
        except ValidationError as exc:
            why = explain(exc, lambda place: told_of(cls, place))
            raise ConfigInvalid(f"{path}: {why}") from None
        return _absolute(config, path.absolute().parent)

    @classmethod
    def _stranger(cls, content: Mapping[str, Any]) -> str | None:
        """That a file is another process's, in one sentence instead of a fault in each line."""
        for table, whose in _OWNERS:
            if table in content and table not in cls.model_fields:
                return (
                    f"has a table [{table}], so it is {whose}; name {cls.file_name} instead, or"
                    " remove the table"
                )
        gateway = content.get("gateway")
        own = [key for key in _GATEWAYS_OWN if isinstance(gateway, Mapping) and key in gateway]
        if own and cls.file_name.removesuffix(".toml") not in content:
            return (
                f"has a key gateway.{own[0]}, so it is a gateway's file; name {cls.file_name}"
                " instead"
            )
        return None


class AgentConfig(_File):
    """Settings of an agent."""

    file_name = "agent.toml"
    agent: AgentPart
    policy: PolicyConfig
    authority: AuthorityUrl
    tls: ClientTls
    gateway: GatewayAddresses
    broker: Bootstrap
    tpm: TpmConfig = TpmConfig()
    keys: KeysConfig = KeysConfig()
    web: WebConfig = WebConfig()
    block: BlockConfig = BlockConfig()
    outbox: Outbox = Outbox()
    audit: AuditConfig = AuditConfig()
    receipts: ReceiptsConfig = ReceiptsConfig()
    capture: tuple[Capture, ...] = Field(default=(), max_length=LIST_MAX)
    apply: tuple[Apply, ...] = Field(default=(), max_length=LIST_MAX)

    @model_validator(mode="after")
    def _check(self) -> Self:
        sources = [capture.source for capture in self.capture] + [self.outbox.source]
        if len(set(sources)) != len(sources):
            raise ValueError("capture: two sources have one name; rename one")
        targets = [apply.name or str(number) for number, apply in enumerate(self.apply)]
        if len(set(targets)) != len(targets):
            raise ValueError("apply: two targets have one name; rename one")
        sent = [topic for capture in self.capture for topic in capture.tables.values()]
        if len(set(sent) | set(self.outbox.topics)) != len(sent) + len(self.outbox.topics):
            raise ValueError("capture: one topic is fed twice; keep one of them")
        return self


class GatewayConfig(_File):
    """Settings of a gateway."""

    file_name = "gateway.toml"
    gateway: GatewayPart
    tls: ServerTls
    broker: Bootstrap
    policy: PolicyConfig
    web: WebConfig = WebConfig()
    audit: AuditConfig = AuditConfig()


class AuthorityConfig(_File):
    """Settings of the authority."""

    file_name = "authority.toml"
    authority: AuthorityPart
    tls: ServerTls
    admin: Credential
    gateway: Bootstrap
    broker: Bootstrap
    policy: PolicyConfig
    web: WebConfig = WebConfig()
    audit: AuditConfig = AuditConfig()


def _absolute(model: _M, base: Path) -> _M:
    """The same settings with every relative path below `base`."""
    changed: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path):
            changed[name] = base / value
        elif isinstance(value, BaseModel):
            changed[name] = _absolute(value, base)
        elif isinstance(value, tuple):
            parts = (_absolute(v, base) if isinstance(v, BaseModel) else v for v in value)
            changed[name] = value if isinstance(value, Address) else tuple(parts)
        elif name == "url" and getattr(model, "kind", "") == "sqlite":
            changed[name] = f"sqlite:///{base / value.removeprefix('sqlite:///')}"
    return model.model_copy(update=changed)
