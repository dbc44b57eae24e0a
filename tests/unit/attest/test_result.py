from dataclasses import replace
from datetime import timedelta

import cbor2
import pytest

from fabric.attest import cose
from fabric.attest.keys import Alg, SigningKey
from fabric.attest.result import KIND, decode, encode, standing
from fabric.model import canonical
from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.label import Label
from fabric.model.limits import RESULT_BYTES_MAX
from tests.fakes.verifier import HOST, NOW, TRUST_DOMAIN, Verifier, a_result

VERIFIER = Verifier()
PROTECTED = canonical.encode({16: "application/eat+cwt"})
Claims = dict[int, canonical.Value]


def _claims() -> Claims:
    payload = cose.parse(encode(a_result(), TRUST_DOMAIN, VERIFIER.signers)).payload
    value = canonical.decode(payload)
    assert isinstance(value, dict)
    return value


def _signed(claims: Claims, protected: bytes = PROTECTED) -> bytes:
    return cose.sign(KIND, protected, canonical.encode(claims), VERIFIER.signers)


def test_result_survives_its_bytes() -> None:
    result = a_result()
    assert decode(encode(result, TRUST_DOMAIN, VERIFIER.signers), VERIFIER.trust) == result


def test_parts_of_a_second_are_cut_off() -> None:
    late = a_result(issued=NOW + timedelta(milliseconds=700))
    assert decode(encode(late, TRUST_DOMAIN, VERIFIER.signers), VERIFIER.trust).issued == NOW


def test_claims_are_those_of_cwt_and_eat() -> None:
    claims = cbor2.loads(cose.parse(_signed(_claims())).payload)
    assert claims[2] == "spiffe://fabric.example/G01/registry/a1"
    assert (claims[6], claims[4] - claims[6]) == (int(NOW.timestamp()), 600)
    assert len(claims[7]) == 16
    assert len(claims[10]) == 32


@pytest.mark.parametrize("claim", sorted(_claims()))
def test_missing_claim_is_malformed_whichever_it_is(claim: int) -> None:
    claims = _claims()
    del claims[claim]
    with pytest.raises(Malformed):
        decode(_signed(claims), VERIFIER.trust)


@pytest.mark.parametrize("claim", [3, 5, 8, 256, -65546])
def test_unknown_claim_is_malformed(claim: int) -> None:
    with pytest.raises(Malformed):
        decode(_signed({**_claims(), claim: 1}), VERIFIER.trust)


@pytest.mark.parametrize(
    "change",
    [
        {1: "spiffe://other.example/verifier"},
        {2: "spiffe://other.example/G01/registry/a1"},
        {2: "G01/registry/a1"},
        {4: int(NOW.timestamp())},
        {4: int(NOW.timestamp()) - 1},
        {4: 2**63 - 1},
        {4: -1},
        {6: "now"},
        {7: bytes(15)},
        {10: bytes(31)},
        {265: "tag:other"},
        {-65538: 0},
        {-65538: 6},
        {-65539: "secret+b+a"},
        {-65541: []},
        {-65541: [["sign", -19, bytes(32)], ["sign", -19, bytes(32)]]},
        {-65541: [["sign", -8, bytes(32)]]},
        {-65544: [bytes(31)]},
        {-65545: b""},
    ],
    ids=str,
)
def test_claim_outside_its_range_is_malformed(change: Claims) -> None:
    with pytest.raises(Malformed):
        decode(_signed({**_claims(), **change}), VERIFIER.trust)


def test_result_that_ends_before_it_begins_is_never_written() -> None:
    with pytest.raises(Malformed):
        encode(a_result(expires=NOW), TRUST_DOMAIN, VERIFIER.signers)


def test_result_of_another_verifier_is_refused() -> None:
    with pytest.raises(PeerError) as refused:
        decode(encode(a_result(), TRUST_DOMAIN, Verifier().signers), VERIFIER.trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "signers",
    [
        VERIFIER.signers[:1],
        VERIFIER.signers[::-1],
        (VERIFIER.signers[0], SigningKey.generate(Alg.ML_DSA_65)),
    ],
    ids=["only one", "other order", "one foreign"],
)
def test_every_key_of_the_verifier_must_have_signed(signers: tuple[SigningKey, ...]) -> None:
    with pytest.raises(PeerError) as refused:
        decode(encode(a_result(), TRUST_DOMAIN, signers), VERIFIER.trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_former_keys_count_as_long_as_the_policy_names_them() -> None:
    """MUST-9.41."""
    new, result = Verifier(), a_result()
    old = encode(result, TRUST_DOMAIN, VERIFIER.signers)
    both = replace(new.trust, former_keys=VERIFIER.trust.verifier_keys)
    assert decode(old, both) == result
    assert decode(encode(result, TRUST_DOMAIN, new.signers), both) == result
    with pytest.raises(PeerError) as refused:
        decode(old, new.trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_key_of_today_and_one_of_before_say_nothing_together() -> None:
    """MUST-9.41."""
    new = Verifier()
    both = replace(new.trust, former_keys=VERIFIER.trust.verifier_keys)
    for signers in (
        (new.signers[0], VERIFIER.signers[1]),
        (*new.signers, *VERIFIER.signers),
        VERIFIER.signers[:1],
    ):
        with pytest.raises(PeerError) as refused:
            decode(encode(a_result(), TRUST_DOMAIN, signers), both)
        assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_key_that_stays_counts_with_its_own_list_alone() -> None:
    """MUST-9.41, where one key of two changes."""
    same, old = VERIFIER.signers
    new, newer = (SigningKey.generate(Alg.ML_DSA_65) for _ in range(2))
    today = (*VERIFIER.trust.verifier_keys[:1], (int(new.public.alg), new.public.data))
    both = replace(VERIFIER.trust, verifier_keys=today, former_keys=VERIFIER.trust.verifier_keys)
    result = a_result()
    for signers in ((same, new), (same, old)):
        assert decode(encode(result, TRUST_DOMAIN, signers), both) == result
    for signers in ((same,), (same, newer), (same, old, new), (old, same)):
        with pytest.raises(PeerError) as refused:
            decode(encode(result, TRUST_DOMAIN, signers), both)
        assert refused.value.reason is Reason.BAD_SIGNATURE


def test_signature_of_another_kind_is_refused() -> None:
    data = cose.sign("member", PROTECTED, canonical.encode(_claims()), VERIFIER.signers)
    with pytest.raises(PeerError) as refused:
        decode(data, VERIFIER.trust)
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_other_protected_headers_are_malformed() -> None:
    with pytest.raises(Malformed):
        decode(_signed(_claims(), canonical.encode({})), VERIFIER.trust)


def test_long_result_is_malformed_before_it_is_parsed() -> None:
    with pytest.raises(Malformed, match="too long"):
        decode(bytes(RESULT_BYTES_MAX + 1), VERIFIER.trust)


def test_largest_result_stays_within_its_limit() -> None:
    result = a_result(heads=tuple(n.to_bytes(32) for n in range(1_000)))
    data = encode(result, TRUST_DOMAIN, VERIFIER.signers)
    assert len(data) <= RESULT_BYTES_MAX
    assert decode(data, VERIFIER.trust) == result


def test_standing_says_what_decisions_need() -> None:
    said = standing(a_result())
    assert (said.host, said.level, said.evidence) == (HOST, 4, "tpm2")
    assert said.clearance == Label.parse("secret+personal-data")


def test_no_changed_byte_of_a_result_is_believed() -> None:
    data = encode(a_result(), TRUST_DOMAIN, VERIFIER.signers)
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        with pytest.raises(PeerError):
            decode(changed, VERIFIER.trust)
