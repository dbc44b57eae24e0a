"""How low a dataset's label may sink, and who lets it.

An agency sets its datasets' labels; the authority keeps a floor under each. Below it a
dataset goes only by a release that two other signatures carry: nobody declassifies
alone, and a dataset without a floor is not taken, whatever it is called.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, PlainValidator

from fabric.model.errors import Malformed
from fabric.model.label import Label, Levels, dominates
from fabric.model.limits import POLICY_FILES_MAX
from fabric.model.names import Topic, agency_code, part
from fabric.policy.documents import Document, LabelText, Text, invalid, read_document
from fabric.policy.types import Dataset

FILE = "floors.yaml"
RELEASE = re.compile(r"releases/([^/]+)/([^/]+)/([1-9][0-9]{0,5})\.yaml")


def _dataset(text: object) -> str:
    """`<agency>/<dataset>`."""
    if not isinstance(text, str) or text.count("/") != 1:
        raise ValueError("must have the form agency/dataset")
    agency, _, name = text.partition("/")
    try:
        return f"{agency_code(agency)}/{part(name)}"
    except Malformed as exc:
        raise ValueError(str(exc.args[0])) from exc


_Name = Annotated[str, PlainValidator(_dataset)]


class FloorsDocument(Document):
    """floors.yaml: the lowest label of each dataset, kept by the authority."""

    floors: Annotated[dict[_Name, LabelText], Field(max_length=POLICY_FILES_MAX)]


class ReleaseDocument(Document):
    """releases/<agency>/<dataset>/<n>.yaml: how low the dataset may go from now on."""

    label: LabelText
    why: Text
    legal_basis: Text


def name_of(topic: Topic) -> str:
    """A dataset's name here: its level may change, its floor stays."""
    return f"{topic.agency}/{topic.dataset}"


def read_floors(data: bytes, levels: Levels) -> dict[str, Label]:
    """Floors by dataset; raises UsageError POLICY_INVALID."""
    floors = read_document(FILE, data, FloorsDocument).floors
    for name, label in floors.items():
        _check_known(FILE, f"floors.{name}", label, levels)
    return floors


def read_releases(files: Mapping[str, bytes], levels: Levels) -> dict[str, Label]:
    """The label of the newest release of each dataset; raises UsageError POLICY_INVALID."""
    newest: dict[str, tuple[int, Label]] = {}
    for file in sorted(files):
        match = RELEASE.fullmatch(file)
        if match is None:
            continue
        try:
            name = _dataset(f"{match[1]}/{match[2]}")
        except ValueError as exc:
            raise invalid(file, "path", str(exc)) from exc
        label = read_document(file, files[file], ReleaseDocument).label
        _check_known(file, "label", label, levels)
        number = int(match[3])
        if number > newest.get(name, (0, label))[0]:
            newest[name] = (number, label)
    return {name: label for name, (_, label) in newest.items()}


def check_floor(
    file: str,
    dataset: Dataset,
    *,
    levels: Levels,
    floors: Mapping[str, Label],
    releases: Mapping[str, Label],
) -> None:
    """Refuse a dataset below its floor without a release; raises UsageError POLICY_INVALID."""
    name = name_of(dataset.topic)
    floor = floors.get(name)
    if floor is None:
        raise invalid(FILE, f"floors.{name}", f"is missing; two persons must set it for {file}")
    released = releases.get(name)
    if dominates(levels, dataset.label, floor):
        return
    if released is None or not dominates(levels, dataset.label, released):
        raise invalid(
            file,
            "label",
            f"is below the floor {floor}; raise it, or have two persons sign a release:"
            f" releases/{name}/<n>.yaml",
        )


def check_kept(
    before: Mapping[str, Label],
    after: Mapping[str, Label],
    *,
    levels: Levels,
    releases: Mapping[str, Label],
    datasets: frozenset[str],
) -> None:
    """Refuse floors that sink themselves; only a release lets one go lower.

    Args:
        datasets: names of the datasets that the policy has now.
    """
    for name, label in before.items():
        now = after.get(name)
        if now is None and name not in datasets:
            continue
        released = releases.get(name)
        try:
            is_kept = now is not None and (
                dominates(levels, now, label)
                or (released is not None and dominates(levels, now, released))
            )
        except Malformed:  # the old floor's level is gone: nothing can be shown to be above it
            is_kept = False
        if not is_kept:
            raise invalid(FILE, f"floors.{name}", f"must not sink below {label} without a release")


def _check_known(file: str, key: str, label: Label, levels: Levels) -> None:
    try:
        levels.rank(label.level)
    except Malformed as exc:
        raise invalid(file, key, "names a level that is not in levels.yaml") from exc
