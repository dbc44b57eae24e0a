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
    DashboardLinkType,
    DashboardRangeMapOptions,
    DashboardSpecialValueMapOptions,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    RangeMap,
    SpecialValueMap,
    SpecialValueMatch,
    Threshold,
    ThresholdsMode,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
Builder: TypeAlias = stat.Panel | timeseries.Panel | table.Panel
Steps: TypeAlias = Sequence[tuple[float | None, str]]
"""Colour from a value on; the first begins at None."""

ANY_IS_BAD: Steps = ((None, "green"), (1, "red"))
NOT_ALL_IS_BAD: Steps = ((None, "red"), (1, "green"))
PLAIN: Steps = ((None, "blue"),)
NEVER_S = 1e9
"""So many seconds, or more, are no age: they are the time since a zero, or stand for unknown."""
_LETTERS = "ABCDEFGHIJ"
_NUMBER_PX = 32
_COLUMN_PX = 80
_LABEL_PX = {"agency": 90, "role": 90, "level": 100}
_NAME_PX = 220
_NOTHING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """What a legend tells of each line, and which line comes first: the worst."""

    calcs: Sequence[str]
    sort_by: str
    is_descending: bool = True


NOW = Legend(calcs=("lastNotNull", "max"), sort_by="Last *")
LEAST = Legend(calcs=("lastNotNull", "min"), sort_by="Last *", is_descending=False)
"""Where a small value is the bad one."""
COUNTED = Legend(calcs=("max",), sort_by="Max")
"""Where lines come and go."""


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
    none: str = "nothing reported",
    alerts: Sequence[str] = (),
) -> Panel:
    """One big number.

    Args:
        text: what it means.
        none: what stands there when there is no number.
        alerts: whose runbooks the panel links to.
    """

    def make() -> stat.Panel:
        return (
            stat.Panel()
            .title(title)
            .description(text)
            .no_value(none)
            .links(_runbooks(alerts))
            .datasource(SOURCE)
            .unit(unit)
            .thresholds(_thresholds(steps))
            .color_mode(BigValueColorMode.VALUE)
            .graph_mode(BigValueGraphMode.NONE)
            .text(common.VizTextDisplayOptions().value_size(_NUMBER_PX))
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .with_target(_query(0, expr, title))
        )

    return Panel(width=width, height=4, make=make)


def lines(
    title: str,
    queries: Sequence[tuple[str, str]],
    *,
    unit: str = "short",
    width: int = 12,
    stacked: bool = False,
    legend: Legend = NOW,
    text: str = "",
    none: str = "nothing reported",
    alerts: Sequence[str] = (),
) -> Panel:
    """Lines over time, with a table of them as the legend; a line has a gap where nothing is known.

    Args:
        queries: (PromQL, name of the line) pairs.
        none: what stands there when there is no line.
        alerts: whose runbooks the panel links to.
    """

    def make() -> timeseries.Panel:
        panel = (
            timeseries.Panel()
            .title(title)
            .description(text)
            .no_value(none)
            .links(_runbooks(alerts))
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
                .placement(LegendPlacement.RIGHT)
                .show_legend(True)
                .calcs(list(legend.calcs))
                .sort_by(legend.sort_by)
                .sort_desc(legend.is_descending)
            )
        )
        if unit == "short":
            panel = panel.axis_soft_max(1)
        for at, (expr, name) in enumerate(queries):
            panel = panel.with_target(_query(at, expr, name))
        return panel

    return Panel(width=width, height=7, make=make)


def listing(
    title: str,
    columns: Sequence[tuple[str, str, str]],
    *,
    labels: Mapping[str, str],
    worst: str,
    steps: Mapping[str, Steps] | None = None,
    never: Mapping[str, str] | None = None,
    height: int = 7,
    text: str = "",
    alerts: Sequence[str] = (),
) -> Panel:
    """A table of what holds now: one row for each set of labels, the largest `worst` first.

    Args:
        columns: (heading, PromQL, unit); each must give exactly the labels named here.
        labels: label to its heading, in order.
        worst: heading of the column that the rows are sorted by.
        steps: colours by heading.
        never: by heading of a column with colours, what stands in red for NEVER_S and more.
        alerts: whose runbooks the panel links to.
    """
    coloured, unknown = steps or {}, never or {}

    def make() -> table.Panel:
        first = common.TableSortByFieldState().display_name(worst).desc(True)
        panel = table.Panel().title(title).description(text).datasource(SOURCE).sort_by([first])
        panel = panel.min_width(_COLUMN_PX).no_value(_NOTHING).links(_runbooks(alerts))
        for label, heading in labels.items():
            wide = _LABEL_PX.get(label, _NAME_PX)
            panel = panel.override_by_name(heading, [DynamicConfigValue("custom.width", wide)])
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
                mapped = [_never(unknown[heading])] if heading in unknown else []
                wanted.append(DynamicConfigValue("mappings", [*mapped, _nothing()]))
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


def _runbooks(alerts: Sequence[str]) -> list[d.DashboardLink]:
    """Links to the pages of alerts; where the pages are served is for a variable to say."""
    return [
        d.DashboardLink(f"Runbook {name}")
        .type(DashboardLinkType.LINK)
        .url(f"${{runbooks}}/{name}.md")
        .target_blank(True)
        for name in alerts
    ]


def _never(text: str) -> RangeMap:
    result = ValueMappingResult(text=text, color="red")
    return RangeMap(DashboardRangeMapOptions(from_val=NEVER_S, result=result))


def _nothing() -> SpecialValueMap:
    """No value is neither good nor bad; without this it has the first threshold's colour."""
    result = ValueMappingResult(text=_NOTHING, color="text")
    return SpecialValueMap(
        DashboardSpecialValueMapOptions(match=SpecialValueMatch.NULL, result=result)
    )


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
