"""What is particular to keys in a TPM; the contract suites test what every store must do."""

import pytest

from fabric.attest.keys import Alg
from fabric.attest.resident import point_of
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, Reason
from fabric.store.tpm_keys import TpmKeys
from tests.fakes.tpm import FakeTpm


def test_the_reference_holds_the_key_as_the_tpm_wrapped_it() -> None:
    signer, reference = TpmKeys(FakeTpm(elliptic=True)).make(Alg.ESP256)
    public, private = canonical.decode(reference)  # type: ignore[misc]
    assert point_of(public) == signer.public.data  # type: ignore[arg-type]
    assert private
    assert repr(signer) == "TpmSigner(ESP256, private=hidden)"


def test_a_cleared_tpm_says_so_when_it_is_to_sign() -> None:
    tpm = FakeTpm(elliptic=True)
    signer, reference = TpmKeys(tpm).make(Alg.ESP256)
    tpm.clear()
    again = TpmKeys(tpm).load(Alg.ESP256, reference)
    for each in (signer, again):
        with pytest.raises(DeniedError) as caught:
            each.sign(b"data")
        assert caught.value.reason is Reason.SEALED_STATE_LOST


def test_another_algorithm_is_not_the_tpms() -> None:
    keys = TpmKeys(FakeTpm(elliptic=True))
    _, reference = keys.make(Alg.ESP256)
    with pytest.raises(Malformed):
        keys.load(Alg.ED25519, reference)
