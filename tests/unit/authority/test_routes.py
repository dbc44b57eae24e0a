"""The HTTP face: statuses, sizes, deadlines, shares; errors that never read as consent."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from fabric.attest.catchup import Catchup
from fabric.attest.members import Members, NoticeKind
from fabric.attest.messages import Refusal
from fabric.authority import machine
from fabric.authority.admin_messages import Scope
from fabric.authority.ledger import Ledger
from fabric.authority.routes import Routes
from fabric.metrics import AuthorityMetrics
from fabric.model.errors import PeerError, Reason, UnavailableError
from fabric.model.limits import REQUEST_BYTES_MAX
from fabric.model.names import MEMBERS
from tests.fakes.authority_site import ADMIN, SENDER, AuthoritySite, until
from tests.fakes.policy_repository import Repository
from tests.fakes.verifier import a_notice

CBOR = {"Content-Type": "application/cbor"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    async with site.running():
        yield site
    site.close()


@pytest.fixture
def metrics() -> AuthorityMetrics:
    return AuthorityMetrics()


@pytest.fixture
async def client(site: AuthoritySite, metrics: AuthorityMetrics) -> AsyncIterator[TestClient]:
    routes = Routes(site.service, lambda: site.policy, clock=site.clock, metrics=metrics)
    async with TestClient(TestServer(routes.application())) as client:
        yield client


async def post(client: TestClient, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    async with client.post(path, data=body, headers={**CBOR, **headers}) as answer:
        return answer.status, await answer.read()


async def refusal(client: TestClient, path: str, body: bytes, **headers: str) -> tuple[int, Reason]:
    status, data = await post(client, path, body, **headers)
    return status, Refusal.decode(data).reason


async def test_a_host_goes_the_whole_way(site: AuthoritySite, client: TestClient) -> None:
    machine = site.machines[SENDER]
    status, answer = await post(client, "/enrol", machine.enrol_request())
    assert status == 200
    status, _ = await post(client, "/enrol/activate", machine.activate_request(answer))
    assert status == 204
    status, answer = await post(client, "/challenge", machine.challenge_request())
    assert status == 200
    status, answer = await post(client, "/attest", machine.attest_request(answer))
    assert status == 200


async def test_every_answer_ends_its_connection(site: AuthoritySite, client: TestClient) -> None:
    for path in ("/challenge", "/nothing"):
        async with client.post(path, data=b"x", headers=CBOR) as answer:
            assert answer.headers["Connection"] == "close"


async def test_files_of_the_policy_are_everybodys_and_share_a_connection(
    site: AuthoritySite, metrics: AuthorityMetrics, tmp_path: Path
) -> None:
    folder = Repository(tmp_path / "policy").publish().folder
    routes = Routes(
        site.service, lambda: site.policy, clock=site.clock, metrics=metrics, repository=folder
    )
    async with TestClient(TestServer(routes.application())) as client:
        for name in ("timestamp", "7.snapshot", "7.targets"):
            async with client.get(f"/policy/metadata/{name}.json") as answer:
                assert answer.status == 200
                assert answer.headers.get("Connection") != "close"
                assert await answer.read() == (folder / f"metadata/{name}.json").read_bytes()
        async with client.get("/policy/metadata/none.json") as answer:
            assert (answer.status, answer.headers["Connection"]) == (404, "close")
        async with client.post("/policy/metadata/timestamp.json", data=b"x") as answer:
            assert answer.status == 405


@pytest.mark.parametrize("path", ["/enrol", "/enrol/activate", "/challenge", "/attest"])
async def test_garbage_is_refused_with_a_reason(client: TestClient, path: str) -> None:
    for body in (b"", b"\xff", b"garbage", b"\xa0", bytes(1000)):
        assert await refusal(client, path, body) == (400, Reason.MALFORMED)


async def test_another_content_type_or_encoding_is_refused(client: TestClient) -> None:
    json = {"Content-Type": "application/json"}
    assert await refusal(client, "/challenge", b"{}", **json) == (400, Reason.MALFORMED)
    bomb = {"Content-Encoding": "deflate"}
    status, _ = await post(client, "/challenge", b"\x78\x9c", **bomb)
    assert status == 400


async def test_a_body_that_is_too_large_is_refused(client: TestClient) -> None:
    body = bytes(REQUEST_BYTES_MAX + 1)
    assert await refusal(client, "/attest", body) == (413, Reason.TOO_LARGE)


async def test_a_body_that_grows_too_large_is_refused(client: TestClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(REQUEST_BYTES_MAX // 10)

    async with client.post("/attest", data=endless(), headers=CBOR) as answer:
        assert answer.status == 413


async def test_a_strangers_large_bodies_count_for_more(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "REQUESTS_BURST_MAX", 40)
    monkeypatch.setattr(machine, "REQUESTS_PER_S_MAX", 0)
    body = bytes(REQUEST_BYTES_MAX)
    seen = [await refusal(client, "/attest", body) for _ in range(3)]
    assert seen == [(400, Reason.MALFORMED)] * 2 + [(429, Reason.OVERLOADED)]


async def test_denials_have_their_statuses(site: AuthoritySite, client: TestClient) -> None:
    machine = site.machines[SENDER]
    body = machine.challenge_request()
    assert await refusal(client, "/challenge", body) == (403, Reason.NOT_ENROLLED)
    await site.enrol(machine)
    machine.tpm.clear()
    body = machine.enrol_request()
    assert await refusal(client, "/enrol", body) == (409, Reason.ENROLMENT_CONFLICT)


async def test_a_missing_gateway_is_503(
    site: AuthoritySite, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.1)
    machine = site.machines[SENDER]
    await site.ticks.opened()
    await site.enrol(machine)
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
    body = machine.attest_request(await site.challenge(machine))
    assert await refusal(client, "/attest", body) == (503, Reason.GATEWAY_UNAVAILABLE)


async def test_a_peer_that_asks_too_often_gets_429(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.machine.REQUESTS_BURST_MAX", 2)
    monkeypatch.setattr("fabric.authority.machine.REQUESTS_PER_S_MAX", 0)
    for expected in (400, 400, 429):
        status, _ = await post(client, "/challenge", b"garbage")
        assert status == expected


async def test_a_bug_is_a_refusal_and_is_logged(
    site: AuthoritySite, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(site.service._challenges, "open", broken)
    machine = site.machines[SENDER]
    await site.enrol(machine)
    status, data = await post(client, "/challenge", machine.challenge_request())
    assert (status, Refusal.decode(data).reason) == (500, Reason.INTERNAL)
    assert b"secret detail" not in data


async def test_an_operation_that_hangs_ends_at_its_deadline(
    site: AuthoritySite, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.routes.REQUEST_S_MAX", 0.1)

    async def hang(*_args: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(site.ledger, "do", hang)
    body = site.machines[SENDER].challenge_request()
    assert await refusal(client, "/challenge", body) == (503, Reason.OVERLOADED)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/hosts"),
        ("GET", "/admin/enrolments"),
        ("POST", "/admin/revoke"),
        ("POST", "/admin/suspend"),
        ("POST", "/admin/forget"),
        ("GET", "/subjects"),
        ("GET", "/schemas/ids/1"),
        ("GET", "/subjects/x/versions"),
        ("GET", "/subjects/x/versions/1"),
    ],
)
async def test_without_a_certificate_these_are_closed(
    client: TestClient, method: str, path: str
) -> None:
    async with client.request(method, path, headers=CBOR) as answer:
        assert answer.status == 403
        assert Refusal.decode(await answer.read()).reason is Reason.API_REFUSED


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/enrol", 405), ("PUT", "/attest", 405), ("POST", "/admin/x", 404)],
)
async def test_what_is_not_a_route_is_refused(
    client: TestClient, method: str, path: str, status: int
) -> None:
    async with client.request(method, path) as answer:
        assert answer.status == status
        assert Refusal.decode(await answer.read()).reason is Reason.API_REFUSED


async def test_requests_and_refusals_are_counted(
    site: AuthoritySite, client: TestClient, metrics: AuthorityMetrics
) -> None:
    machine = site.machines[SENDER]
    await site.enrol(machine)
    body = machine.attest_request(await site.challenge(machine))
    await post(client, "/attest", body)
    await post(client, "/attest", body)
    sample = metrics.registry.get_sample_value
    for result, count in (("ok", 1.0), ("refused", 1.0), ("unavailable", 0.0)):
        labels = {"operation": "attest", "result": result}
        assert sample("fabric_authority_requests_total", labels) == count
    labels = {"reason": "nonce_refused"}
    assert sample("fabric_authority_attestation_failures_total", labels) == 1.0


def test_every_family_has_a_refusing_status() -> None:
    from fabric.authority.routes import _refuse

    for error in (PeerError(Reason.INTERNAL, "x"), UnavailableError(Reason.NOT_READY, "x")):
        assert _refuse(error).status >= 400


async def test_whoever_asks_gets_notices_and_a_tick_and_needs_no_certificate(
    site: AuthoritySite, client: TestClient, metrics: AuthorityMetrics
) -> None:
    await until(lambda: site.publisher.why_not_ready is None)
    who = Scope.parse(str(SENDER))
    await site.service.decide(who, NoticeKind.REVOCATION, why="stolen", caller=ADMIN)
    members = Members(site.policy.trust)
    async with client.get("/notices/0") as answer:
        assert (answer.status, answer.content_type) == (200, CBOR["Content-Type"])
        for key, value in Catchup.decode(await answer.read()).records:
            members.feed(MEMBERS, key, value)
    members.check_fresh(site.clock.now(), 1.0)
    assert members.revocation_number == 1
    async with client.get("/notices/1") as answer:
        assert len(Catchup.decode(await answer.read()).records) == 1
    labels = {"operation": "notices", "result": "ok"}
    assert metrics.registry.get_sample_value("fabric_authority_requests_total", labels) == 2


async def test_whoever_asks_for_notices_pays_for_those_that_must_be_signed(
    site: AuthoritySite, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "REQUESTS_BURST_MAX", 100)
    monkeypatch.setattr(machine, "REQUESTS_PER_S_MAX", 0)
    await until(lambda: site.publisher.why_not_ready is None)
    for number in range(1, 129):  # of the log: published, but not by this ledger
        await site.ledger.do(partial(Ledger.adopt, notice=a_notice(number)))
    seen = []
    for after in (0, 0, 64):
        async with client.get(f"/notices/{after}") as answer:
            seen.append(answer.status)
    assert seen == [200, 200, 429]


@pytest.mark.parametrize("path", ["/notices", "/notices/x", "/notices/-1", "/notices/" + "9" * 19])
async def test_a_place_in_the_list_is_a_number(client: TestClient, path: str) -> None:
    async with client.get(path) as answer:
        assert answer.status == 404
