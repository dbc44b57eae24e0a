"""What the dashboards are made of: one number, lines over time, a table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Builder: TypeAlias = stat.Panel | timeseries.Panel | table.Panel
Steps: TypeAlias = Sequence[tuple[float | None, str]]
"""Colour from a value on; the first begins at None."""

GREEN: Steps = ((None, "green"),)
ANY_IS_BAD: Steps = ((None, "green"), (1, "red"))
BAD_FROM_ZERO: Steps = ((None, "red"), (60, "orange"), (300, "green"))
PLAIN: Steps = ((None, "blue"),)
NOW: Sequence[str] = ("lastNotNull", "max")
COUNTED: Sequence[str] = ("max",)
_LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: its size on the grid, and how it is made."""

    width: int
    height: int
    make: Callable[[], Builder]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A heading and the panels under it."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One dashboard.

    Attributes:
        name: file name and uid.
        variables: name, label and query of each.
    """

    name: str
    title: str
    description: str
    variables: Sequence[tuple[str, str, str]]
    rows: Sequence[Row]


def number(
    title: str,
    expr: str,
    *,
    unit: str = "short",
    steps: Steps = PLAIN,
    width: int = 4,
    text: str = "",
) -> Panel:
    """One big number with its line behind it; `text` says what it means."""

    def make() -> stat.Panel:
        return (
            stat.Panel()
            .title(title)
            .description(text)
            .datasource(SOURCE)
            .unit(unit)
            .thresholds(_thresholds(steps))
            .color_mode(BigValueColorMode.VALUE)
            .graph_mode(BigValueGraphMode.AREA)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .with_target(_query(0, expr, title))
        )

    return Panel(width=width, height=5, make=make)


def lines(
    title: str,
    queries: Sequence[tuple[str, str]],
    *,
    unit: str = "short",
    width: int = 12,
    stacked: bool = False,
    calcs: Sequence[str] = NOW,
    text: str = "",
) -> Panel:
    """Lines over time, the largest last value first in the legend.

    Args:
        queries: (PromQL, legend) pairs.
        calcs: what the legend tells of each line; COUNTED where lines come and go.
    """

    def make() -> timeseries.Panel:
        panel = (
            timeseries.Panel()
            .title(title)
            .description(text)
            .datasource(SOURCE)
            .unit(unit)
            .min(0)
            .line_width(1)
            .fill_opacity(25 if stacked else 8)
            .stacking(
                common.StackingConfig().mode(StackingMode.NORMAL if stacked else StackingMode.NONE)
            )
            .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
            .legend(
                common.VizLegendOptions()
                .display_mode(LegendDisplayMode.TABLE)
                .placement(LegendPlacement.BOTTOM)
                .show_legend(True)
                .calcs(list(calcs))
                .sort_by("Max" if calcs is COUNTED else "Last *")
                .sort_desc(True)
            )
        )
        if unit == "short":
            panel = panel.axis_soft_max(1)
        for at, (expr, legend) in enumerate(queries):
            panel = panel.with_target(_query(at, expr, legend))
        return panel

    return Panel(width=width, height=9, make=make)


def listing(
    title: str,
    columns: Sequence[tuple[str, str, str]],
    *,
    labels: Mapping[str, str],
    steps: Mapping[str, Steps] | None = None,
    height: int = 7,
    text: str = "",
) -> Panel:
    """A table of what holds now: one row for each set of labels.

    Args:
        columns: (heading, PromQL, unit); each must give exactly the labels named here.
        labels: label to its heading, in order.
        steps: colours by heading.
    """
    coloured = steps or {}

    def make() -> table.Panel:
        panel = table.Panel().title(title).description(text).datasource(SOURCE)
        renamed: dict[str, object] = dict(labels)
        for at, (heading, expr, unit) in enumerate(columns):
            query = _query(at, expr, heading).instant().format(PromQueryFormat.TABLE)
            panel = panel.with_target(query)
            renamed[f"Value #{_LETTERS[at]}"] = heading
            wanted: list[DynamicConfigValue] = [DynamicConfigValue("unit", unit)]
            if heading in coloured:
                built = _thresholds(coloured[heading]).build()
                wanted.append(DynamicConfigValue("thresholds", built))
                wanted.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
            panel = panel.override_by_name(heading, wanted)
        order: dict[str, object] = {name: at for at, name in enumerate(renamed)}
        organize = {
            "excludeByName": {"Time": True},
            "indexByName": order,
            "renameByName": renamed,
        }
        return panel.with_transformation(
            DataTransformerConfig(id_val="merge", options={})
        ).with_transformation(DataTransformerConfig(id_val="organize", options=organize))

    return Panel(width=24, height=height, make=make)


def counted(metric: str, select: str, *, by: str, why: str, span: str = "5m") -> str:
    """PromQL: what was counted lately by `by` and `why`; a zero by `by` where it was nothing."""
    grown = f"increase({metric}{{{select}}}[{span}])"
    some, none = (f"round(sum by ({names}) ({grown}))" for names in (f"{by}, {why}", by))
    return f"{some} > 0 or {none} == 0"


def named(expr: str, label: str, name: str) -> str:
    """PromQL: `expr`, with `name` where its label is empty."""
    return f'label_replace({expr}, "{label}", "{name}", "{label}", "")'


def _query(at: int, expr: str, legend: str) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .datasource(SOURCE)
        .ref_id(_LETTERS[at])
        .expr(expr)
        .legend_format(legend)
    )


def _thresholds(steps: Steps) -> d.ThresholdsConfig:
    found = [Threshold(value=value, color=color) for value, color in steps]
    return d.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(found)
