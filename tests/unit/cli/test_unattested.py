"""A host without attestation is told why, by its agent if it runs, and nobody else is blamed."""

from pathlib import Path

import pytest

from fabric.agent.attesting import PART as AGENTS_PART
from fabric.cli import unattested
from fabric.cli.output import Unattested
from fabric.cli.unattested import check_open, explain, explained, papers
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, Reason, UnavailableError
from tests.fakes.agent_page import FakeAgent, write_config
from tests.fakes.log import MemoryLog

EXPIRED = DeniedError(Reason.RESULT_EXPIRED, "ended")


async def reason_of(path: Path, error: DeniedError = EXPIRED) -> Reason | None:
    try:
        await explain(AgentConfig.load(path), path, error)
    except Unattested as exc:
        return exc.reason
    return None


def test_the_part_is_the_agents() -> None:
    assert unattested.PART == AGENTS_PART


@pytest.mark.parametrize(
    "reason", [Reason.HOST_SUSPENDED, Reason.AUTHORITY_UNAVAILABLE, Reason.TPM_UNAVAILABLE]
)
async def test_what_keeps_the_agent_from_a_result_is_the_cause(tmp_path, reason) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", reason, "so it is")
    with agent.serve() as port:
        path = write_config(tmp_path, port=port)
        assert await reason_of(path) is reason
        with pytest.raises(Unattested, match="so it is"):
            await papers(AgentConfig.load(path), path)


async def test_what_is_denied_inside_is_explained_or_stays_as_it_is(tmp_path) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.HOST_SUSPENDED, "so it is")
    with agent.serve() as port:
        path = write_config(tmp_path, port=port)
        with pytest.raises(Unattested, match="so it is"):
            async with explained(AgentConfig.load(path), path):
                raise EXPIRED
        other = DeniedError(Reason.MEMBERS_STALE, "no tick")
        with pytest.raises(DeniedError) as caught:
            async with explained(AgentConfig.load(path), path):
                raise other
        assert caught.value is other


async def test_an_agent_that_knows_nothing_explains_nothing(tmp_path) -> None:
    agent = FakeAgent()
    with agent.serve() as port:
        path = write_config(tmp_path, port=port)
        assert await reason_of(path) is None
        agent.board.expect("attestation")
        assert await reason_of(path) is None
        agent.board.show("attestation", None)
        assert await reason_of(path) is None
    assert await reason_of(path) is None, "it has ended"


async def test_what_is_no_matter_of_attestation_is_not_explained_by_it(tmp_path) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.HOST_SUSPENDED)
    with agent.serve() as port:
        path = write_config(tmp_path, port=port)
        assert await reason_of(path, DeniedError(Reason.MEMBERS_STALE, "no tick")) is None


async def test_who_may_not_read_the_members_topic_is_not_attested() -> None:
    log = MemoryLog()
    await check_open(log)
    log.fail(DeniedError(Reason.NOT_A_CONSUMER, "reading is not allowed"))
    with pytest.raises(DeniedError, match="suspended, revoked or not approved") as caught:
        await check_open(log)
    assert caught.value.reason is Reason.NOT_ATTESTED


async def test_a_broker_that_is_away_is_no_matter_of_attestation() -> None:
    log = MemoryLog()
    log.fail(UnavailableError(Reason.BROKER_UNAVAILABLE, "away"))
    with pytest.raises(UnavailableError):
        await check_open(log)
