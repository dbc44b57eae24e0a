"""Views of the members topic: what the vectors show, and that they are what the generator makes."""

import hashlib
import json
from pathlib import Path
from typing import Any

import cbor2
import pytest

from fabric.attest import fields
from fabric.attest.members import Members
from fabric.model.errors import PeerError
from fabric.model.names import MEMBERS
from fabric.policy.types import Trust
from tests.vectors.members import generate

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def load(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return vector


@pytest.mark.parametrize("name", NAMES)
def test_view_is_whole_when_the_vector_says_so(name: str) -> None:
    """MUST-9.31, MUST-9.32, MUST-9.41."""
    vector = load(name)
    former = bytes.fromhex(vector.get("former", ""))
    trust = Trust(
        trust_domain="fabric.example",
        verifier_name="verifier",
        verifier_keys=((-19, bytes.fromhex(vector["verifier"])),),
        former_keys=((-19, former),) if former else (),
        ca_pem=b"",
        ek_ca_pem=b"",
    )
    members, refused = Members(trust), {}
    for at, (key, value) in enumerate(vector["records"]):
        try:
            members.feed(MEMBERS, bytes.fromhex(key), bytes.fromhex(value))
        except PeerError as exc:
            refused[str(at)] = exc.reason.value
    whole = members.whole_at
    assert refused == vector["refused"]
    assert members.revocation_number == vector["number"]
    assert (None if whole is None else fields.milliseconds(whole)) == vector["whole"]


@pytest.mark.parametrize("name", NAMES)
def test_vector_is_what_its_generator_makes(name: str) -> None:
    assert generate.vectors().keys() == {*NAMES}
    assert generate.vectors()[name]() == load(name)


@pytest.mark.parametrize("name", ["good", "any-order", "hidden-last"])
def test_hash_of_the_list_follows_from_the_page_alone(name: str) -> None:
    """MUST-9.31, reckoned from the records' bytes with another CBOR library."""
    vector = load(name)
    payloads = {}
    for key, value in vector["records"]:
        kind, _, number = bytes.fromhex(key).decode().rpartition("/")
        if kind == "verifier/revocation":
            payloads[int(number)] = cbor2.loads(bytes.fromhex(value)[2:])[2]
    listed = bytes(32)
    for number in range(1, vector["number"] + 1):
        digest = hashlib.sha256(payloads[number]).digest()
        listed = hashlib.sha256(b"fabric-notice-list-v1" + listed + digest).digest()
    assert listed.hex() == vector["listed"]
