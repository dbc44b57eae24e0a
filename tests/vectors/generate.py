"""Write the vectors: one file, one failure. Run `python tests/vectors/generate.py` from the root.

Everything is made from fixed bytes, so a second run writes the same files; a test
compares them. ML-DSA, ECDSA and hybrid wraps draw their own randomness, so what uses
them (`KEPT`) is written once and kept. Each vector is self-contained and has:

    comment   what is wrong, in one sentence
    musts     the rules of docs/format.md that it is about
    kind      cbor | envelope | start | grant | chain
    expect    the layer that must object: cbor | cose | header | signature | open |
              block | chain, or `success`
    reason    the Reason with which fabric refuses it; empty for success
    given     keys, secret, schema and names that a reader has
    value     the bytes, hexadecimal (or `records` and `envelopes`, for kind chain)
"""

import hmac
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_private_key

sys.path.insert(0, str(Path(__file__).parents[2]))

from fabric.attest import cose
from fabric.attest.keys import PublicKey, SigningKey
from fabric.model import block as blocks
from fabric.model import canonical
from fabric.model.change import Sequence
from fabric.seal import envelope as form
from fabric.seal import plaintext, record
from fabric.seal.epoch import Head, Started, parse_start, verify_start
from fabric.seal.grant import GrantDraft, grant
from fabric.seal.sealing import Link
from fabric.seal.secret import block_key
from fabric.seal.suites import Kdf
from tests.fakes.sealing import (
    FIRST,
    NOTES,
    NOW,
    ORIGIN,
    TOPIC,
    TRUST_DOMAIN,
    Party,
    block,
    fixed,
)
from tests.vectors import judge

FOLDER = Path(__file__).parent
A, B = Party.make("G01/registry/a1"), Party.make("G02/health/b1")
Vector = dict[str, Any]
VECTORS: dict[str, Callable[[], Vector]] = {}
KEPT: dict[str, Callable[[], Vector]] = {}


def vector(
    expect: str, *musts: str, reason: str = "malformed", kind: str = "envelope", comment: str
) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Register a function that makes the bytes, or the bytes with more fields."""

    def register(make: Callable[[], Any]) -> Callable[[], Any]:
        def full() -> Vector:
            made = make()
            fields = made if isinstance(made, dict) else {"value": made.hex()}
            given = {} if kind == "cbor" else given_of(A)
            return {
                "comment": comment,
                "musts": [f"MUST-{number}" for number in musts],
                "kind": kind,
                "expect": expect,
                "reason": "" if expect == "success" else reason,
                "given": given,
                **fields,
            }

        VECTORS[make.__name__.replace("_", "-")] = full
        return make

    return register


def given_of(party: Party, reader: Party = B) -> dict[str, Any]:
    """What a reader of the party's envelopes knows."""
    return {
        "trust_domain": TRUST_DOMAIN,
        "host": str(party.host),
        "result": party.result.id.hex(),
        "keys": [[key.use.value, int(key.alg), key.data.hex()] for key in party.result.keys],
        "secret": party.secret().private_bytes().hex(),
        "schema": json.dumps(NOTES.declared),
        "schema_key": list(NOTES.key),
        "reader": str(reader.host),
        "reader_kem": int(reader.key.kem),
        "reader_key": reader.key.private_bytes().hex(),
    }


@contextmanager
def fixed_wraps() -> Iterator[None]:
    """Wrap with an ephemeral key made from the input (judge's own HPKE), not a random one."""
    real = record.wrap

    def same(public: PublicKey, secret: bytes, info: bytes) -> bytes:
        return judge.hpke_x25519(fixed(f"ephemeral {info.hex()}"), public.data, info, secret)

    record.wrap = same
    try:
        yield
    finally:
        record.wrap = real


def started(number: int = 1, **changes: Any) -> Started:
    with fixed_wraps():
        return A.start(A.draft(number, **changes), (B,))


def sealed(**changes: Any) -> bytes:
    return A.seal(changes.pop("block", block()), started(), **changes).data


def forge(
    change: Callable[[dict[int, Any]], None] = lambda header: None,
    *,
    header: bytes | None = None,
    padded: Callable[[bytes], bytes] = lambda data: data,
    salt: bool = True,
    payload: Callable[[bytes], bytes] = lambda data: data,
    signers: tuple[SigningKey, ...] = A.signers,
    kind: str = form.KIND,
    aad: Callable[[bytes], bytes] = form.aad,
    protect: Callable[[dict[int, Any]], Any] = lambda header: {judge.HEADER: header},
) -> bytes:
    """Seal as the sender would, but wrong in one place, with salt and signatures that fit."""
    good = sealed()
    content = judge.header_of(good)
    plain = padded(judge.padded_plaintext(good, A.secret().private_bytes()))
    change(content)
    if salt and content.get(21) == judge.header_of(good)[21]:
        content[21] = judge.salt(A.secret().private_bytes(), filled(content), plain)
    protected = canonical.encode(protect(content)) if header is None else header
    full = filled(content)
    info = [full[1], full[9], full[2], full[3], full[12]]
    key = block_key(A.secret(), info, full[21], kdf=Kdf.HKDF_SHA256)
    ciphertext = AESGCM(key).encrypt(bytes(12), plain, aad(protected))
    return cose.sign(kind, protected, payload(form.encrypt0(ciphertext)), signers)


def filled(content: dict[int, Any]) -> dict[int, Any]:
    """The header with the good one's fields where this one has none."""
    return {**judge.header_of(sealed()), **content}


def setting(key: int, value: Any) -> Callable[[dict[int, Any]], None]:
    def change(header: dict[int, Any]) -> None:
        header[key] = value

    return change


def framed(coded: bytes, *, fill: int | None = None) -> bytes:
    size = 4 + len(coded)
    zeros = max(plaintext.padme(size), 4096) - size if fill is None else fill
    return len(coded).to_bytes(4) + coded + bytes(zeros)


def coded(plain: bytes) -> bytes:
    return bytes(zstandard.ZstdCompressor(level=3).compress(plain))


def with_plain(plain: bytes, **changes: Any) -> bytes:
    return forge(padded=lambda _: framed(coded(plain)), **changes)


def by_column(rows: list[Any]) -> dict[str, Any]:
    """The rows of a datum, from docs/format.md section 4; no field of a note may be null."""
    numbers = b"".join(row["id"].to_bytes(8, "little", signed=True) for row in rows)
    texts = "\0".join(row["text"] for row in rows)
    return {"nulls": [], "rows": {"id": numbers, "text": texts}, "keys": {"id": b""}}


def datum(**changes: Any) -> bytes:
    """Avro bytes of the good block with one run changed behind pack's back."""
    from io import BytesIO

    import fastavro

    good = block()
    run = {**blocks._run_datum(good.runs[0]), **changes.pop("run", {})}
    out = BytesIO()
    value = by_column(changes.pop("of", good.runs[0].rows))
    fastavro.schemaless_writer(out, NOTES.block_codec, {"runs": [run], **value, **changes})
    return out.getvalue()


# --- section 2: canonical CBOR ---------------------------------------------------------------


def cbor(name: str, must: str, comment: str, data: str) -> None:
    def make() -> bytes:
        return bytes.fromhex(data)

    make.__name__ = f"cbor_{name}"
    vector("cbor", must, kind="cbor", comment=comment)(make)


def good_cbor(name: str, *musts: str, comment: str, data: str) -> None:
    def make() -> bytes:
        return bytes.fromhex(data)

    make.__name__ = f"cbor_good_{name}"
    vector("success", *musts, kind="cbor", comment=comment)(make)


good_cbor(
    "types",
    "2.1",
    "2.3",
    "2.4",
    "2.6",
    comment="the least and greatest integers, bytes, a text of two bytes, an array, a map",
    data="86" + "3a0001ffff" + "1bffffffffffffffff" + "4100" + "62c3bc" + "80" + "a0",
)
good_cbor(
    "keys",
    "2.2",
    comment="map keys in bytewise order of their encodings: 1, 24, 65536, -1, -131072",
    data="a5" + "0100" + "181800" + "1a0001000000" + "2000" + "3a0001ffff00",
)
good_cbor("deep", "2.5", comment="eight arrays in each other", data="81" * 7 + "80")
cbor("float", "2.4", "a float", "f93c00")
cbor("boolean", "2.4", "a boolean", "f5")
cbor("null", "2.4", "null inside an array", "81f6")
cbor("undefined", "2.4", "undefined", "f7")
cbor("tag", "2.4", "a tag inside an array", "81c001")
cbor("bignum", "2.4", "an integer as a bignum tag", "c24101")
cbor("negative_out_of_range", "2.1", "an integer below -2^17", "3a00020000")
cbor("text_not_utf8", "2.1", "a text string that is not UTF-8", "62c328")
cbor("key_text", "2.2", "a text string as map key", "a1616101")
cbor("key_out_of_range", "2.2", "a map key above 2^16", "a11a0001000100")
cbor("keys_out_of_order", "2.2", "map keys in falling order", "a202000100")
cbor("keys_by_length", "2.2", "map keys in RFC 7049 order: -1 before 24", "a22000181800")
cbor("key_twice", "2.2", "a map key twice", "a201000101")
cbor("integer_long", "2.3", "1 in two bytes", "1801")
cbor("length_long", "2.3", "a byte string's length in two bytes", "580100")
cbor("array_indefinite", "2.3", "an array of indefinite length", "9f01ff")
cbor("map_indefinite", "2.3", "a map of indefinite length", "bf0100ff")
cbor("bytes_indefinite", "2.3", "a byte string of indefinite length", "5f4101ff")
cbor("text_indefinite", "2.3", "a text string of indefinite length", "7f6161ff")
cbor("too_deep", "2.5", "nine arrays in each other", "81" * 8 + "80")
cbor("trailing", "2.6", "a byte after the value", "0100")
cbor("truncated", "2.6", "an array that ends early", "8201")
cbor("empty", "2.6", "no value at all", "")
cbor("huge_length", "2.6", "a byte string that claims 2^62 bytes", "5b400000000000000000")


# --- section 3: COSE_Sign --------------------------------------------------------------------


def body(change: Callable[[list[Any]], None]) -> bytes:
    """The good envelope with its COSE_Sign array changed."""
    array: list[Any] = list(canonical.decode(sealed()[2:]))  # type: ignore[arg-type]
    change(array)
    return b"\xd8\x62" + canonical.encode(array)


@vector("cose", "3.1", comment="the COSE_Sign has no tag")
def cose_untagged() -> bytes:
    return sealed()[2:]


@vector("cose", "3.1", comment="the tag is COSE_Sign1's")
def cose_sign1() -> bytes:
    return b"\xd2" + sealed()[2:]


@vector("cose", "3.1", comment="the tag is written in three bytes")
def cose_tag_long() -> bytes:
    return b"\xd9\x00\x62" + sealed()[2:]


@vector("cose", "3.2", comment="a fifth element follows the signatures")
def cose_five_elements() -> bytes:
    return body(lambda array: array.append(b""))


@vector("cose", "3.2", comment="there is no signature")
def cose_no_signature() -> bytes:
    return body(lambda array: array[3].clear())


@vector("cose", "3.2", comment="there are nine signatures")
def cose_nine_signatures() -> bytes:
    return body(lambda array: array[3].extend(array[3] * 8))


@vector("cose", "3.3", comment="the body's unprotected map holds a key id")
def cose_unprotected() -> bytes:
    return body(lambda array: array[1].update({4: b"kid"}))


@vector("cose", "3.3", comment="a signature's unprotected map holds a key id")
def cose_signature_unprotected() -> bytes:
    return body(lambda array: array[3][0][1].update({4: b"kid"}))


@vector("cbor", "3.3", "2.2", comment="the protected map's keys are out of order")
def cose_protected_not_canonical() -> bytes:
    return forge(header=b"\xa2\x01\x00\x00\x00")


@vector("cose", "3.3", comment="the protected bucket is an array")
def cose_protected_array() -> bytes:
    return forge(header=b"\x80")


@vector("signature", "3.4", reason="bad_signature", comment="kid names another key")
def signature_other_kid() -> bytes:
    def change(array: list[Any]) -> None:
        array[3][0][0] = canonical.encode({1: -19, 4: B.signers[0].public.thumbprint})

    return body(change)


@vector("signature", "3.4", reason="bad_signature", comment="the algorithm is EdDSA (-8)")
def signature_other_algorithm() -> bytes:
    def change(array: list[Any]) -> None:
        array[3][0][0] = canonical.encode({1: -8, 4: A.signers[0].public.thumbprint})

    return body(change)


@vector("signature", "3.5", "5.13", reason="bad_signature", comment="the signature stands twice")
def signature_twice() -> bytes:
    return body(lambda array: array[3].extend(array[3]))


@vector("signature", "3.5", "5.13", reason="bad_signature", comment="another host signed")
def signature_of_another_host() -> bytes:
    return forge(signers=B.signers)


@vector("signature", "3.6", reason="bad_signature", comment="signed as an epoch start")
def signature_other_domain() -> bytes:
    return forge(kind="epoch-start")


@vector("signature", "3.6", reason="bad_signature", comment="one bit of the signature is changed")
def signature_changed() -> bytes:
    data = bytearray(sealed())
    data[-1] ^= 1
    return bytes(data)


@vector("signature", "3.6", reason="bad_signature", comment="one bit of the ciphertext is changed")
def ciphertext_changed() -> bytes:
    data = bytearray(sealed())
    data[-200] ^= 1
    return bytes(data)


@vector("signature", "3.6", reason="bad_signature", comment="the counter is changed after signing")
def header_changed_after_signing() -> bytes:
    def change(array: list[Any]) -> None:
        header = judge.header_of(sealed())
        header[12] = 1
        array[0] = canonical.encode({judge.HEADER: header})

    return body(change)


# --- section 4: the plaintext ----------------------------------------------------------------

OPEN = "open_failed"


@vector("block", "4.1", reason=OPEN, comment="a byte follows the Avro datum")
def block_trailing_byte() -> bytes:
    return with_plain(datum() + b"\x00")


@vector("block", "4.1", reason=OPEN, comment="the Avro datum ends early")
def block_truncated() -> bytes:
    return with_plain(datum()[:-1])


@vector("block", "4.2", reason=OPEN, comment="a run has the operation 6")
def block_unknown_operation() -> bytes:
    return with_plain(datum(run={"op": 6}))


@vector("block", "4.2", reason=OPEN, comment="a run has no change")
def block_empty_run() -> bytes:
    return with_plain(datum(run={"count": 0}, of=[]), change=setting(18, 0))


@vector("block", "4.2", reason=OPEN, comment="a mark claims two changes")
def block_mark_of_two() -> bytes:
    return with_plain(datum(run={"op": 2, "count": 2}, of=[]), change=setting(18, 2))


@vector("block", "4.2", reason=OPEN, comment="an ordinal is 0")
def block_ordinal_zero() -> bytes:
    return with_plain(datum(run={"ordinal": 0}))


@vector("block", "4.2", reason=OPEN, comment="a run claims more rows than there are")
def block_rows_missing() -> bytes:
    return with_plain(datum(run={"count": 4}), change=setting(18, 4))


@vector("block", "4.2", reason=OPEN, comment="a row belongs to no run")
def block_rows_left_over() -> bytes:
    return with_plain(datum(run={"count": 2}), change=setting(18, 2))


@vector("block", "4.10", reason=OPEN, comment="a column is one value short")
def block_column_short() -> bytes:
    return with_columns(text="note 0 of 100\0note 1 of 100")


def with_columns(**changed: Any) -> bytes:
    """The good block's three notes, with one column written otherwise."""
    return with_plain(datum(rows={**by_column(block().runs[0].rows)["rows"], **changed}))


@vector("block", "4.13", reason=OPEN, comment="a column of numbers ends within one")
def block_number_cut() -> bytes:
    return with_columns(id=by_column(block().runs[0].rows)["rows"]["id"][:-1])


@vector("block", "4.13", reason=OPEN, comment="a column holds one number more than there are rows")
def block_number_too_many() -> bytes:
    return with_columns(id=by_column(block().runs[0].rows)["rows"]["id"] + bytes(8))


@vector("block", "4.14", reason=OPEN, comment="a text has a separator more than rows want")
def block_text_too_many() -> bytes:
    return with_columns(text="note 0 of 100\0note 1 of 100\0note 2 of 100\0")


@vector("block", "4.14", reason=OPEN, comment="texts without a separator stand in an array")
def block_text_in_array() -> bytes:
    return with_columns(text=[row["text"] for row in block().runs[0].rows])


def in_array(column: bytes) -> bytes:
    """The good block's three notes, with these bytes as the array of texts."""
    good = datum(rows={**by_column(block().runs[0].rows)["rows"], "text": ""})
    return with_plain(good[: -len(NO_TEXT)] + b"\x02" + column + NO_TEXT[2:])


NO_TEXT = b"\x00\x00\x00"
"""An empty column of texts, the index of its branch first, and the column of no keys."""


@vector("block", "4.10", reason=OPEN, comment="an array claims more texts than there are rows")
def block_array_too_long() -> bytes:
    return in_array(bytes([8]) + b"\x02\x00" * 4 + b"\x00")


@vector("block", "4.11", reason=OPEN, comment="the texts are written as two blocks of Avro's")
def block_array_in_two_pieces() -> bytes:
    return in_array(b"\x02\x02\x00" + b"\x04\x02a\x02b" + b"\x00")


@vector("block", "4.11", reason=OPEN, comment="an array's count is negative, with its size")
def block_array_count_negative() -> bytes:
    return in_array(b"\x05\x0c" + b"\x02\x00" * 3 + b"\x00")


@vector("block", "4.17", reason=OPEN, comment="an array's count, 3, is written in two bytes")
def block_count_long() -> bytes:
    return in_array(b"\x86\x00" + b"\x02\x00" * 3 + b"\x00")


@vector("block", "4.17", reason=OPEN, comment="a union's index, 0, is written in two bytes")
def block_index_long() -> bytes:
    good = datum(rows={**by_column(block().runs[0].rows)["rows"], "text": ""})
    return with_plain(good[: -len(NO_TEXT)] + b"\x80" + NO_TEXT)


@vector("block", "4.10", reason=OPEN, comment="nulls of a field that may not be null")
def block_nulls_of_no_field() -> bytes:
    return with_plain(datum(nulls=[[0]]))


@vector("block", "4.11", reason=OPEN, comment="the runs are written as two blocks of Avro's")
def block_runs_in_two_pieces() -> bytes:
    first = {**blocks._run_datum(block().runs[0]), "count": 1}
    second = {**first, "count": 2, "ordinal": 2}
    whole = datum(runs=[first, second])
    size = len(datum(runs=[first])) - len(datum(runs=[])) - 1
    return with_plain(b"\x02" + whole[1 : 1 + size] + b"\x02" + whole[1 + size :])


@vector("block", "4.11", reason=OPEN, comment="a negative count, with the size of its block")
def block_count_negative() -> bytes:
    good = datum()
    size = len(good) - len(datum(runs=[])) - 1
    return with_plain(b"\x01" + bytes([size * 2]) + good[1:])


def with_steps(*steps: int, array: Callable[[bytes], bytes] = bytes) -> bytes:
    """The good block's three notes, followed by steps, in a range that has room for them."""
    numbers = b"".join(bytes([step * 2 if step >= 0 else -step * 2 - 1]) for step in steps)
    plain = datum() + array(bytes([len(steps) * 2]) + numbers + b"\x00")
    return with_plain(plain, change=setting(16, [100, 9]))


@vector("block", "4.12", reason=OPEN, comment="two steps are due, and one is there")
def block_steps_missing() -> bytes:
    return with_steps(2)


@vector("block", "4.12", reason=OPEN, comment="two steps are due, and three are there")
def block_steps_left_over() -> bytes:
    return with_steps(2, 2, 2)


@vector("block", "4.12", reason=OPEN, comment="a step goes back")
def block_step_back() -> bytes:
    return with_steps(4, -1)


@vector("block", "4.12", reason=OPEN, comment="every step is 1, which goes without saying")
def block_steps_of_one() -> bytes:
    return with_steps(1, 1)


@vector("block", "4.12", reason=OPEN, comment="the steps are written as two blocks of Avro's")
def block_steps_in_two_pieces() -> bytes:
    return with_steps(2, 3, array=lambda _: b"\x02\x04\x02\x06\x00")


@vector("block", "4.1", reason=OPEN, comment="a byte follows the steps")
def block_byte_after_steps() -> bytes:
    return with_steps(2, 3, array=lambda good: good + b"\x00")


@vector("block", "4.3", reason=OPEN, comment="a change lies at the block's start")
def block_change_before_start() -> bytes:
    return forge(setting(15, [1, 100, 1]))


@vector("block", "4.3", reason=OPEN, comment="a change lies after the block's end")
def block_change_after_end() -> bytes:
    return forge(setting(16, [100, 2]))


@vector("block", "4.4", reason=OPEN, comment="the header counts one change too many")
def block_other_count() -> bytes:
    return forge(setting(18, 4))


@vector("block", "4.5", reason=OPEN, comment="the zstd frame does not state its content size")
def coding_without_size() -> bytes:
    frame = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(datum())
    return forge(padded=lambda _: framed(frame))


@vector("block", "4.5", reason=OPEN, comment="two zstd frames follow each other")
def coding_two_frames() -> bytes:
    plain = datum()
    return forge(padded=lambda _: framed(coded(plain[:9]) + coded(plain[9:])))


@vector("block", "4.5", reason=OPEN, comment="the header says zstd, the plaintext is not coded")
def coding_not_zstd() -> bytes:
    return forge(padded=lambda _: framed(datum()))


@vector("block", "4.5", reason=OPEN, comment="the header says none, the plaintext is zstd")
def coding_not_none() -> bytes:
    return forge(setting(19, "none"))


@vector("block", "4.6", reason=OPEN, comment="a zstd frame expands more than 200 times")
def coding_bomb() -> bytes:
    return forge(padded=lambda _: framed(coded(bytes(1_000_000))))


@vector("block", "4.7", reason=OPEN, comment="one zero byte more than the Padme length")
def padding_one_more() -> bytes:
    return forge(padded=lambda data: data + b"\x00")


@vector("block", "4.7", reason=OPEN, comment="the length says more than there is")
def padding_length_too_long() -> bytes:
    return forge(padded=lambda data: b"\xff" + data[1:])


@vector("block", "4.7", reason=OPEN, comment="the plaintext is shorter than its length field")
def padding_no_length() -> bytes:
    return forge(padded=lambda _: b"\x00\x00")


@vector("block", "4.8", reason=OPEN, comment="the last byte of the padding is not zero")
def padding_not_zero() -> bytes:
    return forge(padded=lambda data: data[:-1] + b"\x01")


# --- section 5: the envelope -----------------------------------------------------------------


@vector("header", "5.1", comment="the header's fields stand in the bucket itself")
def header_bare() -> bytes:
    return forge(protect=lambda header: header)


@vector("header", "5.1", comment="the bucket holds an algorithm beside the header")
def header_with_company() -> bytes:
    return forge(protect=lambda header: {1: -19, judge.HEADER: header})


@vector("header", "5.2", comment="a header of 23 keys")
def header_unknown_key() -> bytes:
    return forge(setting(22, 0))


def bad_header(name: str, must: str, comment: str, key: int, value: Any) -> None:
    def make() -> bytes:
        return forge(setting(key, value))

    make.__name__ = f"header_{name}"
    vector("header", must, comment=comment)(make)


def missing_header(key: int) -> None:
    def make() -> bytes:
        return forge(lambda header: header.pop(key))

    make.__name__ = f"header_without_{key}"
    vector("header", "5.2", comment=f"the header has no key {key}")(make)


for absent in range(22):
    missing_header(absent)
LONG = "a" * 64
bad_header("version_2", "5.3", "format version 2", 0, 2)
bad_header("suite_number", "5.3", "the suite is a number", 1, 1)
bad_header("suite_upper", "5.3", "the suite is in capitals", 1, "CLASSIC")
bad_header("topic_without_level", "5.3", "the topic has no level", 2, "G01.notes")
bad_header("topic_bytes", "5.3", "the topic is a byte string", 2, str(TOPIC).encode())
bad_header("topic_long", "5.3", "the dataset's name has 64 characters", 2, f"secret.G01.{LONG}")
bad_header("partition_negative", "5.3", "the partition is negative", 3, -1)
bad_header("partition_large", "5.3", "the partition is 2^31", 3, 2**31)
bad_header("label_unsorted", "5.3", "compartments out of order", 4, "secret+z+a")
bad_header("label_repeated", "5.3", "a compartment twice", 4, "secret+a+a")
bad_header("sender_plain", "5.3", "the sender is no SPIFFE id", 5, "G01/registry/a1")
bad_header("sender_part", "5.3", "a fourth part in the sender", 5, f"{A.draft().sender_id}/x")
bad_header("sender_lower", "5.3", "the agency is in small letters", 5, "spiffe://a.b/g01/r/a1")
bad_header("sender_newline", "5.3", "a line feed in the sender", 5, "spiffe://a.b/G01/r/a1\n")
bad_header("origin_two_parts", "5.3", "the origin has two parts", 6, "G01/registry")
bad_header("result_short", "5.3", "the result id has 15 bytes", 7, bytes(15))
bad_header("policy_huge", "5.3", "the policy version is 2^63", 8, 2**63)
bad_header("epoch_id_short", "5.3", "the epoch id has 31 bytes", 9, bytes(31))
bad_header("epoch_number_text", "5.3", "the epoch number is text", 10, "1")
bad_header("start_long", "5.3", "the epoch start has 33 bytes", 11, bytes(33))
bad_header("counter_large", "5.3", "the counter is 1,000,000", 12, 1_000_000)
bad_header("previous_empty", "5.3", "previous is empty", 13, b"")
bad_header("generation_negative", "5.3", "the generation is negative", 14, -1)
bad_header("after_two", "5.3", "after has two numbers", 15, [0, 0])
bad_header("after_text", "5.3", "after holds text", 15, [0, 0, "0"])
bad_header("upto_three", "5.3", "upto has three numbers", 16, [1, 100, 3])
bad_header("fingerprint_text", "5.3", "the fingerprint is text", 17, "0" * 32)
bad_header("count_large", "5.3", "the count is 10,001", 18, 10_001)
bad_header("coding_gzip", "5.3", "the coding is gzip", 19, "gzip")
bad_header("time_10000", "5.3", "sealed in the year 10000", 20, 253_402_300_800_000)
bad_header("salt_short", "5.3", "the salt has 31 bytes", 21, bytes(31))
bad_header("range_backwards", "5.4", "after lies behind upto", 15, [2, 0, 0])
bad_header("range_empty", "5.4", "an empty range with changes", 15, [1, 100, 3])


def other_payload(name: str, layer: str, comment: str, change: Callable[[bytes], bytes]) -> None:
    def make() -> bytes:
        return forge(payload=change)

    make.__name__ = f"payload_{name}"
    vector(layer, "5.5", comment=comment)(make)


def encrypt0(protected: Any, unprotected: Any, ciphertext: Any) -> bytes:
    return b"\xd0" + canonical.encode([canonical.encode(protected), unprotected, ciphertext])


other_payload("untagged", "cose", "the COSE_Encrypt0 has no tag", lambda data: data[1:])
other_payload("trailing", "cbor", "a byte follows the COSE_Encrypt0", lambda data: data + b"\x00")
other_payload("encrypt", "cose", "the tag is COSE_Encrypt's", lambda data: b"\xd8\x60" + data[1:])
other_payload("gcm_128", "cose", "A128GCM", lambda _: encrypt0({1: 1}, {}, bytes(64)))
other_payload(
    "iv", "cose", "a nonce travels", lambda _: encrypt0({1: 3}, {5: bytes(12)}, bytes(64))
)
other_payload("short", "cose", "15 bytes of ciphertext", lambda _: encrypt0({1: 3}, {}, bytes(15)))
other_payload(
    "plain", "cose", "the payload is an Avro record", lambda _: b"\x00\x00\x00\x00\x01\x02"
)


@vector("open", "5.6", reason=OPEN, comment="the header is not in the additional data")
def open_without_header_in_aad() -> bytes:
    return forge(aad=lambda _: form.aad(b""))


@vector("header", "5.7", comment="a protected bucket of more than 4,096 bytes")
def header_too_long() -> bytes:
    many = "+".join(["secret", *(f"c{number:062d}" for number in range(70))])
    return forge(setting(4, many))


@vector("open", "5.8", "5.11", reason=OPEN, comment="a salt that was not made from the plaintext")
def open_chosen_salt() -> bytes:
    return forge(setting(21, bytes(32)))


@vector("open", "5.8", reason=OPEN, comment="a salt made for another sealed-at time")
def open_salt_of_another_header() -> bytes:
    return forge(lambda header: header.update({20: header[20] + 1}), salt=False)


@vector("open", "5.9", "6.1", reason=OPEN, comment="an epoch id that is not the secret's")
def open_other_epoch_id() -> bytes:
    return forge(setting(9, fixed("another epoch")))


@vector("open", "5.9", "6.1", reason=OPEN, comment="an epoch number that is not the id's")
def open_other_epoch_number() -> bytes:
    return forge(setting(10, 2))


@vector("block", "5.10", "5.11", reason=OPEN, comment="the fingerprint of another schema")
def block_other_fingerprint() -> bytes:
    return forge(setting(17, fixed("another schema")))


@vector("signature", "5.12", reason="identity_mismatch", comment="the sender is another host")
def sender_another_host() -> bytes:
    return forge(setting(5, B.draft().sender_id))


@vector("signature", "5.12", reason="identity_mismatch", comment="another trust domain")
def sender_another_trust_domain() -> bytes:
    return forge(setting(5, f"spiffe://other.example/{A.host}"))


@vector("signature", "5.12", reason="identity_mismatch", comment="another result is named")
def sender_another_result() -> bytes:
    return forge(setting(7, bytes(16)))


@vector("signature", "1.1", "5.13", reason="suite_refused", comment="a suite nobody knows")
def suite_unknown() -> bytes:
    return forge(setting(1, "rot13"))


@vector("signature", "5.13", reason="bad_signature", comment="hybrid with one signature")
def suite_hybrid_half_signed() -> bytes:
    return forge(setting(1, "hybrid"))


def every(section: int, count: int) -> tuple[str, ...]:
    """Every rule of a section."""
    return tuple(f"{section}.{number}" for number in range(1, count + 1))


OBEYED = ("1.1", *every(3, 6), *every(4, 8), "4.10", "4.11", *every(5, 14))


@vector("success", *OBEYED, comment="three notes, zstd, padded")
def envelope_good() -> dict[str, Any]:
    data = sealed()
    return {"value": data.hex(), "hash": judge.envelope_hash(data).hex(), "count": 3}


@vector("success", "4.1", "4.12", comment="three notes of five, as one of two partitions has them")
def envelope_good_steps() -> dict[str, Any]:
    data = with_steps(1, 3)
    return {"value": data.hex(), "hash": judge.envelope_hash(data).hex(), "count": 3}


@vector("success", "4.13", "4.14", comment="three notes, one with a separator: texts in an array")
def envelope_good_separator() -> dict[str, Any]:
    rows = [{"id": i, "text": text} for i, text in enumerate(("a\0b", "", "c"))]
    data = with_columns(**by_column(rows)["rows"] | {"text": [row["text"] for row in rows]})
    return {"value": data.hex(), "hash": judge.envelope_hash(data).hex(), "count": 3}


@vector("success", "4.7", comment="three notes, not coded, not padded")
def envelope_good_plain() -> dict[str, Any]:
    data = sealed(stamp=A.stamp(coding="none", padding=False))
    return {"value": data.hex(), "hash": judge.envelope_hash(data).hex(), "count": 3}


@vector("success", "5.4", comment="a sign of life: no change, and no progress")
def envelope_good_empty() -> dict[str, Any]:
    empty = replace(block(0), after=Sequence(1, 100, 1))
    data = sealed(block=empty)
    return {"value": data.hex(), "hash": judge.envelope_hash(data).hex(), "count": 0}


# --- section 6: epoch starts and grants ------------------------------------------------------


def manifest(
    change: Callable[[dict[int, Any]], None] = lambda content: None,
    *,
    value: bytes | None = None,
    kind: str = "epoch-start",
    protected: Mapping[int, Any] | None = None,
    first: int = 0,
    wraps: Callable[[list[Any]], None] = lambda wraps: None,
    signers: tuple[SigningKey, ...] = A.signers,
) -> bytes:
    """The good record, wrong in one place, with a signature that fits."""
    signed, _, outer = canonical.decode(value or started().value)  # type: ignore[misc]
    content: dict[int, Any] = canonical.decode(cose.parse(signed).payload)  # type: ignore[assignment]
    change(content)
    items = list(outer)
    wraps(items)
    head = canonical.encode(protected if protected is not None else {16: kind})
    again = cose.sign(kind, head, canonical.encode(content), signers)
    return canonical.encode([again, first, items])


def bad_start(name: str, must: str, comment: str, key: int, value: Any) -> None:
    def make() -> bytes:
        return manifest(setting(key, value))

    make.__name__ = f"start_{name}"
    vector("header", must, kind="start", comment=comment)(make)


HEAD = ["G01/registry/main", 0, bytes(32), 5, bytes(32)]
bad_start("version_2", "6.5", "version 2", 0, 2)
bad_start("unknown_key", "6.5", "a key that is not in the table", 15, 0)
bad_start("sender_plain", "6.5", "the sender is no SPIFFE id", 1, "G01/registry/a1")
bad_start("id_short", "6.5", "the epoch id has 31 bytes", 6, bytes(31))
bad_start("reset_two", "6.5", "chain reset is 2", 12, 2)
bad_start("history_unknown", "6.5", "an unknown history rule", 13, "for-ever")
bad_start("head_short", "6.5", "a head of four elements", 10, [HEAD[:4]])
bad_start(
    "head_counter", "6.5", "a head's counter is 1,000,000", 10, [[*HEAD[:3], 10**6, bytes(32)]]
)
bad_start("heads_repeated", "6.6", "a stream has two heads", 10, [HEAD, HEAD])
bad_start("heads_unsorted", "6.6", "heads fall", 10, [["G01/registry/main", 1, *HEAD[2:]], HEAD])
bad_start("no_recipient", "6.7", "nobody may read", 11, [])


@vector("header", "6.7", kind="start", comment="recipients fall")
def start_recipients_unsorted() -> bytes:
    return manifest(lambda content: content[11].reverse())


@vector("header", "6.7", kind="start", comment="a recipient stands twice")
def start_recipient_twice() -> bytes:
    return manifest(lambda content: content[11].append(content[11][1]))


@vector("cose", "6.4", kind="start", comment="the protected bucket is empty")
def start_without_type() -> bytes:
    return manifest(protected={})


@vector("header", "6.4", kind="start", comment="a grant where a start is expected")
def start_is_a_grant() -> bytes:
    return manifest(kind="grant")


@vector("cose", "6.3", kind="start", comment="the record is the manifest alone")
def start_without_wraps() -> bytes:
    return canonical.encode([canonical.decode(started().value)[0]])  # type: ignore[index,call-overload]


@vector("cose", "6.3", kind="start", comment="a wrap is text")
def start_wrap_text() -> bytes:
    return manifest(wraps=lambda items: items.append("wrap"))


@vector("cose", "6.3", kind="start", comment="601 wraps")
def start_too_many_wraps() -> bytes:
    return manifest(wraps=lambda items: items.extend([b""] * 599))


@vector("cose", "6.3", kind="start", comment="a record without a wrap")
def start_no_wrap() -> bytes:
    return manifest(wraps=lambda items: items.clear())


@vector("cose", "6.3", kind="start", comment="the first wrap's number is text")
def start_first_text() -> bytes:
    signed, _, wraps = canonical.decode(started().value)  # type: ignore[misc]
    return canonical.encode([signed, "0", wraps])


@vector("cose", "6.3", kind="start", comment="the array of an older draft, without a number")
def start_without_first() -> bytes:
    signed, _, wraps = canonical.decode(started().value)  # type: ignore[misc]
    return canonical.encode([signed, wraps])


@vector("open", "6.8", kind="start", reason="grant_missing", comment="the reader's wrap is absent")
def start_wrap_missing() -> bytes:
    return manifest(wraps=lambda items: items.pop())


@vector("signature", "6.8", kind="start", reason="bad_signature", comment="wraps of later ones")
def start_wraps_shifted() -> bytes:
    return manifest(first=1, wraps=lambda items: items.pop())


@vector("signature", "6.8", kind="start", reason="bad_signature", comment="more wraps than names")
def start_wrap_more() -> bytes:
    return manifest(wraps=lambda items: items.append(items[1]))


@vector("success", "6.3", "6.8", kind="start", comment="the second of two records of a start")
def start_good_second() -> dict[str, Any]:
    value = manifest(first=1, wraps=lambda items: items.pop(0))
    return {"value": value.hex(), "hash": started().hash.hex()}


@vector("signature", "6.8", kind="start", reason="bad_signature", comment="wraps are swapped")
def start_wraps_swapped() -> bytes:
    return manifest(wraps=lambda items: items.reverse())


@vector("signature", "6.8", kind="start", reason="bad_signature", comment="one bit of a wrap")
def start_wrap_changed() -> bytes:
    def change(items: list[Any]) -> None:
        items[1] = items[1][:-1] + bytes([items[1][-1] ^ 1])

    return manifest(wraps=change)


@vector("signature", "6.9", kind="start", comment="the sender left itself out")
def start_without_sender() -> bytes:
    def only_b(content: dict[int, Any]) -> None:
        del content[11][0]

    return manifest(only_b, wraps=lambda items: items.pop(0))


@vector("signature", "6.10", kind="start", reason="bad_signature", comment="another host signed")
def start_signed_by_another() -> bytes:
    return manifest(signers=B.signers)


@vector("signature", "6.10", kind="start", reason="identity_mismatch", comment="another result")
def start_of_another_result() -> bytes:
    return manifest(setting(7, bytes(16)))


@vector("open", "6.11", kind="start", reason=OPEN, comment="wraps made for another label")
def start_relabelled() -> bytes:
    return manifest(setting(3, "secret"))


@vector(
    "open", "6.11", kind="start", reason=OPEN, comment="wraps made under another policy version"
)
def start_other_policy() -> bytes:
    return manifest(setting(8, 8))


@vector("open", "6.1", kind="start", reason=OPEN, comment="an id that is not the secret's")
def start_two_secrets_under_one_id() -> bytes:
    with fixed_wraps():
        terms = replace(started().start.terms, epoch_id=fixed("another epoch"))
        pairs = [(party.host, party.key.public) for party in (A, B)]
        named, wraps = record.wrap_all(terms, A.secret(), pairs)

    def change(content: dict[int, Any]) -> None:
        content[6] = terms.epoch_id
        content[11] = record.write_recipients(named)

    return manifest(change, wraps=lambda items: items.__setitem__(slice(None), wraps))


@vector(
    "success",
    *("6.1", "6.3", "6.4", "6.5", "6.6", "6.7", "6.8", "6.9", "6.10", "6.11", "6.14"),
    kind="start",
    comment="a start for two hosts",
)
def start_good() -> dict[str, Any]:
    made = started(
        heads=(Head(origin=ORIGIN, partition=0, epoch=bytes(32), counter=5, hash=fixed("h")),)
    )
    return {"value": made.value.hex(), "hash": made.hash.hex()}


def granted() -> bytes:
    with fixed_wraps():
        made = A.start(A.draft())
        opened = verify_start(parse_start(made.value), A.result, TRUST_DOMAIN)
        draft = GrantDraft(
            granter=A.host,
            result_id=A.result.id,
            policy_version=8,
            revocation_number=4,
            granted=NOW,
        )
        pair = (B.host, B.key.public)
        return grant(draft, opened, A.secret(), recipients=[pair], signers=A.signers)[0]


def with_start(value: bytes) -> dict[str, Any]:
    with fixed_wraps():
        return {"value": value.hex(), "start": A.start(A.draft()).value.hex()}


def bad_grant(
    name: str,
    must: str,
    layer: str,
    comment: str,
    *,
    key: int,
    value: Any,
    reason: str = "malformed",
) -> None:
    def make() -> dict[str, Any]:
        return with_start(manifest(setting(key, value), value=granted(), kind="grant"))

    make.__name__ = f"grant_{name}"
    vector(layer, must, kind="grant", comment=comment, reason=reason)(make)


WRONG = "identity_mismatch"
OTHER_HOST = "spiffe://fabric.example/G02/health/b1"
bad_grant("version_2", "6.5", "header", "version 2", key=0, value=2)
bad_grant("unknown_key", "6.5", "header", "a key that is not in the table", key=14, value=0)
bad_grant(
    "other_domain",
    "6.5",
    "header",
    "granter of another trust domain",
    key=2,
    value="spiffe://other.example/G01/registry/a1",
)
bad_grant(
    "other_sender", "6.12", "signature", "another sender", key=1, value=OTHER_HOST, reason=WRONG
)
bad_grant(
    "other_topic", "6.12", "signature", "another topic", key=3, value="secret.G01.x", reason=WRONG
)
bad_grant("other_label", "6.12", "signature", "a lower label", key=4, value="secret", reason=WRONG)
bad_grant("other_suite", "6.12", "signature", "another suite", key=5, value="hybrid", reason=WRONG)
bad_grant("other_number", "6.12", "signature", "another number", key=6, value=2, reason=WRONG)
bad_grant("other_epoch", "6.12", "signature", "another epoch", key=7, value=bytes(32), reason=WRONG)
bad_grant("other_start", "6.12", "signature", "another start", key=8, value=bytes(32), reason=WRONG)
bad_grant(
    "other_result", "6.10", "signature", "another result", key=9, value=bytes(16), reason=WRONG
)
bad_grant(
    "other_granter", "6.10", "signature", "another granter", key=2, value=OTHER_HOST, reason=WRONG
)
bad_grant("other_policy", "6.11", "open", "another policy version", key=10, value=9, reason=OPEN)


@vector("signature", "6.13", kind="grant", reason=WRONG, comment="a recipient grants to others")
def grant_by_a_recipient() -> dict[str, Any]:
    def change(content: dict[int, Any]) -> None:
        content[2] = OTHER_HOST
        content[9] = B.result.id

    made = with_start(manifest(change, value=granted(), kind="grant", signers=B.signers))
    return {**made, "granter": given_of(B)}


@vector(
    "success",
    "6.3",
    "6.5",
    "6.10",
    "6.11",
    "6.12",
    "6.13",
    kind="grant",
    comment="a grant for one late host",
)
def grant_good() -> dict[str, Any]:
    return with_start(granted())


# --- section 7: the reader's rules -----------------------------------------------------------


class Script:
    """Envelopes of one stream with their starts, and what a reader must say to each."""

    def __init__(self) -> None:
        self.records: dict[str, str] = {}
        self.steps: list[dict[str, Any]] = []
        self.last = FIRST.previous

    def epoch(
        self, number: int, heads: tuple[Head, ...] = (), party: Party = A, **changes: Any
    ) -> Started:
        with fixed_wraps():
            made = party.start(party.draft(number, heads=heads, **changes))
        self.records[made.hash.hex()] = made.value.hex()
        return made

    def send(
        self, epoch: Started, counter: int, after: Any, upto: Any, *, expect: str, **more: Any
    ) -> Head:
        """Seal an empty block and expect a verdict; returns it as a head."""
        life = replace(block(0), after=Sequence(*after), upto=Sequence(*upto))
        previous = more.get("previous", self.last)
        stamp = A.stamp(padding=False, now=more.get("now", NOW))
        party = more.get("party", A)
        made = party.seal(life, epoch, link=Link(counter=counter, previous=previous), stamp=stamp)
        self.steps.append({"value": made.data.hex(), "expect": expect})
        if expect == "accept":
            self.last = made.hash
        return Head(
            origin=ORIGIN, partition=0, epoch=epoch.start.id, counter=counter, hash=made.hash
        )

    def vector(self) -> dict[str, Any]:
        return {"starts": self.records, "steps": self.steps}


def script(
    name: str, *musts: str, comment: str, reason: str = ""
) -> Callable[[Callable[[Script], None]], None]:
    def register(play: Callable[[Script], None]) -> None:
        def make() -> dict[str, Any]:
            stage = Script()
            play(stage)
            return stage.vector()

        make.__name__ = f"chain_{name}"
        expect = "chain" if reason else "success"
        vector(expect, *musts, kind="chain", comment=comment, reason=reason)(make)

    return register


def three(s: Script) -> tuple[Started, Head]:
    """Epoch 1 with three accepted envelopes, H = (1, 30, 0)."""
    one = s.epoch(1)
    for counter, position in enumerate((10, 20, 30)):
        head = s.send(one, counter, (1, position - 10, 0), (1, position, 0), expect="accept")
    return one, head


@script("good", "7.1", "7.2", "7.8", "7.9", "7.10", comment="three envelopes in order")
def _(s: Script) -> None:
    three(s)


@script("duplicates", "7.3", "7.4", comment="two slow hops: 0 1 2 0 1, then on")
def _(s: Script) -> None:
    one, _ = three(s)
    s.steps += [{**step, "expect": "duplicate"} for step in s.steps[:2]]
    s.send(one, 3, (1, 30, 0), (1, 40, 0), expect="accept")


@script("fork", "7.4", "7.3", reason="fork", comment="another envelope for an accepted counter")
def _(s: Script) -> None:
    one, _ = three(s)
    s.send(one, 1, (1, 10, 0), (1, 21, 0), expect="fork")


@script("gap_counter", "7.8", "7.2", reason="gap", comment="a counter is left out")
def _(s: Script) -> None:
    one, _ = three(s)
    s.send(one, 4, (1, 30, 0), (1, 40, 0), expect="gap")


@script("gap_previous", "7.8", "7.2", reason="gap", comment="previous is another envelope's hash")
def _(s: Script) -> None:
    one, _ = three(s)
    s.send(one, 3, (1, 30, 0), (1, 40, 0), expect="gap", previous=fixed("another"))


@script("gap_sequence", "7.8", "7.2", reason="gap", comment="a hole in the source's sequences")
def _(s: Script) -> None:
    one, _ = three(s)
    s.send(one, 3, (1, 35, 0), (1, 40, 0), expect="gap")


@script(
    "switch", "7.7", "7.5", "6.2", comment="a new epoch from the last head; the old one is left"
)
def _(s: Script) -> None:
    _, head = three(s)
    two = s.epoch(2, (head,))
    s.send(two, 0, (1, 30, 0), (1, 40, 0), expect="accept")
    s.steps.append({**s.steps[2], "expect": "superseded"})
    s.send(two, 1, (1, 40, 0), (1, 50, 0), expect="accept")


@script("switch_back", "7.7", comment="a crash: the sender never saw its last two acknowledged")
def _(s: Script) -> None:
    one = s.epoch(1)
    known = s.send(one, 0, (1, 0, 0), (1, 10, 0), expect="accept")
    s.send(one, 1, (1, 10, 0), (1, 20, 0), expect="accept")
    s.send(one, 2, (1, 20, 0), (1, 30, 0), expect="accept")
    two = s.epoch(2, (known,))
    s.send(two, 0, (1, 10, 0), (1, 25, 0), expect="accept", previous=known.hash)


@script("switch_from_root", "7.7", comment="a crash before the first acknowledgement")
def _(s: Script) -> None:
    three(s)
    two = s.epoch(2)
    s.send(two, 0, (1, 0, 0), (1, 15, 0), expect="accept", previous=FIRST.previous)


@script("switch_unknown_head", "7.8", reason="gap", comment="the start names a head nobody has")
def _(s: Script) -> None:
    _, head = three(s)
    two = s.epoch(2, (replace(head, hash=fixed("another")),))
    s.send(two, 0, (1, 30, 0), (1, 40, 0), expect="gap", previous=fixed("another"))


@script("switch_first_lost", "7.8", reason="gap", comment="the new epoch begins with counter 1")
def _(s: Script) -> None:
    _, head = three(s)
    two = s.epoch(2, (head,))
    s.send(two, 1, (1, 30, 0), (1, 40, 0), expect="gap")


@script("switch_hole", "7.8", "7.7", reason="gap", comment="the new epoch begins after H")
def _(s: Script) -> None:
    _, head = three(s)
    two = s.epoch(2, (head,))
    s.send(two, 0, (1, 35, 0), (1, 40, 0), expect="gap")


@script(
    "switch_previous", "7.8", "7.7", reason="gap", comment="previous is not the named head's hash"
)
def _(s: Script) -> None:
    _, head = three(s)
    two = s.epoch(2, (head,))
    s.send(two, 0, (1, 30, 0), (1, 40, 0), expect="gap", previous=FIRST.previous)


@script("late_epoch", "7.5", "6.2", comment="an epoch never seen, older by its number, comes late")
def _(s: Script) -> None:
    _, head = three(s)
    two, three_ = s.epoch(2, (head,)), s.epoch(3, (head,))
    s.send(three_, 0, (1, 30, 0), (1, 40, 0), expect="accept")
    s.send(two, 0, (1, 30, 0), (1, 35, 0), expect="superseded", previous=head.hash)
    s.send(three_, 1, (1, 40, 0), (1, 50, 0), expect="accept")


@script(
    "same_number",
    "7.8",
    "7.5",
    "6.2",
    reason="gap",
    comment="two epochs of one number: a copied host",
)
def _(s: Script) -> None:
    _, head = three(s)
    copy = replace(A, twist="copy")
    again = s.epoch(1, (head,), copy)
    s.send(again, 0, (1, 30, 0), (1, 40, 0), expect="gap", party=copy)


@script("reset", "7.6", comment="a lost state file: a new chain with a higher generation")
def _(s: Script) -> None:
    three(s)
    two = s.epoch(2, chain_reset=True)
    s.send(two, 0, (0, 0, 0), (2, 5, 0), expect="accept", previous=FIRST.previous)
    s.send(two, 1, (2, 5, 0), (2, 6, 0), expect="accept")


@script(
    "reset_again", "7.6", "7.7", comment="a crash right after a reset: the next start resets too"
)
def _(s: Script) -> None:
    three(s)
    two, three_ = s.epoch(2, chain_reset=True), s.epoch(3, chain_reset=True)
    s.send(two, 0, (0, 0, 0), (2, 5, 0), expect="accept", previous=FIRST.previous)
    s.send(three_, 0, (0, 0, 0), (2, 7, 0), expect="accept", previous=FIRST.previous)


@script(
    "reset_same_life", "7.6", "7.8", reason="gap", comment="a reset of the same life, with a hole"
)
def _(s: Script) -> None:
    three(s)
    two = s.epoch(2, chain_reset=True)
    s.send(two, 0, (1, 35, 0), (1, 40, 0), expect="gap", previous=FIRST.previous)


@script("reset_with_previous", "7.6", "7.8", reason="gap", comment="a reset that is no beginning")
def _(s: Script) -> None:
    three(s)
    two = s.epoch(2, chain_reset=True)
    s.send(two, 0, (0, 0, 0), (2, 5, 0), expect="gap", previous=fixed("another"))


@script("reset_replayed", "7.6", "7.5", comment="the first chain is replayed after a reset")
def _(s: Script) -> None:
    three(s)
    two = s.epoch(2, chain_reset=True)
    s.send(two, 0, (0, 0, 0), (2, 5, 0), expect="accept", previous=FIRST.previous)
    s.steps += [{**step, "expect": "superseded"} for step in s.steps[:3]]


@script("generation", "7.2", comment="a new generation in a kept chain needs no reset")
def _(s: Script) -> None:
    one, _ = three(s)
    s.send(one, 3, (1, 30, 0), (2, 5, 0), expect="accept")


@script("join_late", "7.9", reason="history_lost", comment="the log begins with counter 1")
def _(s: Script) -> None:
    one = s.epoch(1)
    s.send(one, 1, (1, 10, 0), (1, 20, 0), expect="history_lost", previous=fixed("lost"))


@script("join_late_epoch", "7.9", reason="history_lost", comment="the log begins with epoch 2")
def _(s: Script) -> None:
    head = Head(origin=ORIGIN, partition=0, epoch=fixed("e"), counter=5, hash=fixed("lost"))
    two = s.epoch(2, (head,))
    s.send(two, 0, (1, 10, 0), (1, 20, 0), expect="history_lost", previous=fixed("lost"))


@script("join", "7.9", "7.11", comment="from_join: the chain begins at the first epoch granted")
def _(s: Script) -> None:
    head = Head(origin=ORIGIN, partition=0, epoch=fixed("e"), counter=9, hash=fixed("before"))
    two = s.epoch(2, (head,), history="from_join")
    s.send(two, 0, (1, 30, 0), (1, 40, 0), expect="accept", previous=head.hash)
    s.send(two, 1, (1, 40, 0), (1, 50, 0), expect="accept")


@script("join_previous", "7.9", reason="history_lost", comment="not the named head's hash")
def _(s: Script) -> None:
    head = Head(origin=ORIGIN, partition=0, epoch=fixed("e"), counter=9, hash=fixed("before"))
    two = s.epoch(2, (head,), history="from_join")
    s.send(two, 0, (1, 30, 0), (1, 40, 0), expect="history_lost", previous=fixed("another"))


@script("join_middle", "7.9", reason="history_lost", comment="from_join, but not its first block")
def _(s: Script) -> None:
    head = Head(origin=ORIGIN, partition=0, epoch=fixed("e"), counter=9, hash=fixed("before"))
    two = s.epoch(2, (head,), history="from_join")
    s.send(two, 1, (1, 30, 0), (1, 40, 0), expect="history_lost", previous=head.hash)


@script("other_start", "7.1", "6.14", reason="identity_mismatch", comment="another start's hash")
def _(s: Script) -> None:
    one = s.epoch(1)
    two = s.epoch(1, revocation_number=9)
    s.send(one, 0, (1, 0, 0), (1, 10, 0), expect="identity_mismatch")
    # The reader looks the start up by the header's hash; here the log answers with another.
    s.records = {one.hash.hex(): two.value.hex()}


def kept(
    name: str, suite: str, *musts: str, comment: str, expect: str = "success", reason: str = ""
) -> Callable[[Callable[[Party, bytes], bytes]], Callable[[Party, bytes], bytes]]:
    """Register a change of an envelope made with fresh randomness, and its epoch's start."""

    def register(change: Callable[[Party, bytes], bytes]) -> Callable[[Party, bytes], bytes]:
        def full() -> Vector:
            sender, reader = Party.make("G01/registry/a1", suite), Party.make(str(B.host), suite)
            made = sender.start(sender.draft(), (reader,))
            data = change(sender, sender.seal(block(), made).data)
            return {
                "comment": comment,
                "musts": [f"MUST-{number}" for number in musts],
                "kind": "envelope",
                "expect": expect,
                "reason": reason,
                "given": given_of(sender, reader),
                "value": data.hex(),
                "hash": judge.envelope_hash(data).hex(),
                "count": 3,
                "start": made.value.hex(),
            }

        KEPT[name] = full
        return change

    return register


@kept(
    "hybrid", "hybrid", "5.13", "6.11",
    comment="three notes under the hybrid suite; kept, because ML-DSA draws randomness",
)  # fmt: skip
@kept(
    "hybrid-tpm", "hybrid-tpm", "3.7", "5.13", "6.11",
    comment="three notes under hybrid-tpm; the P-256 key is in software here",
)  # fmt: skip
@kept(
    "hybrid-top", "hybrid-top", "1.2", "3.7", "5.13", "6.11",
    comment="three notes under hybrid-top: SHA-384 makes epoch id, salt and key",
)  # fmt: skip
def _(sender: Party, data: bytes) -> bytes:
    return data


def again(sender: Party, data: bytes, salt: bytes) -> bytes:
    """Encrypt and sign anew under another salt."""
    plain = judge.padded_plaintext(data, sender.secret().private_bytes())
    content = {**judge.header_of(data), 21: salt}
    protected = canonical.encode({judge.HEADER: content})
    key = judge.block_key(sender.secret().private_bytes(), content)
    ciphertext = AESGCM(key).encrypt(bytes(12), plain, form.aad(protected))
    return cose.sign(form.KIND, protected, form.encrypt0(ciphertext), sender.signers)


@kept(
    "hybrid-top-salt-of-sha256", "hybrid-top", "1.2", "5.8", expect="open", reason="open_failed",
    comment="the salt was made with SHA-256, as other suites make it",
)  # fmt: skip
def _(sender: Party, data: bytes) -> bytes:
    secret = sender.secret().private_bytes()
    plain = judge.padded_plaintext(data, secret)
    header = {key: value for key, value in judge.header_of(data).items() if key != 21}
    key = judge.hkdf(secret, b"salt", "hybrid")
    salt = hmac.digest(key, judge.sha(canonical.encode(header)) + judge.sha(plain), "sha256")
    return again(sender, data, salt)


def resigned(data: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """The same envelope with other signatures."""
    protected, unprotected, payload, signatures = canonical.decode(data[2:])
    change(signatures)
    return b"\xd8\x62" + canonical.encode([protected, unprotected, payload, signatures])


@kept(
    "hybrid-top-signature-der", "hybrid-top", "3.7", expect="signature", reason="bad_signature",
    comment="the ECDSA signature is DER, not r || s",
)  # fmt: skip
def _(sender: Party, data: bytes) -> bytes:
    def change(signatures: list[Any]) -> None:
        raw = signatures[0][2]
        r, s = int.from_bytes(raw[:48]), int.from_bytes(raw[48:])
        signatures[0][2] = encode_dss_signature(r, s)

    return resigned(data, change)


@kept(
    "hybrid-top-half-signed", "hybrid-top", "3.5", "5.13",
    expect="signature", reason="bad_signature", comment="only ECDSA signed, ML-DSA-87 is missing",
)  # fmt: skip
def _(sender: Party, data: bytes) -> bytes:
    return resigned(data, lambda signatures: signatures.pop())


@kept(
    "hybrid-top-signature-of-sha256", "hybrid-top", "3.7",
    expect="signature", reason="bad_signature", comment="ESP384 signed SHA-256 of the bytes",
)  # fmt: skip
def _(sender: Party, data: bytes) -> bytes:
    der = sender.signers[0].private_bytes()

    def change(signatures: list[Any]) -> None:
        protected, _, payload, _ = canonical.decode(data[2:])
        covered = canonical.encode(
            ["Signature", protected, signatures[0][0], b"fabric-envelope-v1", payload]
        )
        r, s = decode_dss_signature(
            load_der_private_key(der, None).sign(covered, ec.ECDSA(SHA256()))
        )
        signatures[0][2] = r.to_bytes(48) + s.to_bytes(48)

    return resigned(data, change)


def main() -> None:
    """Write every file, and of the kept ones those that are not there."""
    for name, make in VECTORS.items():
        (FOLDER / f"{name}.json").write_text(text_of(make()))
    for name, make in KEPT.items():
        if not (FOLDER / f"{name}.json").exists():
            (FOLDER / f"{name}.json").write_text(text_of(make()))
    sys.stdout.write(f"{len(VECTORS) + len(KEPT)} vectors\n")


def text_of(made: Vector) -> str:
    """The file's text."""
    return json.dumps(made, indent=1) + "\n"


if __name__ == "__main__":
    main()
