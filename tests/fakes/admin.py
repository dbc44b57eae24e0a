"""The broker's administrator in memory: what fabric.authority.keeper needs of KafkaAdmin."""

from collections.abc import Iterable, Mapping, Sequence

from fabric.kafka.admin import TopicSpec
from fabric.model.errors import FabricError


class MemoryAdmin:
    """Topics and rights as a broker would hold them.

    Attributes:
        topics: what was asked for last.
        rights: topics by principal.
        foreign: rights to write that no call removes.
        failure: raised by every call while it is set.
        calls: names of the calls that changed rights.
    """

    def __init__(self) -> None:
        self.topics: dict[str, TopicSpec] = {}
        self.rights: dict[str, frozenset[str]] = {}
        self.platform: tuple[str, Mapping[str, Sequence[str]]] | None = None
        self.foreign: Sequence[str] = ()
        self.failure: FabricError | None = None
        self.calls: list[str] = []

    async def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Remember the specs."""
        self._check()
        self.topics = {spec.name: spec for spec in specs}

    async def grant_read(self, principal: str, topics: Iterable[str]) -> None:
        """Add rights."""
        self._check()
        self.calls.append(f"grant {principal}")
        self.rights[principal] = self.rights.get(principal, frozenset()) | frozenset(topics)

    async def revoke_read(self, principal: str, topics: Iterable[str] | None = None) -> None:
        """Remove rights."""
        self._check()
        self.calls.append(f"revoke {principal}")
        have = self.rights.pop(principal, frozenset())
        left = frozenset() if topics is None else have - frozenset(topics)
        if left:
            self.rights[principal] = left

    async def readers(self) -> Mapping[str, frozenset[str]]:
        """Rights by principal."""
        self._check()
        return dict(self.rights)

    async def allow_platform(self, gateway: str, readers: Mapping[str, Sequence[str]]) -> None:
        """Remember who the platform's parts are."""
        self._check()
        self.platform = (gateway, readers)

    async def remove_writers(self, topics: Iterable[str], *, but: str) -> Sequence[str]:
        """Rights that stand and must not."""
        self._check()
        return self.foreign

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
