"""The fabric's public Python API. Everything loads on first use; types are in __init__.pyi."""

from importlib import import_module

_HOMES = {
    "Agent": "fabric.agent.api",
    "Change": "fabric.model.change",
    "Delivery": "fabric.agent.subscription",
    "DeniedError": "fabric.model.errors",
    "FabricError": "fabric.model.errors",
    "Op": "fabric.model.change",
    "PeerError": "fabric.model.errors",
    "Position": "fabric.agent.subscription",
    "Reason": "fabric.model.errors",
    "Run": "fabric.model.change",
    "Sequence": "fabric.model.change",
    "UnavailableError": "fabric.model.errors",
    "UsageError": "fabric.model.errors",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'fabric' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
