"""Results that a view keeps: of every host its own share, and never their heads."""

import gc
import secrets
import tracemalloc
from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.attest import fields
from fabric.attest import kept as kept_module
from fabric.attest.kept import KeptResults
from fabric.attest.keys import PublicKey
from fabric.attest.result import Result
from fabric.model.errors import PeerError, Reason
from fabric.model.limits import HOSTS_MAX, RESULT_KEYS_KIB_MAX
from fabric.model.names import HostId
from tests.fakes.verifier import HOST, NOW, OTHER, a_result

SECOND = timedelta(seconds=1)


def test_a_host_with_very_many_results_pushes_out_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "RESULTS_KEPT_MAX", 3)
    kept = KeptResults()
    honest = a_result()
    kept.add(honest)
    many = [a_result(host=OTHER, expires=NOW + n * SECOND) for n in (5, 4, 7, 6)]
    assert all(kept.add(result) for result in many)
    assert len(kept) == 3
    assert kept.find(honest.id) is not None
    found = [kept.find(result.id) is not None for result in many]
    assert found == [False, False, True, True], "those that end first go first"
    assert kept.may_have_forgotten(OTHER, NOW)
    assert not kept.may_have_forgotten(OTHER, NOW + 5 * SECOND)
    assert not kept.may_have_forgotten(HOST, NOW), "another's says nothing of its own"


def test_heads_are_not_kept_and_still_tell_two_results_of_one_id_apart() -> None:
    kept = KeptResults()
    result = a_result(heads=(b"1" * 32,) * 1_000)
    assert kept.add(result)
    assert not kept.add(result)
    found = kept.find(result.id)
    assert found is not None
    assert found.heads == ()
    with pytest.raises(PeerError) as refused:
        kept.add(a_result(id=result.id, heads=(b"2" * 32,)))
    assert refused.value.reason is Reason.FORK


def renewed(number: int, host: HostId = HOST, *, has_new_keys: bool = False) -> Result:
    """A host's result of this number, all of its bytes its own, as a reader decodes it."""
    result = a_result(host=host, quote_digest=secrets.token_bytes(32))
    keys = tuple(
        PublicKey(key.use, key.alg, (drawn if has_new_keys else copied)(key.data))
        for key in result.keys
    )
    times = {"issued": NOW + number * SECOND, "expires": NOW + (number + 600) * SECOND}
    return replace(result, keys=keys, nonce=secrets.token_bytes(32), **times)


def copied(data: bytes) -> bytes:
    return bytes(bytearray(data))


def drawn(data: bytes) -> bytes:
    return secrets.token_bytes(len(data))


def test_a_kept_result_weighs_little_beside_its_hosts_keys() -> None:
    kept, count = KeptResults(), 1_000
    kept.add(renewed(0))
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, count + 1):
            kept.add(renewed(number))
        gc.collect()
        each, _ = (size // count for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    assert len(kept) == count + 1
    assert each < 1_100, each


def test_a_host_whose_every_result_has_new_keys_pushes_out_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept_module, "RESULT_KEYS_KIB_MAX", 60)
    kept = KeptResults()
    honest = [renewed(number) for number in range(30)]
    greedy = [renewed(number, OTHER, has_new_keys=True) for number in range(30)]
    for pair in zip(honest, greedy, strict=True):
        assert [kept.add(result) for result in pair] == [True, True]
    assert all(kept.find(result.id) == replace(result, heads=()) for result in honest)
    found = [kept.find(result.id) is not None for result in greedy]
    assert found == [False] * 21 + [True] * 9, "six KiB each, and six of the other's"
    assert kept.may_have_forgotten(OTHER, NOW)


def test_every_host_of_a_full_view_keeps_the_keys_of_a_result() -> None:
    """Whoever is made to let go so has keys of more than one."""
    largest = sum(-(-size // 1024) for size in fields._KEY_BYTES.values())
    assert HOSTS_MAX * largest < RESULT_KEYS_KIB_MAX
