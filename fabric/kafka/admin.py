"""Administration of the broker: topics, their settings, and who may read or write them.

confluent-kafka's AdminClient does the talking, in a thread, with a deadline on every
call. What a topic must be and who may read is for the caller to say; here it is only
made so. Every method may be repeated: it changes what differs and nothing else.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from fabric.model.errors import ConfigInvalid, Reason, UnavailableError
from fabric.model.limits import REQUEST_S_MAX

T = TypeVar("T")

_CALL_S_MAX = 3 * REQUEST_S_MAX
"""Deadline of one method: at most three requests one after the other."""
_CLUSTER = "kafka-cluster"
_ANY_HOST = "*"
_FORBIDDEN = (
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.SECURITY_DISABLED,
)
_WRITES = frozenset({AclOperation.WRITE, AclOperation.ALL})


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminTls:
    """PEM files of the administrator's identity and of the CAs that sign brokers."""

    certificate: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """What a topic must be.

    Attributes:
        partitions: at least so many; a topic with more is left as it is.
        settings: topic settings that must have exactly these values.
    """

    name: str
    partitions: int
    settings: Mapping[str, str]


class KafkaAdmin:
    """The broker's administrator.

    Every method raises UnavailableError BROKER_UNAVAILABLE when the broker does not do
    what was asked in time, and ConfigInvalid when this identity may not ask it.

    Args:
        brokers: bootstrap addresses.
        replication_factor: of topics that are made.
    """

    def __init__(
        self, brokers: Sequence[str], tls: AdminTls, *, replication_factor: int = 1
    ) -> None:
        self._replication_factor = replication_factor
        try:
            self._client = AdminClient(
                {
                    "bootstrap.servers": ",".join(brokers),
                    "client.id": "fabric-admin",
                    "security.protocol": "ssl",
                    "ssl.certificate.location": str(tls.certificate),
                    "ssl.key.location": str(tls.key),
                    "ssl.ca.location": str(tls.ca),
                    "ssl.endpoint.identification.algorithm": "https",
                    "socket.timeout.ms": int(REQUEST_S_MAX * 1000),
                    "reconnect.backoff.max.ms": 1000,
                    "log_level": 0,  # every failure is raised; librdkafka prints to stderr
                }
            )
        except KafkaException as exc:
            raise ConfigInvalid(
                "admin.certificate, admin.key or tls.ca cannot be used; check that they are"
                " readable PEM files that fit each other"
            ) from exc

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Make missing topics, add missing partitions, put differing settings right."""
        await _in_thread(lambda: self._ensure_topics(specs))

    async def drift(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Where topics differ from what they must be: `<topic>: <what> is ..., must be ...`."""
        return await _in_thread(lambda: self._drift(specs))

    async def grant_read(self, principal: str, topics: Iterable[str]) -> None:
        """Let `principal` (without `User:`) read these topics, and nothing more by this call."""
        wanted = [_allow(principal, AclOperation.READ, topic) for topic in topics]
        await _in_thread(lambda: self._create_acls(wanted))

    async def revoke_read(self, principal: str, topics: Iterable[str] | None = None) -> None:
        """Take the right to read these topics, or every topic, away from `principal`."""
        names: list[str | None] = [None] if topics is None else [*topics]
        filters = [_filter(_user(principal), AclOperation.READ, name) for name in names]
        await _in_thread(lambda: self._delete_acls(filters))

    async def readers(self) -> Mapping[str, frozenset[str]]:
        """Topics each principal (without `User:`) may read by name."""
        return await _in_thread(self._readers)

    async def allow_platform(self, gateway: str, readers: Mapping[str, Sequence[str]]) -> None:
        """Let the gateway read and write every topic, and other platform parts read some.

        Args:
            gateway: principal of the gateway, without `User:`.
            readers: topics by principal of another part.
        """
        operations = (AclOperation.WRITE, AclOperation.READ, AclOperation.DESCRIBE)
        # A literal `*` is every topic; a prefix would have to be kept in step with levels.
        wanted = [_allow(gateway, operation, "*") for operation in operations]
        wanted.append(
            _allow(gateway, AclOperation.IDEMPOTENT_WRITE, _CLUSTER, kind=ResourceType.BROKER)
        )
        wanted += [
            _allow(principal, AclOperation.READ, topic)
            for principal, topics in readers.items()
            for topic in topics
        ]
        await _in_thread(lambda: self._create_acls(wanted))

    async def remove_writers(self, topics: Iterable[str], *, but: str) -> Sequence[str]:
        """Remove every right to write one of `topics` by name that is not `but`'s.

        Rights by prefix or wildcard may serve other topics, so they stand.

        Returns:
            The rights that stand and must not, for people: `<principal> on <pattern>`.
        """
        return await _in_thread(lambda: self._remove_writers(frozenset(topics), _user(but)))

    def _ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        existing = self._partitions()
        new = [
            NewTopic(
                spec.name,
                num_partitions=spec.partitions,
                replication_factor=self._replication_factor,
                config=dict(spec.settings),
            )
            for spec in specs
            if spec.name not in existing
        ]
        if new:
            made = self._client.create_topics(new, request_timeout=REQUEST_S_MAX)
            # Somebody else may have made it in between; its settings are checked next time.
            _wait(made.values(), but=(KafkaError.TOPIC_ALREADY_EXISTS,))
        few = [
            NewPartitions(spec.name, spec.partitions)
            for spec in specs
            if existing.get(spec.name, spec.partitions) < spec.partitions
        ]
        if few:
            _wait(self._client.create_partitions(few, request_timeout=REQUEST_S_MAX).values())
        self._put_right([spec for spec in specs if spec.name in existing])

    def _put_right(self, specs: Sequence[TopicSpec]) -> None:
        changes = [
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                    for key, (_, value) in differing.items()
                ],
            )
            for name, differing in self._differing(specs).items()
        ]
        if changes:
            done = self._client.incremental_alter_configs(changes, request_timeout=REQUEST_S_MAX)
            _wait(done.values())

    def _drift(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        existing = self._partitions()
        found = [f"{spec.name}: does not exist" for spec in specs if spec.name not in existing]
        present = [spec for spec in specs if spec.name in existing]
        for spec in present:
            if existing[spec.name] < spec.partitions:
                found.append(
                    f"{spec.name}: partitions is {existing[spec.name]}, must be {spec.partitions}"
                )
        for name, differing in self._differing(present).items():
            found += [
                f"{name}: {key} is {is_}, must be {must}" for key, (is_, must) in differing.items()
            ]
        return found

    def _partitions(self) -> Mapping[str, int]:
        topics = self._client.list_topics(timeout=REQUEST_S_MAX).topics
        return {name: len(topic.partitions) for name, topic in topics.items()}

    def _differing(self, specs: Sequence[TopicSpec]) -> Mapping[str, Mapping[str, tuple[str, str]]]:
        """Settings (is, must be) by topic, for topics with at least one that differs."""
        if not specs:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs]
        asked = self._client.describe_configs(resources, request_timeout=REQUEST_S_MAX)
        actual = {resource.name: _result(future) for resource, future in asked.items()}
        found: dict[str, Mapping[str, tuple[str, str]]] = {}
        for spec in specs:
            entries: dict[str, Any] = actual[spec.name]
            values = {key: str(entries[key].value) for key in spec.settings if key in entries}
            differing = {
                key: (values.get(key, ""), must)
                for key, must in spec.settings.items()
                if values.get(key) != must
            }
            if differing:
                found[spec.name] = differing
        return found

    def _create_acls(self, wanted: Sequence[AclBinding]) -> None:
        if wanted:
            _wait(self._client.create_acls([*wanted], request_timeout=REQUEST_S_MAX).values())

    def _delete_acls(self, filters: Sequence[AclBindingFilter]) -> None:
        if filters:
            _wait(self._client.delete_acls([*filters], request_timeout=REQUEST_S_MAX).values())

    def _acls(self) -> Sequence[AclBinding]:
        everything = _filter(None, AclOperation.ANY, None, pattern=ResourcePatternType.ANY)
        future = self._client.describe_acls(everything, request_timeout=REQUEST_S_MAX)
        found: Sequence[AclBinding] = _result(future)
        return found

    def _readers(self) -> Mapping[str, frozenset[str]]:
        readers: dict[str, set[str]] = {}
        for acl in self._acls():
            if acl.operation is AclOperation.READ and _is_named(acl):
                readers.setdefault(acl.principal.removeprefix("User:"), set()).add(acl.name)
        return {principal: frozenset(topics) for principal, topics in readers.items()}

    def _remove_writers(self, topics: frozenset[str], but: str) -> Sequence[str]:
        foreign = [
            acl
            for acl in self._acls()
            if acl.operation in _WRITES and acl.principal != but and _covers(acl, topics)
        ]
        named = [acl for acl in foreign if _is_named(acl) and acl.name != "*"]
        self._delete_acls([_filter(acl.principal, acl.operation, acl.name) for acl in named])
        return [f"{acl.principal} on {acl.name}" for acl in foreign if acl not in named]


async def _in_thread(call: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(_CALL_S_MAX):
            return await asyncio.to_thread(call)
    except (KafkaException, FutureTimeoutError, TimeoutError) as exc:
        raise _mapped(exc) from exc


def _mapped(exc: Exception) -> ConfigInvalid | UnavailableError:
    error = exc.args[0] if isinstance(exc, KafkaException) and exc.args else None
    if isinstance(error, KafkaError) and error.code() in _FORBIDDEN:
        return ConfigInvalid(
            "admin.certificate may not administer the broker; name its principal in super.users"
            " and set an authorizer"
        )
    name = error.name() if isinstance(error, KafkaError) else type(exc).__name__
    return UnavailableError(Reason.BROKER_UNAVAILABLE, f"broker administration failed ({name})")


def _result(future: "Future[Any]") -> Any:
    return future.result(timeout=REQUEST_S_MAX + 1)


def _wait(futures: Iterable["Future[Any]"], *, but: Sequence[int] = ()) -> None:
    for future in futures:
        try:
            _result(future)
        except KafkaException as exc:
            if exc.args[0].code() not in but:
                raise


def _user(principal: str) -> str:
    return f"User:{principal}"


def _allow(
    principal: str, operation: AclOperation, name: str, *, kind: ResourceType = ResourceType.TOPIC
) -> AclBinding:
    return AclBinding(
        kind,
        name,
        ResourcePatternType.LITERAL,
        _user(principal),
        _ANY_HOST,
        operation,
        AclPermissionType.ALLOW,
    )


def _filter(
    user: str | None,
    operation: AclOperation | str | int,
    name: str | None,
    *,
    pattern: ResourcePatternType = ResourcePatternType.LITERAL,
) -> AclBindingFilter:
    allow = AclPermissionType.ALLOW  # what an operator denied stays denied
    make: Callable[..., AclBindingFilter] = AclBindingFilter  # None means any, say no annotations
    return make(ResourceType.TOPIC, name, pattern, user, None, operation, allow)


def _is_named(acl: AclBinding) -> bool:
    return acl.resource_pattern_type is ResourcePatternType.LITERAL


def _covers(acl: AclBinding, topics: frozenset[str]) -> bool:
    if acl.resource_pattern_type is ResourcePatternType.PREFIXED:
        return any(topic.startswith(acl.name) for topic in topics)
    return acl.name == "*" or acl.name in topics
