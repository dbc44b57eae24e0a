// A dashboard's JSON and its data, drawn with Grafana's own components. This is not Grafana:
// variables, transformations and overrides are done by hand, as far as our dashboards use them.
import {
  createTheme,
  dateTime,
  FieldType,
  getDisplayProcessor,
  ThemeContext,
  toDataFrame,
} from '@grafana/data';
import type { DataFrame, Field, FieldConfig, GrafanaTheme2 } from '@grafana/data';
import {
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  GlobalStyles,
  PanelChrome,
  PanelContextProvider,
  TimeSeries,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { ReactNode } from 'react';
import { createRoot } from 'react-dom/client';
import '@grafana/react-data-grid/lib/styles.css';
import 'uplot/dist/uPlot.min.css';

type Series = { refId: string; name: string; labels: Record<string, string>; points: number[][] };
type Panel = any; // a panel of the dashboard JSON, which has no type here
type Page = {
  board: any;
  data: Record<number, Series[]>;
  from: number;
  to: number;
  width: number;
  cell: number;
};

const page: Page = (window as any).__PAGE__;
const theme: GrafanaTheme2 = createTheme({ colors: { mode: 'light' } });
const GAP = 8;
const HEAD = 56;
const timeRange = {
  from: dateTime(page.from),
  to: dateTime(page.to),
  raw: { from: dateTime(page.from), to: dateTime(page.to) },
};

/** JSON has no -Infinity: the first threshold's value is null. */
function thresholds(found: any) {
  const steps = found.steps.map((step: any) => ({ ...step, value: step.value ?? -Infinity }));
  return { ...found, steps };
}

function configOf(panel: Panel, extra: FieldConfig): FieldConfig {
  const defaults = panel.fieldConfig?.defaults ?? {};
  const config = { ...defaults, ...extra };
  if (config.thresholds) config.thresholds = thresholds(config.thresholds);
  return config;
}

function finish(frame: DataFrame): DataFrame {
  for (const field of frame.fields) field.display = getDisplayProcessor({ field, theme });
  return frame;
}

function frameOf(panel: Panel, series: Series, index: number, color: string): DataFrame {
  const config = configOf(panel, { displayName: series.name || ' ', color: { mode: color } });
  const frame = toDataFrame({
    refId: series.refId,
    fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: series.points.map(([at]) => at) },
      {
        name: 'Value',
        type: FieldType.number,
        config,
        values: series.points.map(([, value]) => (Number.isFinite(value) ? value : null)),
      },
    ],
  });
  frame.fields[1].state = { seriesIndex: index, displayName: config.displayName };
  return finish(frame);
}

function Lines({ panel, width, height }: { panel: Panel; width: number; height: number }) {
  const found = page.data[panel.id];
  const frames = found.map((series, at) => frameOf(panel, series, at, 'palette-classic'));
  return (
    <TimeSeries
      frames={frames}
      width={width}
      height={height}
      timeRange={timeRange}
      timeZone="utc"
      legend={panel.options.legend}
    >
      {() => null}
    </TimeSeries>
  );
}

function Stat({ panel, width, height }: { panel: Panel; width: number; height: number }) {
  const [series] = page.data[panel.id];
  if (!series) return <Empty panel={panel} />;
  const frame = frameOf(panel, series, 0, 'thresholds');
  const field: Field = frame.fields[1];
  const values = field.values.filter((value: number | null) => value !== null);
  const last = values[values.length - 1];
  return (
    <BigValue
      width={width}
      height={height}
      value={field.display!(last)}
      text={panel.options.text}
      colorMode={BigValueColorMode.Value}
      graphMode={panel.options.graphMode as BigValueGraphMode}
      theme={theme}
    />
  );
}

/** Grafana's transformations `merge` and `organize`, for frames with equal labels. */
function merged(panel: Panel): DataFrame {
  const organize = panel.transformations.find((item: any) => item.id === 'organize').options;
  const rows = new Map<string, Record<string, string | number>>();
  for (const series of page.data[panel.id]) {
    const key = JSON.stringify(series.labels);
    const row = rows.get(key) ?? { ...series.labels };
    row[`Value #${series.refId}`] = series.points[0][1];
    rows.set(key, row);
  }
  const wanted = Object.entries<number>(organize.indexByName).sort((a, b) => a[1] - b[1]);
  const fields = wanted.map(([source]) => {
    const name = organize.renameByName[source];
    const over = panel.fieldConfig.overrides.find((item: any) => item.matcher.options === name);
    const custom = { align: 'auto', cellOptions: { type: 'auto' }, ...panel.fieldConfig.defaults.custom };
    const config: any = configOf(panel, { custom });
    for (const { id, value } of over?.properties ?? []) {
      if (id === 'thresholds') config.thresholds = thresholds(value);
      else if (id.startsWith('custom.')) config.custom[id.slice('custom.'.length)] = value;
      else config[id] = value;
    }
    const isNumber = source.startsWith('Value #');
    return {
      name,
      type: isNumber ? FieldType.number : FieldType.string,
      config: { ...config, color: { mode: 'thresholds' } },
      values: [...rows.values()].map((row) => row[source] ?? null),
    };
  });
  return finish(toDataFrame({ fields }));
}

function Listing({ panel, width, height }: { panel: Panel; width: number; height: number }) {
  const { sortBy } = panel.options;
  return <TableNG data={merged(panel)} width={width} height={height} sortBy={sortBy} />;
}

function Empty({ panel }: { panel: Panel }) {
  const text = panel.fieldConfig.defaults.noValue ?? 'No data';
  return <div style={{ padding: 16, color: theme.colors.text.secondary }}>{text}</div>;
}

function bodyOf(panel: Panel, width: number, height: number): ReactNode {
  if (!page.data[panel.id].length) return <Empty panel={panel} />;
  if (panel.type === 'stat') return <Stat panel={panel} width={width} height={height} />;
  if (panel.type === 'table') return <Listing panel={panel} width={width} height={height} />;
  return <Lines panel={panel} width={width} height={height} />;
}

function Placed({ panel }: { panel: Panel }) {
  const { x, y, w, h } = panel.gridPos;
  const column = (page.width - GAP) / 24;
  const width = Math.floor(w * column) - GAP;
  const height = h * page.cell - GAP;
  const place = { position: 'absolute' as const, left: GAP + x * column, top: HEAD + y * page.cell };
  if (panel.type === 'row') {
    return (
      <div style={{ ...place, paddingTop: 6, fontSize: 16, fontWeight: 500 }}>{panel.title}</div>
    );
  }
  return (
    <div style={place}>
      <PanelChrome title={panel.title} width={width} height={height}>
        {(inner, tall) => bodyOf(panel, inner, tall)}
      </PanelChrome>
    </div>
  );
}

function Board() {
  const end = new Date(page.to).toISOString().slice(0, 16).replace('T', ' ');
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={{ eventsScope: 'page', eventBus: quiet } as any}>
        <div style={{ position: 'relative', width: page.width, background: theme.colors.background.canvas }}>
          <div style={{ position: 'absolute', left: GAP, top: 12 }}>
            <span style={{ fontSize: 22, fontWeight: 500 }}>{page.board.title}</span>
            <span style={{ marginLeft: 16, color: theme.colors.text.secondary }}>
              {page.board.description} {end} UTC
            </span>
          </div>
          {page.board.panels.map((panel: Panel) => (
            <Placed key={panel.id} panel={panel} />
          ))}
        </div>
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

/** An event bus on which nobody speaks. */
const quiet = {
  publish: () => undefined,
  getStream: () => ({ subscribe: () => ({ unsubscribe: () => undefined }), pipe: () => quiet.getStream() }),
  subscribe: () => ({ unsubscribe: () => undefined }),
  removeAllListeners: () => undefined,
  newScopedBus: () => quiet,
};

document.body.style.background = theme.colors.background.canvas;
/** A picture of an error is better than an empty one. */
function confess(error: unknown) {
  document.body.innerText = String((error as Error)?.stack ?? error);
}

window.onerror = (text, _file, _line, _column, error) => confess(error ?? text);
createRoot(document.getElementById('root')!, { onUncaughtError: confess }).render(<Board />);
