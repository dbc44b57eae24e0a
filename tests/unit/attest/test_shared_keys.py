"""Keys of kept results: each once in memory, and counted against its host."""

from fabric.attest.keys import Alg, Kem, PublicKey, Use
from fabric.attest.shared_keys import SharedKeys
from tests.fakes.verifier import HOST, OTHER


def copies(*named: bytes) -> tuple[PublicKey, ...]:
    """The keys of these names as they come with another result: equal, and not the same."""
    algs = {b"s": (Use.SIGN, Alg.ED25519, 32), b"m": (Use.SIGN, Alg.ML_DSA_65, 1952)}
    algs[b"h"] = (Use.HPKE, Kem.MLKEM768_X25519, 1216)
    found = []
    for name in named:
        use, alg, size = algs[name[:1]]
        found.append(PublicKey(use, int(alg), name.ljust(size, b"-")))
    return tuple(found)


def test_equal_keys_of_one_host_are_one_and_of_two_hosts_are_two() -> None:
    shared = SharedKeys()
    first = shared.take(HOST, copies(b"s1", b"m1"))
    again = shared.take(HOST, copies(b"s2", b"m1"))
    assert again == copies(b"s2", b"m1")
    assert again[1] is first[1]
    assert shared.take(OTHER, copies(b"m1"))[0] is not first[1]


def test_every_kib_begun_of_a_key_counts_once_for_its_host() -> None:
    shared = SharedKeys()
    for _ in range(3):
        shared.take(HOST, copies(b"s", b"m", b"h"))
    assert shared.kib == 1 + 2 + 2
    shared.take(OTHER, copies(b"s"))
    assert shared.kib == 6
    assert shared.largest() == HOST


def test_a_key_is_let_go_with_the_last_result_that_has_it() -> None:
    shared = SharedKeys()
    for named in ((b"s1", b"m"), (b"s2", b"m")):
        shared.take(HOST, copies(*named))
    shared.take(OTHER, copies(b"h"))
    shared.drop(HOST, copies(b"s1", b"m"))
    assert shared.kib == 1 + 2 + 2
    shared.drop(HOST, copies(b"s2", b"m"))
    assert shared.kib == 2
    assert shared.largest() == OTHER
    shared.drop(OTHER, copies(b"h"))
    assert (shared.kib, shared._held) == (0, {})
