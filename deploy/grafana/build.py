"""Build the dashboards: `.venv/bin/python -m deploy.grafana.build` writes dashboards/*.json.

The JSON is committed; a test builds it again and compares. Data source, agency, level and
dataset are variables, so that the files work in any Grafana without an edit.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    GridPos,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from deploy.grafana import encryption, sync, trust
from deploy.grafana.panels import SOURCE, Page

FOLDER = Path(__file__).parent / "dashboards"
PAGES: Sequence[Page] = (sync.PAGE, encryption.PAGE, trust.PAGE)
RUNBOOKS = "/docs/runbooks"
"""Where panels look for the runbooks, unless the variable `runbooks` says another address."""
_COLUMNS = 24


class _Grid:
    """Where the next panel goes on Grafana's grid of 24 columns, and its number."""

    def __init__(self) -> None:
        self._x = self._y = self._tall = self._last = 0

    def number(self) -> int:
        """A panel id of its own."""
        self._last += 1
        return self._last

    def take(self, width: int, height: int) -> GridPos:
        """The next place; a panel that does not fit begins a new line."""
        if self._x + width > _COLUMNS:
            self.wrap()
        at = GridPos(x=self._x, y=self._y, w=width, h=height)
        self._x += width
        self._tall = max(self._tall, height)
        return at

    def wrap(self) -> None:
        """Begin a new line below the tallest panel."""
        self._y += self._tall
        self._x = self._tall = 0


def build(page: Page) -> str:
    """One dashboard as JSON text."""
    made = _frame(page)
    grid = _Grid()
    for row in page.rows:
        grid.wrap()
        made.with_row(d.Row(row.title).id(grid.number()).grid_pos(grid.take(_COLUMNS, 1)))
        for panel in row.panels:
            place = grid.take(panel.width, panel.height)
            made.with_panel(panel.make().id(grid.number()).grid_pos(place))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _frame(page: Page) -> d.Dashboard:
    made = (
        d.Dashboard(page.title)
        .uid(f"fabric-{page.name}")
        .description(page.description)
        .tags(["fabric"])
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(d.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name, label, query in page.variables:
        made.with_variable(
            d.QueryVariable(name)
            .label(label)
            .datasource(SOURCE)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(VariableSort.ALPHABETICAL_ASC)
            .include_all(True)
            .all_value(".*")
            .multi(True)
            .current(VariableOption(text="All", value="$__all"))
        )
    return made.with_variable(
        d.TextBoxVariable("runbooks")
        .label("Runbooks at")
        .default_value(RUNBOOKS)
        .current(VariableOption(text=RUNBOOKS, value=RUNBOOKS))
    )


def main() -> None:
    """Write every dashboard."""
    FOLDER.mkdir(exist_ok=True)
    for page in PAGES:
        (FOLDER / f"{page.name}.json").write_text(build(page))


if __name__ == "__main__":
    main()
