"""The fabric's public Python API; everything loads on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fabric.agent.api import Agent
    from fabric.agent.subscription import Position
    from fabric.model.change import Change, Op, Sequence
    from fabric.model.errors import (
        DeniedError,
        FabricError,
        PeerError,
        Reason,
        UnavailableError,
        UsageError,
    )

_HOMES = {
    "Agent": "fabric.agent.api",
    "Change": "fabric.model.change",
    "DeniedError": "fabric.model.errors",
    "FabricError": "fabric.model.errors",
    "Op": "fabric.model.change",
    "PeerError": "fabric.model.errors",
    "Position": "fabric.agent.subscription",
    "Reason": "fabric.model.errors",
    "Sequence": "fabric.model.change",
    "UnavailableError": "fabric.model.errors",
    "UsageError": "fabric.model.errors",
}

__all__ = [
    "Agent",
    "Change",
    "DeniedError",
    "FabricError",
    "Op",
    "PeerError",
    "Position",
    "Reason",
    "Sequence",
    "UnavailableError",
    "UsageError",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fabric' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
