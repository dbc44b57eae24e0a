"""Freeze one suite of this release: `python -m tests.vectors.freeze hybrid`, once and never again.

A frozen file holds all that a reader got from this release and its private key: the verifier's
anchors, the result, an epoch start, a grant, envelopes, and the rows that must come out. Later
code must open it for ever, so it is not made again: this refuses to write over a file, and
MANIFEST holds the digests that a test compares. Formats that change before a release is out
freeze anew: delete the file, run this, and say so in the commit.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from fabric.attest.result import encode
from fabric.model.block import Block
from fabric.model.change import ZERO, Op, Run, Sequence
from fabric.seal.epoch import parse_start, verify_start
from fabric.seal.grant import GrantDraft, grant
from fabric.seal.sealing import Link
from tests.fakes.sealing import NOTES, NOW, STREAM, TRUST_DOMAIN, Party
from tests.fakes.verifier import Verifier

FOLDER = Path(__file__).parent / "frozen"
MANIFEST = FOLDER / "MANIFEST"
RELEASE = "0.1.0"


def blocks() -> tuple[Block, Block, Block]:
    """Upserts, then a delete and a mark, then a sign of life: a chain of three."""
    upserts = Run(
        op=Op.UPSERT,
        position=10,
        ordinal=1,
        commit_us=1_700_000_000_000_000,
        rows=[{"id": 1, "text": "một"}, {"id": -(2**63), "text": ""}],
    )
    delete = Run(op=Op.DELETE, position=20, ordinal=1, commit_us=1, rows=[{"id": 1}])
    mark = Run(op=Op.SNAPSHOT_END, position=20, ordinal=2, commit_us=1, rows=[])
    first, second, third = Sequence(1, 10, 2), Sequence(1, 20, 2), Sequence(1, 30, 0)
    return (
        Block(stream=STREAM, after=ZERO, upto=first, runs=(upserts,)),
        Block(stream=STREAM, after=first, upto=second, runs=(delete, mark)),
        Block(stream=STREAM, after=second, upto=third, runs=()),
    )


def frozen(suite: str) -> dict[str, Any]:
    """Everything of one suite, made with fresh randomness where the suite draws it."""
    verifier = Verifier()
    sender = Party.make("G01/registry/a1", suite)
    reader, late = Party.make("G02/health/b1", suite), Party.make("G03/statistics/c1", suite)
    # A result carries whole seconds; NOW has a fraction, so its times are cut here.
    whole = {
        name: getattr(sender.result, name).replace(microsecond=0) for name in ("issued", "expires")
    }
    result = replace(sender.result, **whole)
    started = sender.start(sender.draft(), [reader])
    envelopes, last = [], Link(counter=0, previous=bytes(32))
    for number, (block, coding) in enumerate(zip(blocks(), ("zstd", "none", "zstd"), strict=True)):
        stamp = sender.stamp(coding=coding, padding=number != 1)
        made = sender.seal(block, started, link=last, stamp=stamp)
        envelopes.append(made.data)
        last = Link(counter=number + 1, previous=made.hash)
    (granted,) = grant(
        GrantDraft(
            granter=sender.host,
            result_id=result.id,
            policy_version=7,
            revocation_number=3,
            granted=NOW,
        ),
        verify_start(parse_start(started.value), sender.result, TRUST_DOMAIN),
        sender.secret(),
        recipients=[(late.host, late.key.public)],
        signers=sender.signers,
    )
    return {
        "release": RELEASE,
        "suite": suite,
        "trust_domain": TRUST_DOMAIN,
        "verifier_keys": [[alg, key.hex()] for alg, key in verifier.trust.verifier_keys],
        "schema": json.dumps(NOTES.declared),
        "schema_key": list(NOTES.key),
        "readers": {
            name: {
                "host": str(who.host),
                "kem": int(who.key.kem),
                "key": who.key.private_bytes().hex(),
            }
            for name, who in (("named", reader), ("late", late))
        },
        "result": encode(result, TRUST_DOMAIN, verifier.signers).hex(),
        "start": started.value.hex(),
        "grant": granted.hex(),
        "envelopes": [data.hex() for data in envelopes],
        "opened": [_shown(block) for block in blocks()],
    }


def _shown(block: Block) -> dict[str, Any]:
    """A block as JSON: its range and its runs."""
    runs = [
        [run.op.name, run.position, run.ordinal, run.commit_us, list(run.rows)]
        for run in block.runs
    ]
    return {"after": list(block.after), "upto": list(block.upto), "runs": runs}


def main(suite: str) -> None:
    """Write the file of a suite and its line of the manifest."""
    path = FOLDER / f"{RELEASE}-{suite}.json"
    if path.exists():
        raise SystemExit(f"{path.name} is frozen; later code must open it as it is")
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(frozen(suite), indent=1, ensure_ascii=False) + "\n")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with MANIFEST.open("a") as manifest:
        manifest.write(f"{digest}  {path.name}\n")


if __name__ == "__main__":
    main(sys.argv[1])
