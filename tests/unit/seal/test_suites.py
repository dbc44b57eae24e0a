"""Which algorithms a suite id stands for, and that nothing else is one."""

import pytest

from fabric.attest.keys import Alg, Kem
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.seal.suites import SUITES, Kdf, claimed_suite, suite_of


def test_no_other_suite_is_known() -> None:
    assert set(SUITES) == {"classic", "hybrid", "hybrid-tpm", "hybrid-top"}


def test_hybrid_top_is_the_strongest_of_everything() -> None:
    top = suite_of("hybrid-top")
    assert top.kem is Kem.MLKEM1024_P384
    assert top.kdf is Kdf.HKDF_SHA384
    assert top.signatures == (Alg.ESP384, Alg.ML_DSA_87)


def test_hybrid_needs_both_kinds_of_everything() -> None:
    assert suite_of("hybrid").kem is Kem.MLKEM768_X25519
    assert suite_of("hybrid").signatures == (Alg.ED25519, Alg.ML_DSA_65)


def test_hybrid_tpm_is_hybrid_with_a_key_of_the_tpm_for_ed25519() -> None:
    suite, hybrid = suite_of("hybrid-tpm"), suite_of("hybrid")
    assert (suite.kem, suite.kdf) == (hybrid.kem, hybrid.kdf)
    assert suite.signatures == (Alg.ESP256, Alg.ML_DSA_65)


@pytest.mark.parametrize("name", ["", "Classic", "hybrid-bottom", "none"])
def test_unknown_suite_is_denied(name: str) -> None:
    with pytest.raises(DeniedError) as caught:
        suite_of(name)
    assert caught.value.reason is Reason.SUITE_REFUSED


def test_unknown_suite_in_foreign_bytes_is_their_fault() -> None:
    """MUST-1.1: the name is not signed for yet, so it denies nobody anything."""
    with pytest.raises(PeerError) as caught:
        claimed_suite("iybrid")
    assert caught.value.reason is Reason.SUITE_REFUSED
    assert claimed_suite("hybrid") is suite_of("hybrid")
