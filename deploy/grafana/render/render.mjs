// Draw the committed dashboards from a Prometheus into docs/img: node render.mjs URL [MINUTES [END]]
import { build } from 'esbuild';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..', '..');
const out = join(here, 'out');
const [prometheus = 'http://127.0.0.1:9090', minutes = '10', until] = process.argv.slice(2);
const WIDTH = 1500;
const CELL = 38; // pixels of one grid row, gap included
const POINTS = 240;
const LABELS = /\{\{\s*(\w+)\s*\}\}/g;

const end = until ? Number(until) : Math.floor(Date.now() / 1000); // Unix seconds
const start = end - Number(minutes) * 60;
const step = Math.max(1, Math.round((end - start) / POINTS));

async function ask(path, parameters) {
  const answer = await fetch(`${prometheus}/api/v1/${path}?${new URLSearchParams(parameters)}`);
  const body = await answer.json();
  if (body.status !== 'success') throw new Error(`${body.error}: ${parameters.query}`);
  return body.data.result;
}

/** What Grafana does before it asks: variables say "all", the rate interval follows the scrape's. */
function plain(expr) {
  return expr.replaceAll('$__rate_interval', '20s').replaceAll(/\$(agency|level|topic)/g, '.*');
}

/** Every step has a point, as Grafana does it: where there is no sample, a gap and no line. */
function filled(values) {
  const known = new Map(values.map(([at, text]) => [at, Number(text)]));
  const count = Math.floor((end - start) / step) + 1;
  return Array.from({ length: count }, (_, at) => start + at * step).map((at) => [
    at * 1000,
    known.get(at) ?? null,
  ]);
}

async function fetchTarget(target) {
  const query = plain(target.expr);
  const found = target.instant
    ? await ask('query', { query, time: end })
    : await ask('query_range', { query, start, end, step });
  return found.map(({ metric, value, values }) => ({
    refId: target.refId,
    name: target.legendFormat.replaceAll(LABELS, (_, label) => metric[label] ?? '').trim(),
    labels: metric,
    points: values ? filled(values) : [[value[0] * 1000, Number(value[1])]],
  }));
}

async function fetchBoard(name) {
  const board = JSON.parse(readFileSync(join(here, '..', 'dashboards', `${name}.json`), 'utf8'));
  const data = {};
  for (const panel of board.panels) {
    data[panel.id] = (await Promise.all((panel.targets ?? []).map(fetchTarget))).flat();
    if (panel.targets && !data[panel.id].length) console.warn(`${name}: "${panel.title}" is empty`);
  }
  return { board, data, from: start * 1000, to: end * 1000, width: WIDTH, cell: CELL };
}

mkdirSync(out, { recursive: true });
await build({
  entryPoints: [join(here, 'src', 'draw.tsx')],
  bundle: true,
  outfile: join(out, 'draw.js'),
  minify: true,
  jsx: 'automatic',
  define: { 'process.env.NODE_ENV': '"production"' },
  loader: { '.svg': 'dataurl', '.woff2': 'dataurl', '.ttf': 'dataurl', '.png': 'dataurl' },
  logLevel: 'error',
});
for (const name of ['sync', 'encryption', 'trust']) {
  const page = await fetchBoard(name);
  const rows = Math.max(...page.board.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  const json = JSON.stringify(page).replaceAll('<', '\\u003c');
  const html = join(out, `${name}.html`);
  writeFileSync(
    html,
    `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="draw.css"><body style="margin:0"><div id="root"></div>` +
      `<script>window.__PAGE__=${json}</script><script src="draw.js"></script>`
  );
  const picture = join(root, 'docs', 'img', `${name}.png`);
  execFileSync('chromium', [
    '--headless=new', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
    '--virtual-time-budget=15000', `--window-size=${WIDTH},${rows * CELL + 64}`,
    `--screenshot=${picture}`, `file://${html}`,
  ], { stdio: ['ignore', 'ignore', 'ignore'] });
  console.log(picture);
}
