"""How the cost grows: with record size, block size, recipients, datasets and partitions.

    python -m loadtest.growth

The first three are measured on the functions that lanes and readers call, in one
process, as CPU time; datasets and partitions on a whole world, through the gateway.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from fabric.attest.keys import SigningKey
from fabric.attest.result import Result
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.label import Label
from fabric.model.names import HostId, Origin, Stream, Topic
from fabric.model.schema import RowSchema
from fabric.seal import envelope as form
from fabric.seal.epoch import EpochDraft, start_epoch
from fabric.seal.hpke import HpkeKey
from fabric.seal.opening import open_
from fabric.seal.sealing import Link, Sealed, SealingEpoch, Stamp, seal
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import suite_of
from fabric.seal.verify import verify
from loadtest.rows import Row, read_pool, schema_text
from loadtest.throughput import CONTESTANTS, Throughput
from loadtest.world import GATEWAY, Bench

_OUT = Path(__file__).parent / "out"
_TRUST_DOMAIN = "fabric.example"
_HOST = HostId.parse("G01/registry/growth")
_TOPIC = Topic.parse("secret.G01.growth")
_LABEL = Label.parse("secret")
_RUNS, _SPAN_S = 15, 0.3
_TURNS = 3
_SCHEMA = RowSchema.parse(schema_text(logical=True), ("id",))
Cells = Mapping[str, float | str]


class Party:
    """A sender and reader of one suite, with everything in memory."""

    def __init__(self, suite: str) -> None:
        self.suite = suite_of(suite)
        self.signers = tuple(SigningKey.generate(alg) for alg in self.suite.signatures)
        self.key = HpkeKey.generate(self.suite.kem)
        self.secret = EpochSecret.generate()
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.result = Result(
            id=os.urandom(16), host=_HOST, approval=1, level=5, clearance=_LABEL, evidence="tpm2",
            keys=(*(s.public for s in self.signers), self.key.public), policy_version=1,
            revocation_number=0, heads=(), quote_digest=bytes(32), nonce=bytes(32),
            issued=self.now, expires=self.now + timedelta(hours=1),
        )  # fmt: skip
        started = self.start(1)
        self.epoch = SealingEpoch.of(started.start, started.hash, self.secret)

    def start(self, recipients: int) -> Any:
        """An epoch start with so many wraps, the sender's own among them."""
        draft = EpochDraft(
            trust_domain=_TRUST_DOMAIN, sender=_HOST, topic=_TOPIC, label=_LABEL,
            suite=self.suite.id, number=1, result_id=self.result.id, policy_version=1,
            revocation_number=0, heads=(), chain_reset=True, history="retained",
            started=self.now,
        )  # fmt: skip
        others = [HostId.parse(f"G02/health/h{number}") for number in range(recipients - 1)]
        named = [(host, self.key.public) for host in (_HOST, *others)]
        return start_epoch(draft, self.secret, named, signers=self.signers)

    def seal(self, block: Block) -> Sealed:
        """Seal as a lane does."""
        return seal(
            block, _SCHEMA, epoch=self.epoch, link=Link(counter=0, previous=form.NO_PREVIOUS),
            stamp=Stamp(
                result_id=self.result.id, policy_version=1, now=self.now, coding="zstd",
                padding=True,
            ),
            signers=self.signers,
        )  # fmt: skip

    def open(self, data: bytes) -> Block:
        """Verify and open as a reader does."""
        return open_(verify(form.parse(data), self.result, _TRUST_DOMAIN), self.secret, _SCHEMA)


def block_of(rows: Sequence[Row]) -> Block:
    """One transaction's rows as a block."""
    run = Run(op=Op.UPSERT, position=1, ordinal=1, commit_us=1, rows=list(rows))
    stream = Stream(Origin.parse("G01/registry/growth"), _TOPIC, 0)
    return Block(stream=stream, after=ZERO, upto=ChangeSequence(1, 1, len(rows)), runs=(run,))


def cpu_us(work: Callable[[], object]) -> float:
    """CPU microseconds of one call: the lower quartile of many."""
    spans: list[float] = []
    end = time.perf_counter() + _SPAN_S
    while len(spans) < _RUNS or time.perf_counter() < end:
        began = time.process_time()
        work()
        spans.append(time.process_time() - began)
    return sorted(spans)[len(spans) // 4] * 1e6


def by_block_size(pool: Sequence[Row]) -> list[Cells]:
    """Cost of a record when a block holds 1 to 4,000 of them."""
    found: list[Cells] = []
    parties = {name: Party(name) for name in ("classic", "hybrid")}
    for size in (1, 10, 100, 1_000, 4_000):
        block = block_of(pool[:size])
        cells: dict[str, float | str] = {"records": size}
        for name, party in parties.items():
            sealed = party.seal(block)
            cells[f"{name} seal us"] = cpu_us(lambda p=party, b=block: p.seal(b)) / size  # type: ignore[misc]
            cells[f"{name} open us"] = cpu_us(lambda p=party, s=sealed: p.open(s.data)) / size  # type: ignore[misc]
            cells[f"{name} bytes"] = len(sealed.data) / size
        found.append(cells)
    return found


def by_record_size(pool: Sequence[Row]) -> list[Cells]:
    """Cost of a record whose address is longer and longer; random text does not compress."""
    found: list[Cells] = []
    party = Party("hybrid")
    for extra in (0, 200, 800):
        rows = [{**row, "address": row["address"] + os.urandom(extra // 2).hex()} for row in pool]
        size = 1_000 if extra < 400 else 400
        block = block_of(rows[:size])
        sealed = party.seal(block)
        found.append(
            {
                "Avro bytes": sealed.plaintext_bytes / size,
                "records": size,
                "seal us": cpu_us(lambda b=block: party.seal(b)) / size,  # type: ignore[misc]
                "open us": cpu_us(lambda s=sealed: party.open(s.data)) / size,  # type: ignore[misc]
                "bytes": len(sealed.data) / size,
            }
        )
    return found


def by_recipients() -> list[Cells]:
    """Cost of an epoch start, which is paid once an epoch and never by a block."""
    found: list[Cells] = []
    for count in (1, 10, 100):
        cells: dict[str, float | str] = {"recipients": count}
        for name in ("classic", "hybrid"):
            party = Party(name)
            cells[f"{name} start ms"] = cpu_us(lambda p=party, c=count: p.start(c)) / 1_000  # type: ignore[misc]
            cells[f"{name} bytes"] = sum(map(len, party.start(count).values))
        found.append(cells)
    return found


def by_streams() -> list[Cells]:
    """Records a second of one agent through the gateway over datasets and partitions, `hybrid`."""
    names = [f"secret.G01.d{number}" for number in range(16)]
    split = {count: f"secret.G01.p{count}" for count in (2, 4, 8)}
    more = {name: {"partitions": count} for count, name in split.items()}
    bench = Bench(more={**{name: {} for name in names}, **more})
    hybrid = next(one for one in CONTESTANTS if one.name == "sealed_hybrid")
    cases = {f"{count} datasets of 1 partition": names[:count] for count in (1, 4, 16)}
    cases |= {f"1 dataset of {count} partitions": [name] for count, name in split.items()}
    told: dict[str, list[dict[str, float]]] = {what: [] for what in cases}
    try:
        bench.start_clients()
        turns = Throughput(bench, seconds=3, say=lambda *_: None)
        for what, topics in [*cases.items()] * _TURNS:
            told[what].append(turns.produce(hybrid, bench.gateway, GATEWAY, topics=topics))
    finally:
        bench.stop()
    return [{"what": what, **_spread(turns_of)} for what, turns_of in told.items()]


def _spread(told: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median and range of a few turns."""
    speeds = [one["records_per_s"] for one in told]
    return {
        "records/s": median(speeds),
        "least": min(speeds),
        "most": max(speeds),
        "records/CPU s": median(one["records_per_cpu_s"] for one in told),
    }


def main() -> int:
    """Measure, print, write `loadtest/out/growth.json`."""
    console = Console(highlight=False)
    path = _OUT / "pool.json"
    _OUT.mkdir(parents=True, exist_ok=True)
    from loadtest.rows import write_pool

    write_pool(path, 4_000)
    pool = read_pool(path)
    path.unlink()
    report = {
        "block size": by_block_size(pool),
        "record size": by_record_size(pool),
        "recipients": by_recipients(),
        "datasets and partitions": by_streams(),
    }
    for title, rows in report.items():
        table = Table(*rows[0], title=title)
        for cells in rows:
            table.add_row(*(_text(value) for value in cells.values()))
        console.print(table)
    (_OUT / "growth.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.2f}" if value < 100 else f"{value:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
