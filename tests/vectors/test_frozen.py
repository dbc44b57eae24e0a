"""What a release sealed opens for ever: from the recipient's private key to the rows."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fabric.attest.keys import Kem
from fabric.attest.result import Result, decode
from fabric.model.block import Block
from fabric.model.change import ZERO
from fabric.model.names import HostId
from fabric.model.schema import RowSchema
from fabric.policy.types import Trust
from fabric.seal import envelope as form
from fabric.seal import suites
from fabric.seal.chain import ChainState, Verdict, judge
from fabric.seal.epoch import VerifiedStart, parse_start, verify_start
from fabric.seal.grant import parse_grant, unwrap_secret, verify_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.opening import open_
from fabric.seal.secret import EpochSecret
from fabric.seal.verify import verify
from tests.vectors import freeze

FILES = sorted(freeze.FOLDER.glob("*.json"))


def load(path: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def result_of(kept: dict[str, Any]) -> Result:
    trust = Trust(
        trust_domain=kept["trust_domain"],
        verifier_name="verifier",
        verifier_keys=tuple((alg, bytes.fromhex(key)) for alg, key in kept["verifier_keys"]),
        ca_pem=b"",
        ek_ca_pem=b"",
    )
    return decode(bytes.fromhex(kept["result"]), trust)


def start_of(kept: dict[str, Any]) -> VerifiedStart:
    opened = parse_start(bytes.fromhex(kept["start"]))
    return verify_start(opened, result_of(kept), kept["trust_domain"])


def secret_of(kept: dict[str, Any], reader: str) -> EpochSecret:
    """The epoch's secret as the named reader gets it, or the late one by its grant."""
    who = kept["readers"][reader]
    host = HostId.parse(who["host"])
    key = HpkeKey.from_private_bytes(Kem(who["kem"]), bytes.fromhex(who["key"]))
    start = start_of(kept)
    if reader == "named":
        return unwrap_secret(start, host, [key])
    granted = verify_grant(parse_grant(bytes.fromhex(kept["grant"])), result_of(kept), start)
    return unwrap_secret(granted, host, [key])


def blocks_of(kept: dict[str, Any], secret: EpochSecret) -> list[Block]:
    schema = RowSchema.parse(kept["schema"], tuple(kept["schema_key"]))
    result, start = result_of(kept), start_of(kept)
    state: ChainState | None = None
    high, found = ZERO, []
    for text in kept["envelopes"]:
        verified = verify(form.parse(bytes.fromhex(text)), result, kept["trust_domain"])
        envelope = verified.envelope
        step = judge(state, envelope.header, envelope.hash, start=start, high=high)
        assert step.verdict is Verdict.ACCEPT
        state, high = step.state, envelope.header.upto
        found.append(open_(verified, secret, schema))
    return found


@pytest.mark.parametrize("reader", ["named", "late"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_was_sealed_by_a_release_opens_to_the_same_rows(path: Path, reader: str) -> None:
    kept = load(path)
    opened = [freeze._shown(block) for block in blocks_of(kept, secret_of(kept, reader))]
    assert opened == kept["opened"]


def test_frozen_files_never_change() -> None:
    """A reader in the field has these very bytes; making them anew would prove nothing."""
    listed = dict(reversed(line.split("  ")) for line in freeze.MANIFEST.read_text().splitlines())
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FILES}


def test_every_suite_of_this_release_is_frozen() -> None:
    assert {load(path)["suite"] for path in FILES} == set(suites.SUITES)


def test_a_frozen_file_is_not_written_over() -> None:
    before = FILES[0].read_bytes()
    with pytest.raises(SystemExit, match="frozen"):
        freeze.main(load(FILES[0])["suite"])
    assert FILES[0].read_bytes() == before
