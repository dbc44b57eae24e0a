"""Settings from the environment: `FABRIC_<SECTION>__<KEY>` stands above the file.

A single value is plain text, as its own parser takes it, or a JSON string where that is
no plain type; a list is items joined by commas, or JSON; a table is JSON. A name of ours that
is no setting is refused, because what it should change is not in force. No value ever shows in
an error.
"""

import json
import os
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from fabric.config_file import Told

PREFIX = "FABRIC_"
NESTED = "__"
_JSON_BEGINS = ("[", "{", '"')
_OTHER_ENDS = frozenset({"FABRIC_KAFKA_LIB", "FABRIC_TPM_GROUP"})
"""No settings of a file: where the demo's jars are, and compose.yml's group of the TPM."""


class Environment(EnvSettingsSource):
    """The library's source, but for text that it would take for broken JSON.

    It asks for JSON wherever a type is not a plain one, an address or a host among them.
    What cannot be read here comes out as text, and the check of the whole file refuses it
    under the name of its variable.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo | None, value: Any) -> Any:
        """A list, table or string from JSON, a list of texts also from text with commas."""
        del field_name
        if value.lstrip().startswith(_JSON_BEGINS):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                pass  # an IPv6 address begins so, too
        if field is not None and _is_list(field.annotation) and not _is_of_tables(field.annotation):
            return [item.strip() for item in value.split(",") if item.strip()]
        return value


def told_of(model: type[BaseModel], place: Sequence[int | str]) -> Told | None:
    """The variable from which the setting at a place of a file comes, and the form it wants.

    None when it comes from the file.
    """
    name, depth = _variable(model, place)
    if name is None:
        return None
    annotation = _annotation(model, place[:depth])
    form = f", {_form(annotation)}" if annotation is not None else _nearest(name, (model,))
    return Told(f"{name} of the environment{form}", depth)


def passed_over(model: type[BaseModel]) -> str | None:
    """A variable that would count for nothing: another gives a value where it wants parts."""
    names = {name.upper(): name for name in os.environ if name.upper().startswith(PREFIX)}
    for name in sorted(names):
        parts = name.removeprefix(PREFIX).lower().split(NESTED)
        for depth in range(1, min(3, len(parts))):
            above = PREFIX + NESTED.join(parts[:depth]).upper()
            annotation = _annotation(model, parts[:depth])
            if above in names and annotation is not None and not _is_model(annotation):
                return names[name]
    return None


def unknown(models: Sequence[type[BaseModel]]) -> str | None:
    """A variable of ours that names no section of any file, and which one it may stand for.

    Processes may share an environment, so a section of another's file is no fault here.
    """
    sections = {key.upper() for model in models for key in model.model_fields}
    for name in sorted(os.environ):
        ours = name.upper()
        if not ours.startswith(PREFIX) or ours in _OTHER_ENDS:
            continue
        if ours.removeprefix(PREFIX).partition(NESTED)[0] not in sections:
            return f"{name} of the environment{_nearest(ours, models)}"
    return None


def _nearest(name: str, models: Sequence[type[BaseModel]]) -> str:
    known = [
        NESTED.join(place).upper()
        for model in models
        for key, field in model.model_fields.items()
        for place in ((key,), *((key, below) for below in _model_of(field.annotation).model_fields))
    ]
    close = get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
    return f", nearest is {PREFIX}{close[0]}" if close else ""


def _variable(model: type[BaseModel], place: Sequence[int | str]) -> tuple[str | None, int]:
    """The variable, and how many steps of the place it is of."""
    names = {name.upper(): name for name in os.environ}
    for depth in range(min(2, len(place)), 0, -1):
        name = PREFIX + NESTED.join(str(key) for key in place[:depth]).upper()
        if name in names:
            is_at_fault = depth == 2 or _holds(os.environ[names[name]], place)
            return (name if is_at_fault else None), depth
        # One that goes on below a value which has no parts. A section has some: what is wrong
        # with it as a whole may as well be a key that nobody gave.
        deeper = [known for known in names if known.startswith(name + NESTED)]
        if deeper and depth == len(place) and not _is_model(_annotation(model, place)):
            return min(deeper), depth
    return None, 0


def _annotation(model: type[BaseModel], place: Sequence[int | str]) -> Any:
    """The type of the setting at a place; None where no setting has its key."""
    annotation: Any = model
    for key in place:
        field = _model_of(annotation).model_fields.get(str(key))
        if field is None:
            return None
        annotation = field.annotation
    return annotation


def _holds(text: str, place: Sequence[int | str]) -> bool:
    """Whether a section's JSON has the key at fault; its other keys are the file's."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return True
    if len(place) < 2 or not isinstance(found, dict):
        return True
    return str(place[1]).lower() in {key.lower() for key in found}  # as the library takes keys


def _form(annotation: Any) -> str:
    if _is_list(annotation):
        if _is_of_tables(annotation):
            return "a JSON list of tables"
        return "items joined by commas or a JSON list"
    if _is_model(annotation):
        return "a table as JSON"
    return "plain text without quotes"


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _is_of_tables(annotation: Any) -> bool:
    return any(_is_model(item) for item in get_args(annotation))


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _model_of(annotation: Any) -> type[BaseModel]:
    """A section's type; one without keys for whatever is no section."""
    return annotation if _is_model(annotation) else BaseModel
