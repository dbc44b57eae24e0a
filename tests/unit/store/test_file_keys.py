"""What is particular to keys in files; the contract suite tests what every store must do."""

from fabric.attest.keys import Alg
from fabric.store.file_keys import FileKeys


def test_every_algorithm_but_the_tpms_own_can_be_in_software() -> None:
    assert FileKeys().algs == frozenset(Alg) - {Alg.ESP256}
