"""Every vector is refused by the layer it names and with its reason, or not at all.

The layers are tried in order, so that a late error cannot hide an early one: a
vector that breaks the header must have a sound COSE structure and sound CBOR.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag

from fabric.attest import cose
from fabric.attest.keys import Kem, PublicKey, Use
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.block import Block
from fabric.model.change import ZERO
from fabric.model.errors import FabricError, Malformed
from fabric.model.limits import CBOR_ITEMS_MAX
from fabric.model.names import HostId
from fabric.model.schema import RowSchema
from fabric.seal import envelope as form
from fabric.seal import record
from fabric.seal.chain import ChainState, Verdict, judge
from fabric.seal.epoch import VerifiedStart, parse_start, verify_start
from fabric.seal.grant import parse_grant, unwrap_secret, verify_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.opening import open_
from fabric.seal.secret import EpochSecret
from fabric.seal.verify import verify
from tests.fakes.sealing import Party
from tests.vectors import generate
from tests.vectors import judge as second

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
LAYERS = {"cbor", "cose", "header", "signature", "open", "block", "chain", "success"}


def load(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return vector


def result_of(given: Mapping[str, Any]) -> Result:
    keys = tuple(PublicKey(Use(use), alg, bytes.fromhex(key)) for use, alg, key in given["keys"])
    template = Party.make().result
    return Result(
        **{
            **{name: getattr(template, name) for name in Result.__dataclass_fields__},
            "id": bytes.fromhex(given["result"]),
            "host": HostId.parse(given["host"]),
            "keys": keys,
        }
    )


def secret_of(given: Mapping[str, Any]) -> EpochSecret:
    return EpochSecret(bytes.fromhex(given["secret"]))


def schema_of(given: Mapping[str, Any]) -> RowSchema:
    return RowSchema.parse(given["schema"], tuple(given["schema_key"]))


def reader_key(given: Mapping[str, Any]) -> HpkeKey:
    data = bytes.fromhex(given["reader_key"])
    return HpkeKey.from_private_bytes(Kem(given["reader_kem"]), data)


def cbor_parts(value: bytes) -> None:
    """Raise Malformed where any part of a tagged COSE_Sign is not canonical CBOR."""
    body = canonical.decode(value[2:])
    if isinstance(body, list) and len(body) == 4:
        protected, _, payload, _ = body
        if isinstance(protected, bytes):
            canonical.decode(protected)
        if isinstance(payload, bytes) and payload[:1] == b"\xd0":
            canonical.decode(payload[1:])


def cose_parts(value: bytes) -> None:
    """Raise Malformed where the COSE_Sign or the COSE_Encrypt0 in it is not as it must be."""
    payload = cose.parse(value).payload
    if payload[:1] != b"\xd0":
        raise Malformed("not a COSE_Encrypt0")
    match canonical.decode(payload[1:]):
        case [b"\xa1\x01\x03", dict() as unprotected, bytes() as ciphertext]:
            if unprotected or len(ciphertext) < 16:
                raise Malformed("not our COSE_Encrypt0")
        case _:
            raise Malformed("not our COSE_Encrypt0")


def open_envelope(value: bytes, given: Mapping[str, Any]) -> Block:
    verified = verify(form.parse(value), result_of(given), given["trust_domain"])
    return open_(verified, secret_of(given), schema_of(given))


def open_any(vector: Mapping[str, Any]) -> Block | EpochSecret:
    if vector["kind"] == "envelope":
        return open_envelope(bytes.fromhex(vector["value"]), vector["given"])
    return open_record(vector)


def layer_of_envelope(value: bytes, given: Mapping[str, Any]) -> str:
    if value[:2] == b"\xd8\x62" and raises(lambda: cbor_parts(value)):
        return "cbor"
    if raises(lambda: cose_parts(value)):
        return "cose"
    if raises(lambda: form.parse(value)):
        return "header"
    if raises(lambda: verify(form.parse(value), result_of(given), given["trust_domain"])):
        return "signature"
    try:
        second.padded_plaintext(value, bytes.fromhex(given["secret"]))
    except (InvalidTag, ValueError):
        return "open"
    return "block" if raises(lambda: open_envelope(value, given)) else "success"


def verified_start(value: bytes, given: Mapping[str, Any]) -> VerifiedStart:
    return verify_start(parse_start(value), result_of(given), given["trust_domain"])


def open_record(vector: Mapping[str, Any]) -> EpochSecret:
    given, value = vector["given"], bytes.fromhex(vector["value"])
    host = HostId.parse(given["reader"])
    if vector["kind"] == "start":
        return unwrap_secret(verified_start(value, given), host, [reader_key(given)])
    return unwrap_secret(verified_grant(vector), host, [reader_key(given)])


def verified_grant(vector: Mapping[str, Any]) -> Any:
    start = verified_start(bytes.fromhex(vector["start"]), vector["given"])
    granter = result_of(vector.get("granter", vector["given"]))
    return verify_grant(parse_grant(bytes.fromhex(vector["value"])), granter, start)


def layer_of_record(vector: Mapping[str, Any]) -> str:
    value = bytes.fromhex(vector["value"])
    if raises(lambda: canonical.decode(value, items_max=CBOR_ITEMS_MAX)):
        return "cbor"
    if raises(lambda: record.kind_of(value)):
        return "cose"
    is_start = vector["kind"] == "start"
    if raises(lambda: parse_start(value) if is_start else parse_grant(value)):
        return "header"
    if raises(
        lambda: verified_start(value, vector["given"]) if is_start else verified_grant(vector)
    ):
        return "signature"
    return "open" if raises(lambda: open_record(vector)) else "success"


def run_chain(vector: Mapping[str, Any]) -> list[str]:
    """The reader's verdict on every step, as text; stops at the first error."""
    given = vector["given"]
    starts = {
        bytes.fromhex(name): verified_start(bytes.fromhex(value), given)
        for name, value in vector["starts"].items()
    }
    state: ChainState | None = None
    high, said = ZERO, []
    for step in vector["steps"]:
        envelope = form.parse(bytes.fromhex(step["value"]))
        verify(envelope, result_of(given), given["trust_domain"])
        header = envelope.header
        start = starts[header.start_hash]
        try:
            done = judge(state, header, envelope.hash, start=start, high=high)
        except FabricError as exc:
            return [*said, str(exc.reason)]
        said.append(done.verdict.value)
        if done.verdict is Verdict.ACCEPT:
            assert done.state is not None
            state = ChainState.decode(done.state.encode())
            assert state == done.state
            high = max(high, header.upto)
    return said


def raises(call: Any) -> bool:
    try:
        call()
    except FabricError:
        return True
    return False


@pytest.mark.parametrize("name", NAMES)
def test_vector_is_refused_by_the_layer_it_names(name: str) -> None:
    vector = load(name)
    assert vector["expect"] in LAYERS
    kind = vector["kind"]
    if kind == "cbor" and vector["expect"] == "success":
        value = bytes.fromhex(vector["value"])
        assert canonical.encode(canonical.decode(value)) == value
    elif kind == "cbor":
        with pytest.raises(Malformed):
            canonical.decode(bytes.fromhex(vector["value"]))
    elif kind == "chain":
        said = run_chain(vector)
        assert said == [step["expect"] for step in vector["steps"]]
        assert (said[-1] == vector["reason"]) == (vector["expect"] == "chain")
    elif kind == "envelope":
        value = bytes.fromhex(vector["value"])
        assert layer_of_envelope(value, vector["given"]) == vector["expect"]
    else:
        assert layer_of_record(vector) == vector["expect"]


@pytest.mark.parametrize("name", [n for n in NAMES if load(n)["expect"] != "success"])
def test_refused_vector_gives_its_reason(name: str) -> None:
    vector = load(name)
    if vector["kind"] in ("cbor", "chain"):
        return
    with pytest.raises(FabricError) as caught:
        open_any(vector)
    assert caught.value.reason == vector["reason"]


@pytest.mark.parametrize("name", [n for n in NAMES if load(n)["expect"] == "success"])
def test_good_vector_gives_what_it_says(name: str) -> None:
    vector = load(name)
    if vector["kind"] == "envelope":
        value = bytes.fromhex(vector["value"])
        assert open_envelope(value, vector["given"]).count == vector["count"]
        assert form.parse(value).hash.hex() == vector["hash"]
        assert second.envelope_hash(value).hex() == vector["hash"]
    elif vector["kind"] not in ("chain", "cbor"):
        assert open_record(vector) == secret_of(vector["given"])


@pytest.mark.parametrize("name", [n for n in generate.KEPT if load(n)["expect"] == "success"])
def test_kept_vector_has_a_start_that_gives_its_secret(name: str) -> None:
    vector = load(name)
    start = verified_start(bytes.fromhex(vector["start"]), vector["given"])
    host = HostId.parse(vector["given"]["reader"])
    secret = unwrap_secret(start, host, [reader_key(vector["given"])])
    assert secret == secret_of(vector["given"])


def test_generator_writes_the_vectors_that_are_kept() -> None:
    made = {name: generate.text_of(make()) for name, make in generate.VECTORS.items()}
    assert sorted([*made, *generate.KEPT]) == NAMES
    for name, text in made.items():
        assert (FOLDER / f"{name}.json").read_text() == text, name
