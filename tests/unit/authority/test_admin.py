"""The administrator's client: what it asks and what it makes of answers."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.attest.messages import Refusal
from fabric.authority import admin
from fabric.authority.admin_messages import Decision, Scope
from fabric.config import AuthorityConfig
from fabric.model.errors import DeniedError, Malformed, Reason, UnavailableError
from tests.fakes.verifier import HOST

CBOR, JSON = "application/cbor", "application/json"
_CONFIG = """
[authority]
listen = "{listen}"
folder = "state"
verifier_key = "k"
issuing_certificate = "c"
issuing_key = "k"
[tls]
certificate = "c"
key = "k"
ca = "ca"
[admin]
certificate = "c"
key = "k"
[gateway]
bootstrap = ["127.0.0.1:1"]
[broker]
bootstrap = ["127.0.0.1:1"]
[policy]
root = "1.root.json"
repository = "policy"
state = "state/policy"
"""
Answering = Callable[[int, str, bytes], list[tuple[str, str, bytes | None]]]


@pytest.fixture
def config(tmp_path: Path) -> AuthorityConfig:
    path = tmp_path / "authority.toml"
    path.write_text(_CONFIG.format(listen="0.0.0.0:7443"))
    return AuthorityConfig.load(path)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Answering:
    def answer(status: int, kind: str, data: bytes) -> list[tuple[str, str, bytes | None]]:
        asked: list[tuple[str, str, bytes | None]] = []

        async def request(
            method: str, url: str, *, body: bytes | None = None, **_more: object
        ) -> tuple[int, str, bytes]:
            asked.append((method, url, body))
            return status, kind, data

        monkeypatch.setattr(admin, "request", request)
        monkeypatch.setattr(admin, "client_context", lambda *_files: None)
        return asked

    return answer


async def test_lists_are_asked_of_the_address_the_authority_listens_on(
    config: AuthorityConfig, answering: Answering
) -> None:
    asked = answering(200, JSON, b'[{"host": "G01/registry/a1"}]')
    assert await admin.list_hosts(config) == [{"host": "G01/registry/a1"}]
    assert await admin.list_enrolments(config) == [{"host": "G01/registry/a1"}]
    base = "https://localhost:7443/admin"
    assert asked == [("GET", f"{base}/hosts", None), ("GET", f"{base}/enrolments", None)]


@pytest.mark.parametrize("verb", ["suspend", "revoke", "forget"])
async def test_a_decision_carries_who_and_cause(
    config: AuthorityConfig, answering: Answering, verb: str
) -> None:
    scope = Scope.parse(str(HOST))
    who, given = (HOST, b'{"number": 3}') if verb == "forget" else (scope, b'[{"number": 3}]')
    asked = answering(200, JSON, given)
    assert await getattr(admin, verb)(config, who, "stolen") == json.loads(given)
    ((_, url, body),) = asked
    assert url.endswith(f"/admin/{verb}")
    assert Decision.decode(body or b"") == Decision(who=scope, why="stolen")


async def test_a_refusal_keeps_its_reason(config: AuthorityConfig, answering: Answering) -> None:
    for reason, family in (
        (Reason.API_REFUSED, DeniedError),
        (Reason.GATEWAY_UNAVAILABLE, UnavailableError),
    ):
        answering(403, CBOR, Refusal(reason=reason, message="no").encode())
        with pytest.raises(family) as error:
            await admin.list_hosts(config)
        assert error.value.reason is reason


@pytest.mark.parametrize("verb", ["suspend", "revoke"])
async def test_a_decision_that_got_no_word_of_the_authority_is_to_be_given_again(
    config: AuthorityConfig, answering: Answering, verb: str
) -> None:
    decide, scope = getattr(admin, verb), Scope.parse(str(HOST))
    answering(502, "text/html", b"<html>")
    with pytest.raises(UnavailableError, match="give it again"):
        await decide(config, scope, "stolen")
    told = Refusal(reason=Reason.GATEWAY_UNAVAILABLE, message="it is kept")
    answering(503, CBOR, told.encode())
    with pytest.raises(UnavailableError, match="it is kept$"):
        await decide(config, scope, "stolen")


async def test_a_proxys_page_is_unavailable(config: AuthorityConfig, answering: Answering) -> None:
    answering(502, "text/html", b"<html>")
    with pytest.raises(UnavailableError):
        await admin.list_hosts(config)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"{}", b"3"])
async def test_an_answer_that_is_none_is_malformed(
    config: AuthorityConfig, answering: Answering, data: bytes
) -> None:
    answering(200, JSON, data)
    with pytest.raises(Malformed):
        await admin.list_hosts(config)
