"""The refusal log, and its pages over HTTPS."""

import hashlib
from pathlib import Path

import aiohttp
import pytest

from fabric.config_fields import Address
from fabric.gateway.refusals import RefusalLog, serving
from fabric.model.errors import ConfigInvalid, Reason
from fabric.model.names import HostId
from fabric.web.refusals import RefusalsClient
from tests.fakes.gateway_doors import Pki

A = HostId.parse("G01/registry/a1")
B = HostId.parse("G02/health/b1")
DIGEST = hashlib.sha256(b"value").digest()
TOPIC = "secret.G01.notes"
ANY = Address("127.0.0.1", 0)


def a_log() -> RefusalLog:
    log = RefusalLog()
    log.note(str(A), TOPIC, 0, digest=DIGEST, reason=Reason.REPLAYED)
    return log


def test_a_reason_is_found_by_all_of_its_key() -> None:
    log = a_log()
    assert log.reason_of(str(A), TOPIC, 0, digest=DIGEST) is Reason.REPLAYED
    assert log.reason_of(str(B), TOPIC, 0, digest=DIGEST) is None
    assert log.reason_of(str(A), TOPIC, 1, digest=DIGEST) is None
    assert log.reason_of(str(A), "other", 0, digest=DIGEST) is None
    assert log.reason_of(str(A), TOPIC, 0, digest=bytes(32)) is None


def test_the_newest_reason_counts_and_the_oldest_is_forgotten() -> None:
    log = RefusalLog(size=2)
    for number in (1, 2, 3):
        log.note("a", "t", number, digest=DIGEST, reason=Reason.NOT_READY)
    log.note("a", "t", 2, digest=DIGEST, reason=Reason.REPLAYED)
    assert len(log) == 2
    assert log.reason_of("a", "t", 1, digest=DIGEST) is None
    assert log.reason_of("a", "t", 2, digest=DIGEST) is Reason.REPLAYED


async def test_a_client_learns_its_own_reasons_alone(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    context = pki.server(pki.platform("gateway"))
    domain = "fabric.example"
    mine, others = (pki.client(pki.host(host, domain)) for host in (A, B))
    async with serving(a_log(), ANY, context=context, trust_domain=lambda: domain) as port:
        urls = [f"https://localhost:{port}"]
        asked = RefusalsClient(urls, lambda: mine)
        assert await asked.reason_of(TOPIC, 0, DIGEST) is Reason.REPLAYED
        assert await asked.reason_of(TOPIC, 1, DIGEST) is None
        assert await RefusalsClient(urls, lambda: others).reason_of(TOPIC, 0, DIGEST) is None


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/refusals/{TOPIC}/0/{DIGEST.hex()}", 200),
        (f"/refusals/{TOPIC}/0/{DIGEST.hex().upper()}", 404),
        (f"/refusals/{TOPIC}/0/abc", 404),
        (f"/refusals/{TOPIC}/-1/{DIGEST.hex()}", 404),
        (f"/refusals/{TOPIC}/{'9' * 5000}/{DIGEST.hex()}", 404),
        ("/refusals", 404),
        ("/", 404),
    ],
)
async def test_odd_questions_have_no_answer(tmp_path: Path, path: str, status: int) -> None:
    pki = Pki(tmp_path)
    context = pki.server(pki.platform("gateway"))
    mine = pki.client(pki.host(A, "fabric.example"))
    async with (
        serving(a_log(), ANY, context=context, trust_domain=lambda: "fabric.example") as port,
        aiohttp.ClientSession() as session,
        session.get(f"https://localhost:{port}{path}", ssl=mine) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize("domain", [None, "other.example"])
async def test_nobody_is_answered_without_an_identity(tmp_path: Path, domain: str | None) -> None:
    pki = Pki(tmp_path)
    context = pki.server(pki.platform("gateway"))
    mine = pki.client(pki.host(A, "fabric.example"))
    async with (
        serving(a_log(), ANY, context=context, trust_domain=lambda: domain) as port,
        aiohttp.ClientSession() as session,
        session.get(
            f"https://localhost:{port}/refusals/{TOPIC}/0/{DIGEST.hex()}", ssl=mine
        ) as answer,
    ):
        assert answer.status == 403


async def test_a_taken_address_is_a_matter_of_configuration(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    context = pki.server(pki.platform("gateway"))
    async with serving(a_log(), ANY, context=context, trust_domain=lambda: None) as port:
        taken = Address("127.0.0.1", port)
        with pytest.raises(ConfigInvalid, match=r"gateway\.side_listen"):
            async with serving(a_log(), taken, context=context, trust_domain=lambda: None):
                pass


def test_nobodys_refusals_make_room_for_anothers() -> None:
    log = RefusalLog(size=3, identities=2)
    log.note("a", "t", 0, digest=b"1", reason=Reason.NOT_ATTESTED)
    for number in range(1000):
        log.note("b", "t", number, digest=b"2", reason=Reason.MALFORMED)
    assert log.reason_of("a", "t", 0, digest=b"1") is Reason.NOT_ATTESTED
    assert len(log) == 4
    log.note("c", "t", 0, digest=b"3", reason=Reason.MALFORMED)
    assert log.reason_of("a", "t", 0, digest=b"1") is None
