"""The fabric's public Python API. Everything loads on first use; types are in __init__.pyi."""

from importlib import import_module

_HOMES = {
    "Agent": "fabric.agent.api",
    "Block": "fabric.model.block",
    "Change": "fabric.model.change",
    "ConfigInvalid": "fabric.model.errors",
    "Delivery": "fabric.agent.subscription",
    "DeniedError": "fabric.model.errors",
    "FabricError": "fabric.model.errors",
    "Malformed": "fabric.model.errors",
    "Op": "fabric.model.change",
    "Origin": "fabric.model.names",
    "PeerError": "fabric.model.errors",
    "Position": "fabric.agent.subscription",
    "Reason": "fabric.model.errors",
    "Row": "fabric.model.change",
    "Run": "fabric.model.change",
    "Sequence": "fabric.model.change",
    "Stream": "fabric.model.names",
    "StreamState": "fabric.ports",
    "Topic": "fabric.model.names",
    "UnavailableError": "fabric.model.errors",
    "UsageError": "fabric.model.errors",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fabric' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
