"""Read a TOML file of settings, and say what is wrong with it without showing a value."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fabric.model.errors import ConfigInvalid

_CONFIG_BYTES_MAX = 1024 * 1024


def read(path: Path) -> dict[str, Any]:
    """The file's content, nothing of it checked.

    Raises:
        ConfigInvalid: it is no readable TOML file; the message names it and the remedy.
    """
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
    except RecursionError as exc:
        raise ConfigInvalid(f"{path}: is nested too deeply; remove what is no setting") from exc
    except UnicodeDecodeError as exc:
        raise ConfigInvalid(f"{path}: is not UTF-8; save it as UTF-8") from exc


def explain(
    error: ValidationError, told: Callable[[tuple[int | str, ...]], str | None] = lambda _: None
) -> str:
    """Every wrong key with cause and remedy, without any value.

    Args:
        told: says of a place in the file that its value is not the file's, and whose it is.
    """
    remedies: Mapping[str, str] = {
        "missing": "is missing; add it",
        "extra_forbidden": "is not a known key; correct its spelling or remove it",
    }
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        key = ".".join(str(place) for place in item["loc"] if place != "[key]") or "file"
        message = item["msg"].removeprefix("Value error, ")
        whose = told(item["loc"])
        where = f"{key} ({whose})" if whose else key
        lines.append(f"{where}: {remedies.get(item['type'], message)}")
    return "; ".join(lines)
