"""Every vector of evidence ends as it says; and a second reader agrees about a good one."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from fabric.attest import event_log, evidence
from fabric.attest.appraise import Enrolment
from fabric.attest.keys import Alg, PublicKey, Use
from fabric.attest.resident import ResidentReport, check_resident
from fabric.attest.tally import TallyReport, check_tally
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.policy.event_types import EVENT_TYPES
from fabric.policy.types import EventStep, PcrRule
from tests.fakes.verifier import HOST
from tests.vectors.tpm import generate

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return vector


def enrolment_of(given: Mapping[str, str]) -> Enrolment:
    ak = bytes.fromhex(given["ak_public"])
    return Enrolment(
        host=HOST,
        ek_sha256=bytes(32),
        ek_name=bytes.fromhex(given["ek_name"]),
        ak_public=ak,
        ak_name=evidence.parse_ak(ak).name,
    )


def run_resident(given: Mapping[str, str], value: Mapping[str, str]) -> None:
    proof = {name: bytes.fromhex(data) for name, data in value.items()}
    bound = [PublicKey(Use.SIGN, Alg.ED25519, bytes(32))]
    if given["bound"]:
        bound.append(PublicKey(Use.SIGN, Alg.ESP256, bytes.fromhex(given["bound"])))
    check_resident(
        ResidentReport(**proof) if proof else None,
        bound,
        enrolment_of(given),
        qualifying=bytes.fromhex(given["qualifying"]),
    )


def run_tally(given: Mapping[str, str], value: Mapping[str, str]) -> bytes:
    enrolment = enrolment_of(given)
    report = TallyReport(**{name: bytes.fromhex(data) for name, data in value.items()})
    last = bytes.fromhex(given["last"]) or None
    return check_tally(report, enrolment, qualifying=bytes.fromhex(given["qualifying"]), last=last)


def run_log(given: Mapping[str, Any], value: Mapping[str, str]) -> None:
    rules = [
        PcrRule(
            pcr=rule["pcr"],
            steps=tuple(
                EventStep(
                    type=EVENT_TYPES[step["type"]],
                    digests=tuple(bytes.fromhex(digest) for digest in step["digests"]),
                    is_optional=False,
                )
                for step in rule["steps"]
            ),
        )
        for rule in given["rules"]
    ]
    log = event_log.parse(bytes.fromhex(value["log"]))
    if event_log.replayed(log, given["pcrs"]).hex() != given["digest"]:
        raise DeniedError(Reason.EVIDENCE_REFUSED, "does not replay")
    event_log.check_rules(log, rules)


RUN = {"tally": run_tally, "event-log": run_log, "resident": run_resident}


@pytest.mark.parametrize("name", NAMES)
def test_vector_of_evidence_ends_as_it_says(name: str) -> None:
    vector = load(name)
    run = RUN[vector["kind"]]
    if vector["expect"] == "success":
        run(vector["given"], vector["value"])
        return
    with pytest.raises(FabricError) as caught:
        run(vector["given"], vector["value"])
    assert caught.value.reason == vector["expect"]


def test_second_reader_finds_the_same_in_a_good_tally() -> None:
    """Written from docs/format.md with struct, cryptography and hashlib alone."""
    vector = load("tally-good")
    attest = bytes.fromhex(vector["value"]["attest"])
    magic, kind, size = struct.unpack(">IHH", attest[:8])
    assert (magic, kind) == (0xFF544347, 0x8014)
    at = 8 + size
    (size,) = struct.unpack(">H", attest[at : at + 2])
    assert attest[at + 2 : at + 2 + size].hex() == vector["given"]["qualifying"]
    at += 2 + size + 8 + 4 + 4 + 1 + 8
    (size,) = struct.unpack(">H", attest[at : at + 2])
    area = bytes.fromhex("0180fab1000b2204004400000020")
    assert attest[at + 2 : at + 2 + size] == b"\x00\x0b" + hashlib.sha256(area).digest()
    offset, size = struct.unpack(">HH", attest[at + 2 + size : at + 6 + size])
    contents = attest[-size:]
    assert (offset, size) == (0, 32)
    last, step = vector["given"]["last"], vector["value"]["step"]
    assert contents == hashlib.sha256(bytes.fromhex(last + step)).digest()
    public = bytes.fromhex(
        vector["given"]["ak_public"]
    )  # ends in x and y, two bytes of length each
    x, y = public[-66:-34], public[-32:]
    key = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()
    ).public_key()
    signature = bytes.fromhex(vector["value"]["signature"])
    r, s = int.from_bytes(signature[6:38]), int.from_bytes(signature[40:72])
    key.verify(encode_dss_signature(r, s), attest, ec.ECDSA(hashes.SHA256()))


def test_second_reader_finds_the_same_in_a_good_proof() -> None:
    """As above."""
    vector = load("resident-good")
    attest, public = (bytes.fromhex(vector["value"][name]) for name in ("attest", "public"))
    magic, kind, size = struct.unpack(">IHH", attest[:8])
    assert (magic, kind) == (0xFF544347, 0x8017)
    at = 8 + size
    (size,) = struct.unpack(">H", attest[at : at + 2])
    assert attest[at + 2 : at + 2 + size].hex() == vector["given"]["qualifying"]
    at += 2 + size + 8 + 4 + 4 + 1 + 8
    (size,) = struct.unpack(">H", attest[at : at + 2])
    area = public[2:]
    assert attest[at + 2 : at + 2 + size] == b"\x00\x0b" + hashlib.sha256(area).digest()
    assert area[:8].hex() == "0023000b" + "00040472"
    assert b"\x04" + public[-66:-34] + public[-32:] == bytes.fromhex(vector["given"]["bound"])


def test_generator_writes_the_vectors_of_evidence_that_are_kept() -> None:
    assert sorted(generate.VECTORS) == NAMES
    for name, make in generate.VECTORS.items():
        assert (FOLDER / f"{name}.json").read_text() == generate.text_of(make()), name
