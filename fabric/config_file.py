"""One settings file: read within bounds, explained when wrong, its paths made absolute."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from fabric.model.errors import ConfigInvalid

_M = TypeVar("_M", bound=BaseModel)
_CONFIG_BYTES_MAX = 1024 * 1024


def read_toml(path: Path) -> dict[str, Any]:
    """The file's tables; raises ConfigInvalid."""
    try:
        if path.stat().st_size > _CONFIG_BYTES_MAX:
            raise ConfigInvalid(f"{path}: is larger than {_CONFIG_BYTES_MAX} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigInvalid(
            f"{path}: cannot be read ({exc.strerror}); check path and mode"
        ) from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigInvalid(f"{path}: is not TOML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigInvalid(f"{path}: is not UTF-8; save it as UTF-8") from exc


def explain(error: ValidationError) -> str:
    """Every wrong key with cause and remedy, without any value."""
    remedies: Mapping[str, str] = {
        "missing": "is missing; add it",
        "extra_forbidden": "is not a known key; correct its spelling or remove it",
    }
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(place) for place in item["loc"] if place != "[key]") or "file"
        message = item["msg"].removeprefix("Value error, ")
        lines.append(f"{key}: {remedies.get(item['type'], message)}")
    return "; ".join(lines)


def absolute(model: _M, base: Path) -> _M:
    """The same settings with every relative path below `base`."""
    changed: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Path):
            changed[name] = base / value
        elif isinstance(value, BaseModel):
            changed[name] = absolute(value, base)
        elif type(value) is tuple:  # an address is a named tuple and stays whole
            changed[name] = tuple(
                absolute(item, base) if isinstance(item, BaseModel) else item for item in value
            )
        elif name == "url" and getattr(model, "kind", "") == "sqlite":
            changed[name] = f"sqlite:///{base / value.removeprefix('sqlite:///')}"
    return model.model_copy(update=changed)
