"""`fabric attest show`: the host's result as the control topics have it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.agent.identity import STATE
from fabric.attest.event_log import check_rules, parse
from fabric.attest.members import Members, MemberState, heartbeat_record, host_record, result_record
from fabric.cli import attest
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import MEMBERS, RESULTS, HostId
from fabric.policy.load import load
from fabric.store.sealed import SealedKey, create_state
from tests.fakes.agent_page import FakeAgent, write_config
from tests.fakes.boot import PCRS, Boot, Entry
from tests.fakes.log import MemoryLog
from tests.fakes.policy_files import EXPIRES, SENDER, VERSION, certificate, documents, files, policy
from tests.fakes.verifier import HOST, TRUST_DOMAIN, Verifier, a_beat, a_result, a_state

VERIFIER = Verifier()
NAMED_KEYS = [
    ["sign", "Ed25519"],
    ["sign", "ML-DSA-65"],
    ["hpke", "MLKEM768-X25519"],
    ["tls", "ESP256"],
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, host=str(HOST))


def _use(monkeypatch: pytest.MonkeyPatch, log: MemoryLog | None = None) -> MemoryLog:
    """Read this log in place of a broker's, under a policy that trusts VERIFIER."""
    log = log or MemoryLog()

    @contextlib.asynccontextmanager
    async def opened(config: AgentConfig) -> AsyncIterator[MemoryLog]:
        yield log

    trusted = replace(policy(), trust=VERIFIER.trust)
    monkeypatch.setattr(attest, "log_of", opened)
    monkeypatch.setattr(attest, "policy_of", lambda config: trusted)
    return log


def _attest(log: MemoryLog, *, minutes: int, state: MemberState = MemberState.ATTESTED) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    begin = now - timedelta(minutes=20)
    result = a_result(issued=begin, expires=now + timedelta(minutes=minutes))
    log.put(RESULTS, 0, *result_record(result, TRUST_DOMAIN, VERIFIER.signers))
    log.put(MEMBERS, 0, b"verifier/host/forged", b"forged")
    log.put(MEMBERS, 0, *host_record(a_state(result, state=state), VERIFIER.signers))


def test_an_attested_host_sees_level_clearance_and_end(fabric, config, monkeypatch) -> None:
    _attest(_use(monkeypatch), minutes=10)
    done = fabric("attest", "show", "-c", config, "-o", "json")
    assert (done.code, done.err) == (0, "")
    assert done.json["host"] == str(HOST)
    assert (done.json["state"], done.json["level"]) == ("attested", 4)
    assert 500 < done.json["seconds_left"] <= 600
    assert [key.split()[:2] for key in done.json["keys"]] == NAMED_KEYS
    assert done.json["issued"].endswith(".000+00:00")
    assert done.json["sealed_states"] == 0


def test_the_result_that_a_drain_looks_at_has_its_heads(config, monkeypatch) -> None:
    _attest(_use(monkeypatch), minutes=10)
    result = asyncio.run(attest.result_of(AgentConfig.load(config), config))
    assert result.heads == a_result().heads != ()


def test_a_host_sees_in_how_many_states_its_state_file_opens(fabric, config, monkeypatch) -> None:
    folder = AgentConfig.load(config).agent.folder
    states = tuple((bytes([number]) * 32, b"blob") for number in range(3))
    create_state(folder / STATE, SealedKey(pcrs=(0, 7), states=states))
    _attest(_use(monkeypatch), minutes=10)
    done = fabric("attest", "show", "-c", config, "-o", "json")
    assert done.json["sealed_states"] == 3


@pytest.mark.parametrize(
    ("minutes", "state", "reason"),
    [
        (-1, MemberState.ATTESTED, "result_expired"),
        (10, MemberState.SUSPENDED, "host_suspended"),
        (10, MemberState.REVOKED, "host_revoked"),
    ],
)
def test_a_host_without_a_good_result_exits_12_and_says_why(
    fabric, config, monkeypatch, minutes, state, reason
) -> None:
    _attest(_use(monkeypatch), minutes=minutes, state=state)
    done = fabric("attest", "show", "-c", config)
    assert done.code == 12
    assert done.err.startswith(f"fabric: {reason}")
    assert done.out == ""


def test_a_certificate_that_ended_exits_12_and_says_so(fabric, config) -> None:
    folder = AgentConfig.load(config).agent.folder
    folder.mkdir(exist_ok=True)
    (folder / "svid.pem").write_bytes(certificate(datetime(2020, 1, 1, tzinfo=UTC)))
    done = fabric("attest", "show", "-c", config)
    assert (done.code, done.out) == (12, "")
    assert done.err.startswith("fabric: not_attested: the certificate ended at ")


def test_a_host_to_which_the_members_topic_is_closed_is_not_attested(
    fabric, config, monkeypatch
) -> None:
    _use(monkeypatch).fail(DeniedError(Reason.NOT_A_CONSUMER, "reading is not allowed"))
    done = fabric("attest", "show", "-c", config)
    assert done.code == 12
    assert "suspended, revoked or not approved" in done.err


def test_whatever_keeps_the_agent_from_a_result_the_host_is_not_attested(
    fabric, tmp_path, monkeypatch
) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.TPM_UNAVAILABLE, "it does not answer")
    _attest(_use(monkeypatch), minutes=-1)
    with agent.serve() as port:
        done = fabric("attest", "show", "-c", write_config(tmp_path, host=str(HOST), port=port))
    assert done.code == 12
    assert done.err.startswith("fabric: tpm_unavailable: ")


def test_results_of_others_and_old_ones_are_not_verified(fabric, config, monkeypatch) -> None:
    log, verified = _use(monkeypatch), []
    log.now = lambda: datetime.now(UTC) - timedelta(days=3)
    log.put(RESULTS, 0, *result_record(a_result(), TRUST_DOMAIN, VERIFIER.signers))
    log.now = lambda: datetime.now(UTC)
    for number in range(20):
        other = a_result(id=bytes([number]) * 16)
        log.put(RESULTS, 0, *result_record(other, TRUST_DOMAIN, VERIFIER.signers))
    _attest(log, minutes=10)
    log.put(MEMBERS, 0, *heartbeat_record(a_beat(0), VERIFIER.signers))
    feed = Members.feed

    def counted(members: Members, topic: str, key: bytes, value: bytes) -> None:
        verified.append(topic)
        feed(members, topic, key, value)

    monkeypatch.setattr(Members, "feed", counted)
    assert fabric("attest", "show", "-c", config).code == 0
    assert verified == [MEMBERS, MEMBERS, RESULTS]


def test_a_broker_that_does_not_answer_is_named(fabric, config, monkeypatch) -> None:
    class Deaf(MemoryLog):
        async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
            await asyncio.Event().wait()
            return 0, 0

    _use(monkeypatch, Deaf())
    monkeypatch.setattr("fabric.cli.topics.REQUEST_S_MAX", 0.05)
    done = fabric("attest", "show", "-c", config)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("fabric: broker_unavailable: ")


def test_a_host_that_nobody_knows_is_not_attested(fabric, config, monkeypatch) -> None:
    _use(monkeypatch)
    assert fabric("attest", "show", "-c", config).code == 12


def test_without_a_certificate_the_host_is_not_attested_and_is_told_to_start(
    fabric, config
) -> None:
    done = fabric("attest", "show", "-c", config)
    assert done.code == 12
    assert "start the agent" in done.err


def test_rules_for_a_boot_accept_that_boot_and_load_as_an_approval(fabric, tmp_path) -> None:
    boot = Boot()
    (tmp_path / "log").write_bytes(boot.log())
    done = fabric("attest", "rules", tmp_path / "log", "--pcrs", "9,0,4,7")
    assert (done.code, done.err) == (0, "")
    part = yaml.safe_load(done.out)
    assert part["digests"] == [boot.digest(PCRS).hex()]
    written = documents()
    written[f"approvals/{SENDER}.yaml"] |= part
    approval = load(files(written), version=VERSION, expires=EXPIRES).approvals[
        HostId.parse(SENDER)
    ]
    check_rules(parse(boot.log()), approval.event_rules)
    again = fabric("attest", "rules", tmp_path / "log", "--pcrs", "0,4,7,9", "-o", "json")
    assert again.json == part


def test_a_boot_that_no_rule_can_allow_is_refused_with_the_reason(fabric, tmp_path) -> None:
    odd = Boot(entries=(*Boot().entries, Entry(pcr=9, type=0x99, data=b"?")))
    (tmp_path / "log").write_bytes(odd.log())
    done = fabric("attest", "rules", tmp_path / "log", "--pcrs", "9")
    assert done.code == 12
    assert "unknown type 0x99" in done.err


@pytest.mark.parametrize("pcrs", ["", "x", "0,", "24", "-1", "0;1"])
def test_pcrs_that_are_no_numbers_are_a_usage_error(fabric, tmp_path, pcrs) -> None:
    (tmp_path / "log").write_bytes(Boot().log())
    assert fabric("attest", "rules", tmp_path / "log", "--pcrs", pcrs).code == 2


def test_a_log_that_is_not_one_or_not_there_is_an_error(fabric, tmp_path) -> None:
    (tmp_path / "log").write_bytes(b"garbage")
    done = fabric("attest", "rules", tmp_path / "log")
    assert done.code == 1
    for said in (str(tmp_path / "log"), "give binary_bios_measurements"):
        assert said in done.err.replace("\n", "")
    assert fabric("attest", "rules", tmp_path / "missing").code == 2
