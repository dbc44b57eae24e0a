"""Read a TOML file of settings, and say what is wrong with it without showing a value."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

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


class Told(NamedTuple):
    """Whose a value is that is not the file's, and of how many steps of its place it is."""

    words: str
    depth: int


def explain(
    error: ValidationError, told: Callable[[tuple[int | str, ...]], Told | None] = lambda _: None
) -> str:
    """Every wrong key with cause and remedy, without any value.

    An unknown key inside another's value is not shown either: it may be a secret that slipped.

    Args:
        told: says of a place in the file that its value is not the file's.
    """
    remedies: Mapping[str, str] = {
        "missing": "is missing; add it",
        "extra_forbidden": "is not a known key; correct its spelling or remove it",
    }
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        loc, whose = item["loc"], told(item["loc"])
        message = remedies.get(item["type"], item["msg"].removeprefix("Value error, "))
        if whose and item["type"] == "extra_forbidden" and len(loc) > whose.depth:
            loc, message = (
                loc[:-1],
                "has a key that is not known; correct its spelling or remove it",
            )
        key = ".".join(str(place) for place in loc if place != "[key]") or "file"
        where = f"{key} ({whose.words})" if whose else key
        lines.append(f"{where}: {message}")
    return "; ".join(lines)
