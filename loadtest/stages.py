"""Where the time of a record goes, stage by stage: sealing, the gateway's look, opening.

    python -m loadtest.stages

CPU time of one process, per record, for blocks of a few sizes and each suite. It calls
the parts of `seal` and `open_` one by one, so that their sum can be held against the whole.
"""

import json
import sys
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from rich.console import Console
from rich.table import Table

from fabric.attest import cose
from fabric.attest.keys import Alg, Use, of_use
from fabric.gateway import wire
from fabric.model.block import pack, unpack
from fabric.model.change import Row
from fabric.model.columns import join, pack_all, split, unpack_all
from fabric.seal import envelope as form
from fabric.seal import plaintext
from fabric.seal.sealing import prepare
from fabric.seal.verify import verify
from loadtest.growth import _SCHEMA, _TRUST_DOMAIN, Party, block_of, cpu_us
from loadtest.rows import read_pool, write_pool

_OUT = Path(__file__).parent / "out"
_SIZES = (10, 1_000, 4_000)


def stages(suite: str, rows: list[Row]) -> dict[str, float]:
    """CPU microseconds per record of each stage, and of the wholes."""
    party, block = Party(suite), block_of(rows)
    sealed = party.seal(block)
    envelope = form.parse(sealed.data)
    plain = pack(block, _SCHEMA)
    padded, coding = plaintext.encode(plain, "zstd", True)
    datum: Any = fastavro.schemaless_reader(BytesIO(plain), _SCHEMA.block_codec, None)
    opened = partial(unpack, stream=block.stream, after=block.after, upto=block.upto)
    keys = of_use(party.result.keys, Use.SIGN, party.suite.signatures)
    signed = cose.parse(sealed.data)
    works: dict[str, Any] = {
        "seal": lambda: party.seal(block),
        "  rows to columns": lambda: pack_all(split(rows, _SCHEMA.columns)[0], _SCHEMA.columns),
        "  rows to Avro": lambda: pack(block, _SCHEMA),
        "  zstd, padding": lambda: plaintext.encode(plain, "zstd", True),
        "  packing in all": lambda: prepare(block, _SCHEMA, coding="zstd", padding=True),
        "open": lambda: party.open(sealed.data),
        "  parse": lambda: form.parse(sealed.data),
        "  unpad, unzstd": lambda: plaintext.decode(padded, coding),
        "  Avro to rows": lambda: opened(plain, _SCHEMA),
        "  columns to rows": lambda: _joined(datum, len(rows)),
    }
    batch = _batch(sealed.data)
    works["gateway"] = lambda: _look(party, batch)
    works["  batch, CRC"] = lambda: wire.records_of(wire.parse_batch(batch))
    for number, signer in enumerate(party.signers):
        name = Alg(signer.public.alg).name
        works[f"  sign {name}"] = lambda s=signer: s.sign(sealed.data)
        one = (keys[number],)
        alone = cose.Signed(
            protected=signed.protected,
            protected_bytes=signed.protected_bytes,
            payload=signed.payload,
            signatures=(signed.signatures[number],),
        )
        works[f"  verify {name}"] = lambda a=alone, k=one: cose.check(a, form.KIND, k)
    assert envelope.hash == sealed.hash
    order = [*works]
    first = order.index("open")
    signs = [name for name in order if name.startswith("  sign")]
    verifies = [name for name in order if name.startswith("  verify")]
    rest = [name for name in order[first:] if name not in (*signs, *verifies)]
    shown = [*order[:first], *signs, *rest[:-2], *verifies, *rest[-2:]]
    return {name: cpu_us(works[name]) / len(rows) for name in shown}


def _joined(datum: Any, count: int) -> None:
    """What is left once fastavro has read a block."""
    nulls, fields = datum["nulls"], _SCHEMA.columns
    join(unpack_all(datum["rows"], nulls, fields, count), nulls, fields, count)


def _batch(value: bytes) -> bytes:
    """A record batch of one envelope, as an agent sends it."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=0, is_transactional=False, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=2 * len(value) + 1_000,
    )  # fmt: skip
    builder.append(0, timestamp=0, key=None, value=value, headers=[])
    return bytes(builder.build())


def _look(party: Party, batch: bytes) -> None:
    """What the gateway does with a batch, apart from sockets, rights and memory of replays."""
    (record,) = wire.records_of(wire.parse_batch(batch))
    assert record.value is not None
    verify(form.parse(record.value), party.result, _TRUST_DOMAIN)


def main() -> int:
    """Measure, print, write `loadtest/out/stages.json`."""
    path = _OUT / "stages-pool.json"
    _OUT.mkdir(parents=True, exist_ok=True)
    write_pool(path, max(_SIZES))
    pool = read_pool(path)
    path.unlink()
    report = {
        suite: {str(size): stages(suite, pool[:size]) for size in _SIZES}
        for suite in ("classic", "hybrid")
    }
    console = Console(highlight=False)
    for suite, sizes in report.items():
        table = Table("us per record", *(f"{size} a block" for size in sizes), title=suite)
        for name in next(iter(sizes.values())):
            table.add_row(name, *(f"{figures[name]:.2f}" for figures in sizes.values()))
        console.print(table)
    (_OUT / "stages.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
