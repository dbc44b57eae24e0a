import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from fabric.attest import evidence
from fabric.attest.evidence import sized
from fabric.model.errors import Malformed
from tests.fakes.tpm import FakeTpm, public_area, signature

TPM = FakeTpm()
PCRS = (0, 1, 7, 23)
QUOTE = TPM.quote(PCRS, bytes(32))
AK = TPM.ak_public()


def test_attestation_key_is_read_with_its_name() -> None:
    ak = evidence.parse_ak(AK)
    assert ak.key == TPM.ak.public_key()
    assert ak.attributes == evidence.AK_ATTRIBUTES
    assert ak.name == b"\x00\x0b" + hashlib.sha256(AK[2:]).digest()


def test_attributes_are_those_the_design_names() -> None:
    bits = {"fixedTPM": 1, "fixedParent": 4, "sensitiveDataOrigin": 5, "userWithAuth": 6}
    bits |= {"noDA": 10, "restricted": 16, "sign": 18}
    assert sum(1 << bit for bit in bits.values()) == evidence.AK_ATTRIBUTES


def test_quote_is_read_field_by_field() -> None:
    words = TPM.words(PCRS, b"extra")
    attest = evidence.parse_attest(words.marshal())
    assert (attest.magic, attest.type) == (0xFF544347, 0x8018)
    assert (attest.signer, attest.extra, attest.pcr_digest) == (
        words.signer,
        b"extra",
        words.digest,
    )
    assert (attest.clock, attest.resets, attest.restarts) == (words.clock, 3, 0)
    assert attest.safe
    assert attest.selection == ((evidence.ALG_SHA256, frozenset(PCRS)),)


def test_signature_is_read() -> None:
    read = evidence.parse_signature(QUOTE.signature)
    assert (read.algorithm, read.hash) == (evidence.ALG_ECDSA, evidence.ALG_SHA256)
    assert 0 < read.r < 2**256


@pytest.mark.parametrize(
    ("parse", "data"),
    [
        (evidence.parse_ak, AK),
        (evidence.parse_attest, QUOTE.attest),
        (evidence.parse_signature, QUOTE.signature),
    ],
    ids=["key", "quote", "signature"],
)
def test_missing_or_trailing_bytes_are_malformed(parse: object, data: bytes) -> None:
    assert callable(parse)
    for bad in (*(data[:end] for end in range(len(data))), data + b"\0", data + data):
        with pytest.raises(Malformed):
            parse(bad)


def test_bytes_inside_the_keys_area_after_its_end_are_malformed() -> None:
    with pytest.raises(Malformed):
        evidence.parse_ak(sized(AK[2:] + b"\0"))


@pytest.mark.parametrize("at", [0, 1, 2, 3, *range(10, 20)])
def test_key_of_another_kind_curve_scheme_or_hash_is_malformed(at: int) -> None:
    area = bytearray(AK[2:])
    area[at] ^= 0x01
    with pytest.raises(Malformed):
        evidence.parse_ak(sized(bytes(area)))


def test_point_that_is_not_on_the_curve_is_malformed() -> None:
    with pytest.raises(Malformed):
        evidence.parse_ak(AK[:-1] + bytes([AK[-1] ^ 1]))


def test_changed_attributes_change_the_name() -> None:
    other = public_area(TPM.ak.public_key(), evidence.AK_ATTRIBUTES & ~0x10000)
    assert evidence.parse_ak(other).name != evidence.parse_ak(AK).name


def test_truth_value_that_is_neither_is_malformed() -> None:
    words = TPM.words(PCRS, b"")
    at = 4 + 2 + 2 + len(words.signer) + 2 + 8 + 4 + 4
    data = bytearray(words.marshal())
    assert data[at] == 1
    data[at] = 2
    with pytest.raises(Malformed):
        evidence.parse_attest(bytes(data))


@pytest.mark.parametrize("count", [17, 0xFFFFFFFF])
def test_too_many_banks_are_malformed_before_they_are_read(count: int) -> None:
    words = TPM.words(PCRS, b"")
    banks = words.marshal()[: -(2 + 32) - 6 - 4] + count.to_bytes(4)
    with pytest.raises(Malformed):
        evidence.parse_attest(banks + b"\x00\x0b\x00" * 100)


def test_long_structure_is_malformed() -> None:
    with pytest.raises(Malformed):
        evidence.parse_attest(bytes(5_000))


def test_coordinate_with_a_leading_zero_may_be_short() -> None:
    for number in range(2, 2_000):
        point = ec.derive_private_key(number, ec.SECP256R1()).public_key()
        x = point.public_numbers().x
        if x < 2**248:
            break
    area = public_area(point)
    short = sized(area[2:-68] + sized(x.to_bytes(31)) + area[-34:])
    assert evidence.parse_ak(short).key == point


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
def test_any_two_numbers_are_a_signature(r: int, s: int) -> None:
    data = b"\x00\x18\x00\x0b" + sized(r.to_bytes(32)) + sized(s.to_bytes(32))
    read = evidence.parse_signature(data)
    assert (read.r, read.s) == (r, s)


def test_sha1_is_read_but_named() -> None:
    read = evidence.parse_signature(signature(TPM.ak, b"data", 0x0004))
    assert read.hash == 0x0004
