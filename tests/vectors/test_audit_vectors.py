"""Vectors of audit logs, heads and receipts are refused where and why they say, or not at all."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from fabric.attest.audit_chain import ChainBroken, Walk
from fabric.attest.audit_head import parse_head, verify_head
from fabric.attest.keys import PublicKey, Use
from fabric.attest.result import Result
from fabric.model.errors import FabricError
from fabric.model.names import HostId
from fabric.policy.types import Trust
from fabric.seal.receipt import parse_receipt, verify_receipt
from tests.fakes.sealing import Party
from tests.vectors import generate_audit as generate

NAMES = sorted(path.stem for path in generate.FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((generate.FOLDER / f"{name}.json").read_text())
    return vector


def of_kind(*kinds: str) -> list[str]:
    return [name for name in NAMES if load(name)["kind"] in kinds]


def trust_of(given: dict[str, Any]) -> Trust:
    alg, key = given["verifier"]
    return Trust(
        trust_domain=given["trust_domain"],
        verifier_name="verifier",
        verifier_keys=((alg, bytes.fromhex(key)),),
        ca_pem=b"",
        ek_ca_pem=b"",
    )


def result_of(given: dict[str, Any]) -> Result:
    keys = tuple(PublicKey(Use(use), alg, bytes.fromhex(key)) for use, alg, key in given["keys"])
    host = HostId.parse(given["host"])
    return replace(Party.make().result, id=bytes.fromhex(given["result"]), host=host, keys=keys)


def verify(vector: dict[str, Any]) -> None:
    key, value = bytes.fromhex(vector["key"]), bytes.fromhex(vector["value"])
    given = vector["given"]
    if vector["kind"] == "head":
        verify_head(parse_head(key, value), trust_of(given), lambda _: result_of(given))
    else:
        verify_receipt(parse_receipt(value), result_of(given), given["trust_domain"])


@pytest.mark.parametrize("name", of_kind("log"))
def test_log_breaks_at_the_line_it_names(name: str) -> None:
    vector = load(name)
    heads = {int(n): bytes.fromhex(digest) for n, digest in vector["heads"].items()}
    walk = Walk(heads, whole=not vector["part"])

    def check() -> None:
        for line in vector["lines"]:
            walk.take(line.encode())
        walk.end()

    if vector["expect"] == "success":
        check()
        return
    with pytest.raises(ChainBroken) as caught:
        check()
    assert caught.value.line == vector["expect"]


@pytest.mark.parametrize("name", of_kind("head", "receipt"))
def test_record_is_refused_with_its_reason_or_verifies(name: str) -> None:
    vector = load(name)
    if vector["expect"] == "success":
        verify(vector)
        return
    with pytest.raises(FabricError) as caught:
        verify(vector)
    assert caught.value.reason == vector["reason"]


def test_good_log_chains_without_our_code() -> None:
    """Written from docs/format.md section 12 alone."""
    previous = "0" * 64
    for number, text in enumerate(load("log-good")["lines"], 1):
        body, _, tail = text.rpartition(',"hash":"')
        digest = hashlib.sha256(b"fabric-audit-line-v1" + f"{body}}}".encode()).hexdigest()
        assert tail == f'{digest}"}}'
        found = json.loads(text)
        assert (found["number"], found["previous"]) == (number, previous)
        previous = digest


def test_generator_writes_the_vectors_that_are_kept() -> None:
    made = generate.make_all()
    assert sorted(made) == NAMES
    for name, vector in made.items():
        assert (generate.FOLDER / f"{name}.json").read_text() == generate.text_of(vector), name
