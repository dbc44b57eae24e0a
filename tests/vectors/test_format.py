"""docs/format.md keeps its word: the example decodes, rules are tested, tables are the code's."""

import ast
import json
import re
from pathlib import Path

import pytest

from fabric.attest.keys import Alg, PublicKey, Use
from fabric.model import limits
from fabric.seal import envelope as form
from fabric.seal.opening import open_
from fabric.seal.secret import EpochSecret, block_key, epoch_id
from fabric.seal.suites import SUITES, Kdf
from fabric.seal.verify import verify
from tests.fakes.sealing import NOTES, TOPIC, TRUST_DOMAIN, Party, block
from tests.vectors import judge

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/format.md").read_text()
EXAMPLE = {
    name: bytes.fromhex(text.replace("\n", ""))
    for name, text in re.findall(r"```hex ([a-z0-9-]+)\n([0-9a-f\n]+)```", PAGE)
}
KDF = Kdf.HKDF_SHA256
MUST = re.compile(r"MUST-\d+\.\d+")
RULES = sorted(set(MUST.findall(PAGE)))


def test_worked_example_is_the_vector_it_names() -> None:
    vector = json.loads((ROOT / "tests/vectors/envelope-good-plain.json").read_text())
    assert EXAMPLE["envelope"].hex() == vector["value"]
    assert EXAMPLE["secret"].hex() == vector["given"]["secret"]


def test_worked_example_decodes_to_its_block() -> None:
    party = Party.make()
    public = PublicKey(Use.SIGN, Alg.ED25519, EXAMPLE["public"])
    assert public == party.signers[0].public
    assert public.thumbprint.hex() in PAGE
    envelope = form.parse(EXAMPLE["envelope"])
    verified = verify(envelope, party.result, TRUST_DOMAIN)
    secret = EpochSecret(EXAMPLE["secret"])
    assert open_(verified, secret, NOTES) == block()
    header = envelope.header
    assert envelope.hash == EXAMPLE["envelope-hash"]
    assert header.salt == EXAMPLE["salt"]
    assert epoch_id(secret, header.sender, str(TOPIC), 1, kdf=KDF) == EXAMPLE["epoch-id"]
    key = block_key(secret, form.key_info(header), header.salt, kdf=KDF)
    assert key == EXAMPLE["block-key"]
    assert judge.sha(form.without_salt(header)) == EXAMPLE["header-without-salt-sha256"]


def test_worked_example_decodes_without_our_code() -> None:
    value, secret = EXAMPLE["envelope"], EXAMPLE["secret"]
    judge.verify_signatures(value, "envelope", [(Alg.ED25519, EXAMPLE["public"])])
    assert judge.padded_plaintext(value, secret) == EXAMPLE["padded-plaintext"]
    assert judge.block_key(secret, judge.header_of(value)) == EXAMPLE["block-key"]
    assert judge.envelope_hash(value) == EXAMPLE["envelope-hash"]


def test_example_shows_the_header_it_decodes_to() -> None:
    shown = PAGE[PAGE.index("## 11") :]
    for key, value in judge.header_of(EXAMPLE["envelope"]).items():
        text = f"h'{value.hex()}'" if isinstance(value, bytes) else json.dumps(value)
        assert f"  {key}: {text},\n" in shown


def by_vectors() -> dict[str, tuple[set[str], set[str]]]:
    """For each rule the vectors that obey it and those that break it."""
    found: dict[str, tuple[set[str], set[str]]] = {rule: (set(), set()) for rule in RULES}
    for path in (ROOT / "tests/vectors").glob("*.json"):
        vector = json.loads(path.read_text())
        for rule in vector["musts"]:
            found[rule][vector["expect"] != "success"].add(path.stem)
    return found


def rules_beside(text: str, node: ast.AST) -> set[str]:
    """Rules that a test's docstring names, or a comment in it, or right above it."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
    lines = text.splitlines()
    while lines[first - 2].lstrip().startswith("#"):
        first -= 1
    comments = [line.partition("#")[2] for line in lines[first - 1 : node.end_lineno]]
    return set(MUST.findall("\n".join([ast.get_docstring(node) or "", *comments])))


def cited() -> dict[str, set[str]]:
    """For each rule the tests that name it.

    A file that names it says nothing: the test of the rule may be gone from it.
    """
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            is_class = isinstance(node, ast.ClassDef)
            prefix = "Test" if is_class else "test_"
            if (is_function or is_class) and node.name.startswith(prefix):
                for rule in rules_beside(text, node):
                    found.setdefault(rule, set()).add(f"{path.name}::{node.name}")
    return found


VECTORS, CITED = by_vectors(), cited()


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_a_vector_that_obeys_and_one_that_breaks_it_or_a_test(rule: str) -> None:
    """What a sender does, or what no single record shows, is a test that names the rule."""
    obeying, breaking = VECTORS[rule]
    tests = CITED.get(rule, set())
    assert tests or (obeying and breaking), f"{rule}: obeyed by {obeying}, broken by {breaking}"


def test_every_rule_of_the_page_is_named_by_a_vector_or_a_test() -> None:
    rules = set(RULES)
    assert len(rules) > 60
    named: set[str] = set()
    for path in (ROOT / "tests").rglob("*"):
        if path.suffix in (".json", ".py") and path.name != "generate.py":
            named |= set(MUST.findall(path.read_text()))
    assert rules - named == set(), "rules that nothing tests"
    assert named - rules == set(), "rules that the page does not have"


def test_header_keys_of_page_and_cddl_are_the_codes() -> None:
    party = Party.make()
    data = party.seal(block(), party.start(party.draft())).data
    keys = set(form.header_map(form.parse(data).header))
    table = PAGE[PAGE.index("| key | name | value |") : PAGE.index("The schema's canonical JSON")]
    assert {int(key) for key in re.findall(r"^\| (\d+) \|", table, re.M)} == keys
    cddl = (ROOT / "schemas/envelope.cddl").read_text()
    header = cddl[cddl.index("header = {") :]
    header = header[: header.index("}")]
    assert {int(key) for key in re.findall(r"^  (\d+) =>", header, re.M)} == keys


def test_limits_of_the_page_are_the_codes() -> None:
    table = PAGE[PAGE.index("## 10 Limits") : PAGE.index("## 11")]
    for number in (
        limits.ENVELOPE_BYTES_MAX,
        limits.HEADER_BYTES_MAX,
        limits.BLOCK_CHANGES_MAX,
        limits.BLOCK_VALUES_MAX,
        limits.BLOCK_NULLS_MAX,
        limits.BLOCK_BYTES_MAX,
        limits.EXPANSION_RATIO_MAX,
        limits.EPOCH_BLOCKS_MAX,
        limits.CONTROL_RECORD_BYTES_MAX,
        limits.RECIPIENTS_MAX,
        limits.WRAPS_PER_RECORD_MAX,
        limits.EPOCH_HEADS_MAX,
        limits.SIGNATURES_MAX,
        limits.CBOR_DEPTH_MAX,
        limits.CBOR_ITEMS_MAX,
        limits.RECEIPT_ITEMS_MAX,
        limits.CARRIER_ITEMS_MAX,
        limits.WRAPS_PER_RECORD_MAX + 4,
        limits.NOTICES_ANSWER_ITEMS_MAX,
        limits.HEADER_ITEMS_MAX,
        limits.CBOR_ITEMS_DEFAULT,
        limits.HEADS_REMEMBERED,
        limits.SUPERSEDED_REMEMBERED,
        limits.DECOMPRESSED_BYTES_MAX // 2**20,
    ):
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", table), number


def test_open_form_begins_with_the_origin() -> None:
    """MUST-8.1."""
    assert [field["name"] for field in NOTES.change_declared["fields"]][0] == "origin"
    change = PAGE[PAGE.index("fabric.Change") : PAGE.index("MUST-8.1")]
    named = re.findall(r"(\w+): ", change)
    assert named == [field["name"] for field in NOTES.change_declared["fields"]]


def test_suites_of_the_page_are_the_codes() -> None:
    table = PAGE[PAGE.index("| suite |") : PAGE.index("Raw keys:")]
    rows = {row.split("|")[1].strip(" `"): row for row in table.splitlines() if "0x" in row}
    assert set(rows) == set(SUITES)
    for name, suite in SUITES.items():
        assert f"0x{suite.kem:04x}" in rows[name]
        assert f"{suite.kdf.value.upper().replace('SHA', 'SHA-')} " in rows[name]
        assert tuple(map(int, re.findall(r"\((-\d+)\)", rows[name]))) == suite.signatures
