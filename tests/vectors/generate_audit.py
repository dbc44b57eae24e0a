"""Write the vectors of audit logs, heads and receipts: one file, one failure.

Run `python tests/vectors/generate_audit.py` from the root. Everything is made from fixed
bytes, so a second run writes the same files; a test compares them. Each vector has:

    comment   what is wrong, in one sentence
    musts     the rules of docs/format.md that it is about
    kind      log | head | receipt
    expect    `success`, or for a log the number of the first wrong line in the file
    reason    the Reason of the refusal of a head or receipt; empty otherwise
    given     keys and names that a verifier has
    lines     of a log, as text; `heads`: line number to hash; `part` for a part of a log
    key, value  of a record, hexadecimal
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from fabric.attest import audit_head as heads
from fabric.attest import cose
from fabric.attest.audit_chain import Link, read_line, write_line
from fabric.attest.keys import Alg, SigningKey
from fabric.model import canonical
from fabric.model.change import ZERO
from fabric.model.change import Sequence as ChangeSequence
from fabric.seal import receipt as receipts
from tests.fakes.sealing import NOW, STREAM, TRUST_DOMAIN, Party, fixed

FOLDER = Path(__file__).parent / "audit"
A, B = Party.make("G01/registry/a1"), Party.make("G02/health/b1")
VERIFIER = SigningKey.from_private_bytes(Alg.ED25519, fixed("audit verifier"))
LOG = fixed("audit log", 16)
TIME = "2026-11-24T08:00:00.250+00:00"
Vector = dict[str, Any]
VECTORS: dict[str, Vector] = {}


def log(
    name: str,
    lines: Sequence[bytes],
    expect: int | str,
    *musts: str,
    comment: str,
    signed: dict[int, bytes] | None = None,
    part: bool = False,
) -> None:
    VECTORS[f"log-{name}"] = {
        "comment": comment,
        "musts": [f"MUST-{number}" for number in musts],
        "kind": "log",
        "expect": expect,
        "reason": "",
        "given": {},
        "lines": [line.decode() for line in lines],
        "heads": {str(number): digest.hex() for number, digest in (signed or {}).items()},
        "part": part,
    }


def record(
    kind: str,
    name: str,
    made: tuple[bytes, bytes],
    *musts: str,
    reason: str = "",
    comment: str,
    host: Party = B,
) -> None:
    key, value = made
    VECTORS[f"{kind}-{name}"] = {
        "comment": comment,
        "musts": [f"MUST-{number}" for number in musts],
        "kind": kind,
        "expect": "refused" if reason else "success",
        "reason": reason,
        "given": {
            "trust_domain": TRUST_DOMAIN,
            "verifier": [int(VERIFIER.public.alg), VERIFIER.public.data.hex()],
            "host": str(host.host),
            "result": host.result.id.hex(),
            "keys": [[k.use.value, int(k.alg), k.data.hex()] for k in host.result.keys],
        },
        "key": key.hex(),
        "value": value.hex(),
    }


def written(count: int, log_id: bytes = LOG) -> list[bytes]:
    lines: list[bytes] = []
    before: Link | None = None
    for n in range(count):
        event = "record_refused" if n else "log_began"
        fields: dict[str, str | int] = {"reason": "replayed", "n": n} if n else {}
        line, before = write_line(before, log_id, time=TIME, event=event, fields=fields)
        lines.append(line)
    return lines


def after(line: bytes, event: str, log_id: bytes = LOG, **fields: str | int) -> bytes:
    return write_line(read_line(line).link, log_id, time=TIME, event=event, fields=fields)[0]


def hash_of(line: bytes) -> bytes:
    return read_line(line).hash


def hashed(body: str) -> bytes:
    """A line whose hash fits, whatever its body holds."""
    from fabric.attest.audit_chain import _digest

    return f'{body[:-1]},"hash":"{_digest(body.encode()).hex()}"}}'.encode()


def body_of(line: bytes) -> str:
    return line[: line.rindex(b',"hash":')].decode() + "}"


def logs() -> None:
    good = written(6)
    log("good", good, "success", "12.1", "12.2", "12.3", "12.4", comment="six lines")
    log("good-signed", good, "success", "12.5", comment="a head for line 4",
        signed={4: hash_of(good[3])})  # fmt: skip
    log("good-part", good[2:], "success", "12.6", comment="a part, looked at alone", part=True)
    dropped = [*good[2:], after(good[-1], "file_dropped", last=2)]
    log("good-dropped", dropped, "success", "12.6", comment="the log says that 1 and 2 are deleted")
    log("edited", [*good[:3], good[3].replace(b'"n":3', b'"n":8'), *good[4:]], 4, "12.3",
        comment="line 4 has another field")  # fmt: skip
    again = after(good[2], "record_refused", n=8, reason="replayed")
    log("edited-hash-fits", [*good[:3], again, *good[4:]], 4, "12.4",
        comment="line 4 has another field and the hash that fits")  # fmt: skip
    log("removed", [*good[:3], *good[4:]], 4, "12.4", comment="line 4 was taken out")
    log("removed-first", good[2:], 1, "12.6", comment="lines 1 and 2 were taken out")
    forged = after(good[2], "record_refused", reason="forged")
    log("inserted", [*good[:3], forged, *good[3:]], 4, "12.4", comment="a line was put in")
    log("repeated", [*good[:5], good[2], good[5]], 6, "12.4", comment="line 3 stands twice")
    signed = {3: hash_of(good[2]), 6: hash_of(good[5])}
    log("truncated", good[:4], 5, "12.5", comment="a head names line 6", signed=signed)
    anew = [*good[:4]]
    for _ in range(2):
        anew.append(after(anew[-1], "record_refused", reason="harmless"))
    log("written-anew", anew, 6, "12.5", comment="lines 5 and 6 are others", signed=signed)
    other = after(good[-1], "record_refused", fixed("other log", 16))
    log("other-log", [*good, other], 7, "12.4", comment="line 7 is of another log")
    n, reason, number, log_id = '"n":1', '"reason":"replayed"', '"number":2', f'"log":"{LOG.hex()}"'
    for name, change in {
        "space": lambda b: b.replace('"number":2', '"number": 2'),
        "fraction": lambda b: b.replace('"number":2', '"number":2.0'),
        "exponent": lambda b: b.replace('"n":1', '"n":1e0'),
        "true": lambda b: b.replace('"n":1', '"n":true'),
        "null": lambda b: b.replace('"n":1', '"n":null'),
        "array": lambda b: b.replace('"n":1', '"n":[1]'),
        "large": lambda b: b.replace('"n":1', f'"n":{2**63}'),
        "twice": lambda b: b.replace('"n":1', '"n":1,"n":1'),
        "unsorted": lambda b: b.replace(f"{{{n},{reason}}}", f"{{{reason},{n}}}"),
        "name": lambda b: b.replace('"n":1', '"N":1'),
        "escape": lambda b: b.replace("replayed", "repl\\u0061yed"),
        "raw-character": lambda b: b.replace("replayed", "répété"),
        "text-long": lambda b: b.replace("replayed", "x" * 501),
        "time": lambda b: b.replace("+00:00", "Z"),
        "upper-case": lambda b: b.replace(LOG.hex(), LOG.hex().upper()),
        "member-more": lambda b: b.replace('{"log"', '{"more":1,"log"'),
        "member-order": lambda b: b.replace(f"{log_id},{number}", f"{number},{log_id}"),
        "event": lambda b: b.replace("record_refused", "record refused"),
    }.items():  # fmt: skip
        body = body_of(good[1])
        assert change(body) != body, name
        rule = "12.1" if name in ("name", "text-long", "time", "member-more", "event") else "12.2"
        lines = [good[0], hashed(change(body)), *good[2:]]
        log(f"line-{name}", lines, 2, rule, comment=f"line 2 is not of its form: {name}")


def head(**changes: Any) -> heads.Head:
    known: dict[str, Any] = {
        "component": "verifier",
        "link": Link(log=LOG, number=6, hash=hash_of(written(6)[-1])),
        "at": NOW,
    }
    return heads.Head(**{**known, **changes})


def signed_map(
    kind: str, protected: bytes, content: dict[int, Any], signers: Sequence[SigningKey]
) -> bytes:
    return cose.sign(kind, protected, canonical.encode(content), signers)


def head_records() -> None:
    key, value = heads.head_record(head(), [VERIFIER])
    content = canonical.decode(cose.parse(value).payload)
    assert isinstance(content, dict)
    record("head", "good", (key, value), "12.7", "12.8", comment="the authority's head")

    def changed(name: str, number: int, made: Any, comment: str) -> None:
        broken = dict(content)
        if made is None:
            del broken[number]
        else:
            broken[number] = made
        value = signed_map(heads.KIND, heads._PROTECTED, broken, [VERIFIER])
        record("head", name, (key, value), "12.7", reason="malformed", comment=comment)

    changed("version-2", 0, 2, "version is 2")
    changed("number-zero", 3, 0, "lines are numbered from 1")
    changed("hash-short", 4, bytes(31), "hash is 31 bytes")
    changed("with-result", 6, bytes(16), "the authority has no result")
    changed("with-certificate", 7, b"x", "the authority shows no certificate")
    changed("without-time", 5, None, "time is missing")
    changed("unknown-key", 8, 1, "key 8 is unknown")
    changed("component-admin", 1, "admin", "component is neither host, verifier nor gateway")
    changed("other-key", 2, bytes(16), "the record stands under another log's key")
    wrong = signed_map("heartbeat", heads._PROTECTED, content, [VERIFIER])
    record("head", "other-domain", (key, wrong), "12.8", reason="bad_signature",
           comment="signed as a heartbeat")  # fmt: skip
    forged = signed_map(heads.KIND, heads._PROTECTED, content, A.signers)
    record("head", "signed-by-a-host", (key, forged), "12.8", reason="bad_signature",
           comment="a host signed for the authority")  # fmt: skip


def receipt(**changes: Any) -> receipts.Receipt:
    known = receipts.Receipt(
        reader=B.host.spiffe(TRUST_DOMAIN),
        result_id=B.result.id,
        suite="classic",
        stream=STREAM,
        after=ZERO,
        upto=ChangeSequence(1, 100, 3),
        blocks=(receipts.Received(epoch_id=fixed("e"), counter=0, hash=fixed("h")),),
        applied=NOW,
        policy_version=7,
    )
    return replace(known, **changes)


def receipt_records() -> None:
    good = receipt()
    key = receipts.receipt_key(B.host, STREAM)
    value = receipts.write_receipt(good, B.signers)
    content = receipts._content(good)
    record("receipt", "good", (key, value), "13.1", "13.2", "13.3", "13.4", comment="one block")

    def changed(name: str, number: int, made: Any, comment: str) -> None:
        broken: dict[int, Any] = dict(content)
        if made is None:
            del broken[number]
        else:
            broken[number] = made
        value = signed_map(receipts.KIND, receipts._PROTECTED, broken, B.signers)
        record("receipt", name, (key, value), "13.2", reason="malformed", comment=comment)

    changed("version-2", 0, 2, "version is 2")
    changed("reader-plain", 1, str(B.host), "reader is no SPIFFE id")
    changed("result-short", 2, bytes(15), "result id is 15 bytes")
    changed("suite-upper", 3, "CLASSIC", "suite is no name part")
    changed("topic-without-level", 4, "G01.notes", "topic has no level")
    changed("partition-large", 5, 2**31, "partition is above 2^31 - 1")
    changed("after-two", 7, [0, 0], "after has two numbers")
    changed("range-backwards", 7, [1, 100, 4], "after lies behind upto")
    changed("no-block", 9, [], "no envelope is named")
    changed("block-of-two", 9, [[fixed("e"), 0]], "a block without its hash")
    changed("counter-large", 9, [[fixed("e"), 1_000_000, fixed("h")]], "counter above its limit")
    changed("time-10000", 10, 253_402_300_800_000, "time in the year 10000")
    changed("without-policy", 11, None, "policy version is missing")
    changed("unknown-key", 12, 1, "key 12 is unknown")
    wrong = signed_map("grant", receipts._PROTECTED, content, B.signers)
    record("receipt", "other-domain", (key, wrong), "13.1", reason="bad_signature",
           comment="signed as a grant")  # fmt: skip
    named = signed_map(receipts.KIND, canonical.encode({16: "grant"}), content, B.signers)
    record("receipt", "is-a-grant", (key, named), "13.1", reason="malformed",
           comment="it calls itself a grant")  # fmt: skip
    forged = signed_map(receipts.KIND, receipts._PROTECTED, content, A.signers)
    record("receipt", "signed-by-another", (key, forged), "13.3", reason="bad_signature",
           comment="another host signed")  # fmt: skip
    other = receipts.write_receipt(receipt(reader=A.host.spiffe(TRUST_DOMAIN)), B.signers)
    record("receipt", "of-another", (key, other), "13.4", reason="identity_mismatch",
           comment="the reader is not the result's host")  # fmt: skip


def make_all() -> dict[str, Vector]:
    """Every vector by name."""
    VECTORS.clear()
    parts: tuple[Callable[[], None], ...] = (logs, head_records, receipt_records)
    for part in parts:
        part()
    return VECTORS


def text_of(made: Vector) -> str:
    """The file's text."""
    return json.dumps(made, indent=1) + "\n"


def main() -> None:
    """Write every file anew."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, made in make_all().items():
        (FOLDER / f"{name}.json").write_text(text_of(made))


if __name__ == "__main__":
    main()
