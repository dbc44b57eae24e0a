"""An audit log in memory: ports.AuditLog without a file."""

from collections.abc import Mapping


class MemoryAudit:
    """Keeps what was written.

    Attributes:
        events: (event, fields) in order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, str | int]]] = []

    def write(self, event: str, fields: Mapping[str, str | int]) -> None:
        """Append one event."""
        self.events.append((event, dict(fields)))
