"""A host whose agent is down learns from the authority itself that it is suspended or revoked."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from fabric.attest.catchup import Catchup
from fabric.attest.members import Notice, NoticeKind, heartbeat_record, notice_record
from fabric.attest.messages import CONTENT_TYPE
from fabric.cli import noticed as module
from fabric.cli import parts
from fabric.cli.attest import standing
from fabric.cli.noticed import noticed
from fabric.cli.output import Unattested
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import HostId
from fabric.policy.types import Policy
from tests.fakes import verifier
from tests.fakes.agent_page import FakeAgent, write_config
from tests.fakes.https import hanging, https, make_files
from tests.fakes.policy_files import SENDER, policy
from tests.fakes.verifier import OTHER, Verifier, a_beat

VERIFIER = Verifier()
SAW = DeniedError(Reason.NOT_ATTESTED, "svid.pem is missing")
SENDER_HOST = HostId.parse(SENDER)
Authority = Callable[..., AbstractAsyncContextManager[Path]]


def a_notice(number: int, kind: str = NoticeKind.SUSPENSION, **changes: object) -> Notice:
    """A notice about a host that the policy approves, under its approval."""
    return verifier.a_notice(number, kind, **{"host": SENDER_HOST, **changes})


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository's policy trusts VERIFIER."""

    async def given(*_: object) -> Policy:
        return replace(policy(), trust=VERIFIER.trust)

    monkeypatch.setattr(parts, "policy", given)


@pytest.fixture
def authority(tmp_path: Path, trusted: None) -> Authority:
    """An authority that gives two notices an answer; yields an agent.toml that names it."""
    files = make_files(tmp_path)

    @asynccontextmanager
    async def serve(
        notices: Sequence[Notice], *, by: Verifier = VERIFIER, hidden: int = 0, port: int = 9
    ) -> AsyncIterator[Path]:
        beat = heartbeat_record(a_beat(len(notices), notices=notices), by.signers)

        async def answer(got: web.Request) -> web.Response:
            after = int(got.path.rpartition("/")[2])
            shown = notices[after : min(after + 2, len(notices) - hidden)]
            records = [notice_record(notice, by.signers) for notice in shown]
            body = Catchup(records=(*records, beat)).encode()
            return web.Response(body=body, content_type=CONTENT_TYPE)

        async with https(files, answer, demand=False) as url:
            path = write_config(tmp_path, host=SENDER, port=port)
            text = path.read_text().replace('"https://127.0.0.1:9"', f'"{url}"')
            path.write_text(text.replace('ca = "ca.pem"', f'ca = "{files.ca}"'))
            files.ca.write_bytes(ca)
            yield path

    ca = files.ca.read_bytes()
    return serve


async def found(path: Path, saw: DeniedError = SAW) -> DeniedError:
    with pytest.raises(DeniedError) as caught:
        async with noticed(AgentConfig.load(path)):
            raise saw
    return caught.value


@pytest.mark.parametrize(
    ("kind", "reason", "did"),
    [
        (NoticeKind.SUSPENSION, Reason.HOST_SUSPENDED, "suspended"),
        (NoticeKind.REVOCATION, Reason.HOST_REVOKED, "revoked"),
    ],
)
async def test_a_notice_is_told_with_its_time_and_cause(authority, kind, reason, did) -> None:
    notice = a_notice(1, kind)
    async with authority([notice]) as path:
        said = await found(path)
        with pytest.raises(Unattested, match=f"the authority {did} this host"):
            await standing(AgentConfig.load(path), path)
    assert isinstance(said, Unattested)
    assert said.reason is reason
    assert said.args[0] == (
        f"the authority {did} this host at {notice.at:%Y-%m-%d %H:%M:%S} UTC,"
        " up to approval 1 (notice 1: state_refused)"
    )


async def test_a_notice_behind_many_others_is_found(authority) -> None:
    others = [a_notice(number, host=OTHER) for number in range(1, 6)]
    async with authority([*others, a_notice(6)]) as path:
        assert (await found(path)).reason is Reason.HOST_SUSPENDED


@pytest.mark.parametrize(
    "notices",
    [
        [],
        [a_notice(1, host=HostId.parse("G09/other/host"))],
        [a_notice(1), a_notice(2, NoticeKind.REINSTATEMENT)],
        [a_notice(1, approval=0)],
    ],
    ids=["none", "anothers", "lifted", "older approval"],
)
async def test_where_no_notice_stands_the_host_says_what_it_saw(authority, notices) -> None:
    async with authority(notices) as path:
        assert await found(path) is SAW


async def test_a_notice_that_the_authority_did_not_sign_says_nothing(authority) -> None:
    async with authority([a_notice(1)], by=Verifier()) as path:
        assert await found(path) is SAW


async def test_while_notices_are_held_back_none_is_told(authority) -> None:
    """What is hidden may have lifted what is shown."""
    async with authority([a_notice(1), a_notice(2, NoticeKind.REINSTATEMENT)], hidden=1) as path:
        assert await found(path) is SAW


async def test_an_authority_that_does_not_answer_takes_its_time_and_no_more(
    tmp_path, trusted, monkeypatch
) -> None:
    monkeypatch.setattr(module, "_ASK_S_MAX", 0.1)
    path = write_config(tmp_path, host=SENDER)
    async with hanging() as url, asyncio.timeout(5):
        path.write_text(path.read_text().replace("https://127.0.0.1:9", url))
        make_files(tmp_path)
        assert await found(path) is SAW


async def test_what_is_no_matter_of_attestation_is_not_asked_about(authority) -> None:
    late = DeniedError(Reason.MEMBERS_STALE, "no tick")
    async with authority([a_notice(1)]) as path:
        assert await found(path, late) is late


async def test_a_running_agents_word_is_enough(authority) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.TPM_UNAVAILABLE, "it does not answer")
    with agent.serve() as port:
        async with authority([a_notice(1)], port=port) as path:
            with pytest.raises(Unattested, match="it does not answer"):
                await standing(AgentConfig.load(path), path)
