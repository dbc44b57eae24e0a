"""`python -m loadtest [--seconds N] [--repeats K]`: measure everything, write the report."""

import argparse
import json
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtest import report as reports
from loadtest.meter import peak_bytes
from loadtest.tables import CLASSIC, FABRIC, PLAIN, Tables
from loadtest.throughput import Figures, Throughput
from loadtest.warm import compile_when_idle, warm
from loadtest.world import TABLES, Bench

_OUT = Path(__file__).parent / "out"
_SECONDS, _SECONDS_MAX = 5.0, 60.0
_REPEATS, _SHORT_REPEATS, _REPEATS_MAX = 5, 2, 20
_SHORT_S = 2.0
_ROWS, _ROWS_PER_S = 200_000, 1_000
_LATENCY_S_MIN = 3.0
_WARM_S_MAX = 10.0
_BROKER_S_MAX = 40.0
_WARM_TOPIC = "warm-up"
_MB = 1_000_000
_LATENCIES = {"plain_latency": PLAIN, "fabric_latency": FABRIC, "classic_latency": CLASSIC}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="loadtest", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of each produce run")
    parser.add_argument("--repeats", type=int, help="interleaved rounds")
    parser.add_argument("--rows", type=int, default=_ROWS, help="for the memory figure")
    parser.add_argument("--only", choices=("throughput", "tables"), help="one half of it")
    told = parser.parse_args()
    told.seconds = min(max(told.seconds, 0.2), _SECONDS_MAX)
    if told.repeats is None:
        told.repeats = _SHORT_REPEATS if told.seconds <= _SHORT_S else _REPEATS
    told.repeats = min(max(told.repeats, 1), _REPEATS_MAX)
    return told


def main() -> int:
    """Run the load test; the exit code says only whether it ran."""
    told, console = _arguments(), Console(stderr=True, highlight=False)
    began, start = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the world ends with us
    bench = Bench(more=TABLES)
    try:
        bench.start_clients()
        console.print(f"the world stands after {time.monotonic() - start:.0f} s")
        rounds: list[Figures] = [{} for _ in range(told.repeats)]
        if told.only != "tables":
            _throughput(bench, told, rounds, console)
        bench.stop_clients()
        if told.only != "throughput":
            _tables(bench, told, rounds, console)
    finally:
        bench.stop()
    report = reports.make(rounds, seconds=told.seconds, began=began)
    report["took_s"] = round(time.monotonic() - start, 1)
    _write(report)
    reports.show(report, Console(highlight=False))
    console.print(f"{report['took_s']:.0f} s; report and plot are in {_OUT}")
    return 0


def _throughput(
    bench: Bench, told: argparse.Namespace, rounds: list[Figures], console: Console
) -> None:
    def say(name: str, figure: dict[str, float]) -> None:
        rates = (figure["records_per_s"], figure["records_per_cpu_s"])
        console.print("  {:26} {:>11,.0f}/s {:>11,.0f} per CPU s".format(name, *rates))

    turns = Throughput(bench, seconds=told.seconds, say=say)
    for number, figures in enumerate(rounds, 1):
        console.print(f"round {number} of {len(rounds)}")
        figures.update(turns.round())


def _tables(
    bench: Bench, told: argparse.Namespace, rounds: list[Figures], console: Console
) -> None:
    """Memory while a snapshot moves, then latency, fabric and plain in turns."""
    if told.seconds > _SHORT_S:  # a short run's spans are too short to judge latency by
        bench.create_topic(_WARM_TOPIC)
        pid, say = bench.broker_pid, console.print
        warm(bench.direct, _WARM_TOPIC, pid, limit_s=_BROKER_S_MAX, say=say)
    tables = Tables(bench)
    try:
        tables.fill(FABRIC, told.rows)
        tables.start_agents()
        took = tables.await_equal(FABRIC)
        console.print(f"{told.rows:,} rows from table to table in {took:.1f} s")
        tables.start_plain()
        for table in (FABRIC, CLASSIC, PLAIN):  # all are warm before the clock starts
            tables.fill(table, 1_000)
            tables.await_equal(table)
            tables.watch(table)
            warm_s = min(_WARM_S_MAX, 2 * told.seconds)
            tables.latency(table, rate=2 * _ROWS_PER_S, seconds=warm_s)
        compile_when_idle(bench.broker_pid)
        for figures in rounds:
            for name, table in _LATENCIES.items():
                span = max(_LATENCY_S_MIN, told.seconds)
                seen = tables.latency(table, rate=_ROWS_PER_S, seconds=span)
                figures[name] = {
                    "p50_ms": seen.p50_ms, "p99_ms": seen.p99_ms,
                    "rows": seen.rows, "rows_per_s": seen.rate,
                }  # fmt: skip
                console.print(f"  {name:16} p50 {seen.p50_ms:6.1f} ms  p99 {seen.p99_ms:6.1f} ms")
        for name, pid in zip(("agent_a", "agent_b"), tables.agent_pids(), strict=True):
            rounds[0][name] = {"peak_mb": peak_bytes(pid) / _MB, "rows": told.rows}
    finally:
        tables.stop()
        tables.stop_agents()


def _write(report: dict[str, object]) -> None:
    from loadtest.plot import draw

    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(report, _OUT / "report.png")


if __name__ == "__main__":
    sys.exit(main())
