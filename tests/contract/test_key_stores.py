"""One suite for ports.KeyStore: keys in software, on a token and in a TPM must pass it alike."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

import pytest

from fabric.agent.keyring import Keyring, generate, plan_for, to_records
from fabric.attest.keys import Alg, Use, verify
from fabric.model.errors import Malformed, PeerError
from fabric.ports import KeyStore, Tpm
from fabric.seal.suites import SUITES
from fabric.store.file_keys import FileKeys
from fabric.store.tpm_keys import TpmKeys
from tests.contract.softhsm import tokens
from tests.fakes.tpm import FakeTpm
from tests.fakes.verifier import a_result

CASES = [
    pytest.param((name, alg), id=f"{name}-{alg.name}")
    for name, algs in (
        ("file", sorted(FileKeys.algs)),
        ("pkcs11", [Alg.ED25519, Alg.ESP384]),
        ("tpm", [Alg.ESP256]),
    )
    for alg in algs
]


@cache
def tpm() -> Tpm:
    """One for all tests; test_tpm.py runs the same keys on a real one."""
    return FakeTpm(elliptic=True)


def opened(name: str) -> KeyStore:
    if name == "tpm":
        return TpmKeys(tpm())
    return FileKeys() if name == "file" else tokens().keys()


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[KeyStore, KeyStore, Alg]]:
    """A store, the same store as the next process opens it, and an algorithm it makes."""
    name, alg = request.param
    store, later = opened(name), opened(name)
    yield store, later, alg
    for each in (store, later):
        getattr(each, "close", lambda: None)()


Case = tuple[KeyStore, KeyStore, Alg]


def test_a_key_signs_and_everyone_can_verify(case: Case) -> None:
    store, _, alg = case
    assert alg in store.algs
    signer, _ = store.make(alg)
    assert (signer.public.use, signer.public.alg) == (Use.SIGN, alg)
    for data in (b"", b"data", bytes(100_000)):
        verify(signer.public, signer.sign(data), data)
        with pytest.raises(PeerError):
            verify(signer.public, signer.sign(data), data + b"x")


def test_every_key_is_another(case: Case) -> None:
    store, _, alg = case
    made = [store.make(alg) for _ in range(2)]
    assert made[0][0].public.data != made[1][0].public.data
    assert made[0][1] != made[1][1]


def test_the_next_process_finds_the_key_by_its_reference(case: Case) -> None:
    store, later, alg = case
    signer, reference = store.make(alg)
    again = later.load(alg, reference)
    assert again.public == signer.public
    verify(signer.public, again.sign(b"data"), b"data")


@pytest.mark.parametrize("reference", [b"", b"garbage", bytes(15)])
def test_a_reference_that_is_none_is_refused(case: Case, reference: bytes) -> None:
    store, _, alg = case
    with pytest.raises(Malformed):
        store.load(alg, reference)


def test_dropping_twice_is_no_error(case: Case) -> None:
    store, _, alg = case
    _, reference = store.make(alg)
    store.drop(alg, reference)
    store.drop(alg, reference)


def test_nothing_of_a_key_shows(case: Case) -> None:
    store, _, alg = case
    signer, reference = store.make(alg)
    shown = f"{signer!r} {signer} {store!r}"
    assert "private" not in shown or "private=hidden" in shown
    if store.name == "file":
        assert reference.hex() not in shown


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("file", "hybrid"),
        ("file", "hybrid-top"),
        ("pkcs11", "hybrid"),
        ("pkcs11", "hybrid-top"),
        ("tpm", "hybrid-tpm"),
    ],
)
def test_a_ring_signs_for_a_suite_whatever_the_store(name: str, suite: str) -> None:
    stores = (opened(name), FileKeys())
    made = generate(datetime(2026, 11, 26, tzinfo=UTC), plan_for((suite,)), stores)
    ring = Keyring(to_records(made), stores)
    signers = ring.signers(a_result(keys=made.bound), SUITES[suite])
    for signer in signers:
        verify(signer.public, signer.sign(b"block"), b"block")
    places = [key.store for key in made.signing]
    assert sorted(places) == sorted([name, "file"])
