"""pycose, an independent COSE library, reads our envelopes and comes to the same end.

It knows none of -19 (Ed25519), -9 and -51 (ECDSA), -49 and -50 (ML-DSA), which are newer
than it and which it would not even read: here they get a name in its table. It
builds the Sig_structure and `cryptography` verifies that. What it can verify by
itself, because only the name is new, it does.
"""

from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from pycose import algorithms, headers
from pycose.exceptions import CoseException
from pycose.keys import EC2Key, OKPKey, SymmetricKey
from pycose.keys.curves import P256, P384, Ed25519
from pycose.messages import Enc0Message, SignMessage

from fabric.attest.keys import Alg, PublicKey
from fabric.seal import envelope as form
from fabric.seal.suites import SUITES as SUITES_OF_THE_FABRIC
from tests.fakes.sealing import Party, block
from tests.vectors import judge

NEW = {Alg.ED25519: "ED25519", Alg.ESP256: "ESP256", Alg.ESP384: "ESP384"}
NEW |= {Alg.ML_DSA_65: "ML_DSA_65", Alg.ML_DSA_87: "ML_DSA_87"}
OLD: dict[int, Any] = {
    Alg.ED25519: algorithms.EdDSA,
    Alg.ESP256: algorithms.Es256,
    Alg.ESP384: algorithms.Es384,
}
"""What pycose calls the same algorithm where the curve is the key's to say."""
for alg, fullname in NEW.items():
    fields = {"identifier": int(alg), "fullname": fullname}
    algorithms.CoseAlgorithm.register_attribute()(
        type(fullname, (algorithms.CoseAlgorithm,), fields)
    )

SUITES = sorted(SUITES_OF_THE_FABRIC)


def sealed(suite: str) -> tuple[Party, bytes]:
    party = Party.make(suite=suite)
    return party, party.seal(block(), party.start(party.draft())).data


def decoded(data: bytes) -> Any:
    """CoseMessage.decode, for cbor2 6: it makes tuples inside a tag, pycose 1.1 wants lists."""
    tagged = cbor2.loads(data)
    kind: Any = {98: SignMessage, 16: Enc0Message}[tagged.tag]
    return kind.from_cose_obj(lists(tagged.value), True)


def lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [lists(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


@pytest.mark.parametrize("suite", SUITES)
def test_pycose_reads_a_cose_sign_around_a_cose_encrypt0(suite: str) -> None:
    party, data = sealed(suite)
    message = decoded(data)
    assert isinstance(message, SignMessage)
    assert message.uhdr == {}
    assert cbor2.loads(message.phdr_encoded)[judge.HEADER] == judge.header_of(data)
    assert list(message.phdr) == [judge.HEADER]
    assert [signer.phdr[headers.KID] for signer in message.signers] == [
        signer.public.thumbprint for signer in party.signers
    ]
    inner = decoded(message.payload)
    assert isinstance(inner, Enc0Message)
    assert inner.phdr == {headers.Algorithm: algorithms.A256GCM}
    assert inner.uhdr == {}


@pytest.mark.parametrize("suite", SUITES)
def test_pycose_builds_the_bytes_that_our_signatures_cover(suite: str) -> None:
    """MUST-3.6."""
    party, data = sealed(suite)
    message = decoded(data)
    for ours, theirs in zip(party.signers, message.signers, strict=True):
        theirs.external_aad = b"fabric-envelope-v1"
        covered = theirs._create_sig_structure()
        alg, key = ours.public.alg, ours.public.data
        judge.verify_one(alg, key, theirs.signature, covered)
        theirs.external_aad = b"fabric-epoch-start-v1"
        with pytest.raises(InvalidSignature):
            judge.verify_one(alg, key, theirs.signature, theirs._create_sig_structure())


@pytest.mark.parametrize("suite", SUITES)
def test_pycose_verifies_every_signature_that_is_not_post_quantum(suite: str) -> None:
    """MUST-3.7: r || s is COSE's own form, so a COSE library takes it as it is."""
    party, data = sealed(suite)
    message = decoded(data)
    verified = 0
    for ours, theirs in zip(party.signers, message.signers, strict=True):
        if ours.public.alg not in OLD:
            continue
        theirs.external_aad = b"fabric-envelope-v1"
        covered = theirs._create_sig_structure()
        algorithm, key = OLD[ours.public.alg], cose_key(ours.public)
        assert algorithm.verify(key=key, data=covered, signature=theirs.signature)
        assert not algorithm.verify(key=key, data=covered + b"x", signature=theirs.signature)
        verified += 1
    assert verified == 1


def cose_key(public: PublicKey) -> Any:
    if public.alg == Alg.ED25519:
        return OKPKey(crv=Ed25519, x=public.data)
    half = len(public.data) // 2
    curve = P256 if public.alg == Alg.ESP256 else P384
    return EC2Key(crv=curve, x=public.data[1 : 1 + half], y=public.data[1 + half :])


@pytest.mark.parametrize("suite", SUITES)
def test_pycose_decrypts_with_the_key_that_the_format_derives(suite: str) -> None:
    """MUST-5.5, MUST-5.6."""
    party, data = sealed(suite)
    inner = decoded(decoded(data).payload)
    inner.uhdr_update({headers.IV: bytes(12)})  # the nonce does not travel
    inner.external_aad = form.parse(data).header_bytes
    secret = party.secret().private_bytes()
    inner.key = SymmetricKey(k=judge.block_key(secret, judge.header_of(data)))
    assert inner.decrypt() == judge.padded_plaintext(data, secret)


def test_header_at_the_top_of_the_bucket_would_not_be_cose() -> None:
    """Why the header stands under one private label: key 1 is COSE's algorithm."""
    _, data = sealed("classic")
    bare = cbor2.dumps(judge.header_of(data))
    message = cbor2.dumps(cbor2.CBORTag(98, [bare, {}, b"", []]))
    with pytest.raises(CoseException, match="Unknown COSE attribute"):
        decoded(message)
