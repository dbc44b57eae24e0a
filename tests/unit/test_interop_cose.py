"""pycose, an independent COSE library, reads our envelopes and comes to the same end.

It knows neither -19 (Ed25519) nor -49 (ML-DSA-65), which are newer than it and
which it would not even read: here they get a name in its table. It builds the
Sig_structure and `cryptography` verifies that.
"""

from collections.abc import Mapping
from typing import Any

import cbor2
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from pycose import algorithms, headers
from pycose.exceptions import CoseException
from pycose.keys import SymmetricKey
from pycose.messages import Enc0Message, SignMessage

from fabric.attest.keys import Alg
from fabric.seal import envelope as form
from tests.fakes.sealing import Party, block
from tests.vectors import judge


@algorithms.CoseAlgorithm.register_attribute()
class Ed25519(algorithms.CoseAlgorithm):
    """RFC 9864; pycose knows only the older name of it, -8."""

    identifier = -19
    fullname = "ED25519"


@algorithms.CoseAlgorithm.register_attribute()
class MlDsa65(algorithms.CoseAlgorithm):
    """ML-DSA for COSE."""

    identifier = -49
    fullname = "ML_DSA_65"


SUITES = ["classic", "hybrid"]


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
        verifier: Any
        if ours.public.alg == Alg.ED25519:
            verifier = ed25519.Ed25519PublicKey.from_public_bytes(ours.public.data)
        else:
            verifier = mldsa.MLDSA65PublicKey.from_public_bytes(ours.public.data)
        verifier.verify(theirs.signature, covered)
        theirs.external_aad = b"fabric-epoch-start-v1"
        with pytest.raises(InvalidSignature):
            verifier.verify(theirs.signature, theirs._create_sig_structure())


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
