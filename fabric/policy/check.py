"""What the documents of a policy say of each other: refused unless it all fits.

`floors` hold the law's defaults as data: no rule of a policy may be weaker.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fabric.model.errors import Malformed
from fabric.model.label import Label, Levels, dominates, join
from fabric.policy.documents import LABEL_TAG, invalid
from fabric.policy.types import Approval, Dataset, LevelRule, SuiteRule

_K = TypeVar("_K")
_PERSONAL = "personal-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The least a level's rule must demand, and the law behind it."""

    host_level_min: int
    padding: bool
    citation: str


FLOORS: Mapping[str, Floor] = {
    "confidential": Floor(
        host_level_min=3,
        padding=False,
        citation="Circular 06/2026/TT-BKHCN art. 8(2): level 3 and up carries state secrets",
    ),
    "secret": Floor(
        host_level_min=4,
        padding=True,
        citation="Law 117/2025/QH15; level 4 by inference from Decree 331/2026 art. 14",
    ),
    "top-secret": Floor(
        host_level_min=5,
        padding=True,
        citation="Law 117/2025/QH15; level 5 by inference from Decree 331/2026 art. 15",
    ),
}
"""By level name. Every floor also demands sealing, which Decision 1562/QD-TTg of 2025 asks for."""


def check_levels(file: str, rules: Sequence[LevelRule], suites: Mapping[str, SuiteRule]) -> None:
    """Each rule keeps its floor, uses suites that may be used, and rises with the order."""
    _check_repeats(file, "name", [rule.name for rule in rules])
    below: LevelRule | None = None
    for rule in rules:
        _check_shape(file, rule, suites)
        _check_floor(file, rule)
        if below is not None and (
            rule.host_level_min < below.host_level_min
            or (below.sealed and not rule.sealed)
            or (below.padding and not rule.padding)
        ):
            raise invalid(file, rule.name, f"is weaker than the level below it, {below.name}")
        below = rule


def _check_shape(file: str, rule: LevelRule, suites: Mapping[str, SuiteRule]) -> None:
    if not rule.sealed and (rule.suites or rule.padding or rule.coding != "none"):
        raise invalid(file, rule.name, "is open: suites must be [], padding false, coding none")
    if rule.sealed and not rule.suites:
        raise invalid(file, f"{rule.name}.suites", "is sealed: name at least one suite")
    for suite in rule.suites:
        if suite not in suites:
            raise invalid(file, f"{rule.name}.suites", f"{suite} is not in suites.yaml; add it")
        if suites[suite].status == "refused":
            raise invalid(file, f"{rule.name}.suites", f"{suite} is refused; remove it")


def _check_floor(file: str, rule: LevelRule) -> None:
    floor = FLOORS.get(rule.name)
    if floor is None:
        return
    if not rule.sealed:
        raise invalid(file, f"{rule.name}.sealed", f"must be true ({floor.citation})")
    if rule.host_level_min < floor.host_level_min:
        remedy = f"must be at least {floor.host_level_min} ({floor.citation})"
        raise invalid(file, f"{rule.name}.host_level_min", remedy)
    if floor.padding and not rule.padding:
        raise invalid(file, f"{rule.name}.padding", f"must be true ({floor.citation})")


def check_approvals(
    files: Mapping[str, Approval], levels: Levels, agencies: Collection[str]
) -> None:
    """Approvals name known agencies and levels, and no two of them one TPM."""
    owners: dict[bytes, str] = {}
    for file, approval in files.items():
        if approval.host.agency not in agencies:
            raise invalid(file, "path", "agency is unknown; add agencies/<code>.yaml")
        _check_known(file, "clearance", approval.clearance, levels)
        other = owners.setdefault(approval.ek_sha256, file)
        if other != file:
            raise invalid(file, "ek_sha256", f"is the TPM of {other} already; remove one of them")


def check_dataset(
    file: str,
    dataset: Dataset,
    *,
    levels: Levels,
    rule: LevelRule | None,
    suites: Mapping[str, SuiteRule],
    agencies: Collection[str],
) -> None:
    """A dataset fits its topic, its level's rule, its columns and the agencies."""
    if rule is None:
        raise invalid(file, "level", "is not in levels.yaml; add it or correct its spelling")
    _check_known(file, "label", dataset.label, levels)
    if dataset.label.level != dataset.topic.level:
        raise invalid(file, "label", f"must be of the topic's level, {dataset.topic.level}")
    _check_suite(file, dataset, rule, suites)
    _check_tags(file, dataset, levels, is_sealed=rule.sealed)
    if len(dataset.producers) != 1:
        raise invalid(
            file, "producers", "must be one origin: two could fill the same keys; split the dataset"
        )
    if len(set(dataset.consumers)) != len(dataset.consumers):
        raise invalid(file, "consumers", "names one consumer twice; remove one")
    _check_custodians(file, dataset, is_sealed=rule.sealed)
    named = {dataset.topic.agency, *(o.agency for o in dataset.producers)}
    named |= {consumer.partition("/")[0] for consumer in dataset.consumers}
    for agency in sorted(named - set(agencies)):
        raise invalid(file, "agency", f"{agency} is unknown; add agencies/{agency}.yaml")


def _check_custodians(file: str, dataset: Dataset, *, is_sealed: bool) -> None:
    """Custodians are consumers: they grant only what they may have themselves."""
    if dataset.custodians and not is_sealed:
        raise invalid(file, "custodians", "must be [] at an open level: there is nothing to grant")
    if len(set(dataset.custodians)) != len(dataset.custodians):
        raise invalid(file, "custodians", "names one custodian twice; remove one")
    for name in dataset.custodians:
        system = "/".join(name.split("/")[:2])
        if not {name, system} & set(dataset.consumers):
            raise invalid(file, "custodians", f"{name} is no consumer; add it to the consumers")


def _check_suite(
    file: str, dataset: Dataset, rule: LevelRule, suites: Mapping[str, SuiteRule]
) -> None:
    if not rule.sealed:
        if dataset.suite:
            raise invalid(file, "suite", "must be '' at an open level")
        return
    if dataset.suite not in rule.suites:
        allowed = ", ".join(rule.suites)
        raise invalid(file, "suite", f"must be one of its level's: {allowed}")
    if suites[dataset.suite].status != "approved":
        raise invalid(file, "suite", "is not approved; choose an approved suite of the level")


def _check_tags(file: str, dataset: Dataset, levels: Levels, *, is_sealed: bool) -> None:
    needed = dataset.label
    for name, tag in dataset.tags.items():
        if name not in dataset.schema.fields:
            raise invalid(file, f"tags.{name}", "is no field of the schema; correct its spelling")
        if tag.startswith(LABEL_TAG):
            column = Label.parse(tag.removeprefix(LABEL_TAG))
            _check_known(file, f"tags.{name}", column, levels)
        elif is_sealed:
            column = Label(dataset.label.level, frozenset({_PERSONAL}))
        else:
            continue
        needed = join(levels, needed, column)
        if not dominates(levels, dataset.label, column):
            raise invalid(
                file, f"tags.{name}", f"column rises above the label; label must be {needed}"
            )


def check_datasets(files: Mapping[str, Dataset]) -> None:
    """No two datasets share a schema id."""
    ids: dict[int, str] = {}
    for file, dataset in files.items():
        other = ids.setdefault(dataset.schema_id, file)
        if other != file:
            raise invalid(file, "schema_id", f"is that of {other} already; take a free number")


def _check_known(file: str, key: str, label: Label, levels: Levels) -> None:
    try:
        levels.rank(label.level)
    except Malformed as exc:
        raise invalid(file, key, "names a level that is not in levels.yaml") from exc


def _check_repeats(file: str, key: str, values: Sequence[_K]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise invalid(file, key, f"{value} stands twice; remove one")
