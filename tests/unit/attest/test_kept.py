"""Results that a view keeps: of every host its own share, and never their heads."""

from datetime import timedelta

import pytest

from fabric.attest import kept as kept_module
from fabric.attest.kept import KeptResults
from fabric.model.errors import PeerError, Reason
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
