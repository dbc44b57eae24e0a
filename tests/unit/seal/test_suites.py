"""Which algorithms a suite id stands for, and that nothing else is one."""

import pytest

from fabric.attest.keys import Alg, Kem
from fabric.model.errors import DeniedError, Reason
from fabric.seal.suites import SUITES, suite_of


def test_classic_and_hybrid_are_the_only_suites() -> None:
    assert set(SUITES) == {"classic", "hybrid"}


def test_hybrid_needs_both_kinds_of_everything() -> None:
    assert suite_of("hybrid").kem is Kem.MLKEM768_X25519
    assert suite_of("hybrid").signatures == (Alg.ED25519, Alg.ML_DSA_65)


@pytest.mark.parametrize("name", ["", "Classic", "hybrid-top", "none"])
def test_unknown_suite_is_denied(name: str) -> None:
    with pytest.raises(DeniedError) as caught:
        suite_of(name)
    assert caught.value.reason is Reason.SUITE_REFUSED
