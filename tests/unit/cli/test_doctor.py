"""`fabric doctor` where nothing runs: each failed check has its cause and its remedy."""

import asyncio
import contextlib
import json
import socket
import sqlite3
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from fabric.authority.pki import issue_platform, make_ca
from fabric.cli.access import policy_of
from fabric.cli.remedies import REMEDIES, remedy_of
from fabric.config import AgentConfig
from fabric.database.sqlite_outbox import SqliteOutbox
from fabric.demo.process import free_port
from fabric.model.change import Op
from fabric.model.errors import DeniedError, Reason
from fabric.model.names import MEMBERS, Topic
from fabric.policy.decide import dataset_of
from fabric.ports import SourceTable
from tests.contract.softhsm import tokens
from tests.fakes.agent_page import APPLYING, SENDING, FakeAgent, write_config
from tests.fakes.boot import PCRS, Boot
from tests.fakes.log import MemoryLog
from tests.fakes.policy_files import VERSION, certificate, documents, files
from tests.fakes.policy_repository import Repository
from tests.fakes.tpm import FakeTpm


def test_every_failed_check_has_cause_and_remedy_and_the_exit_is_10(fabric, tmp_path) -> None:
    config = write_config(tmp_path, SENDING + APPLYING)
    done = fabric("doctor", "-c", config, "-o", "json")
    assert done.code == 10
    found = {item["check"]: item for item in done.json}
    assert found["package"]["ok"]
    assert "are free" in found["room"]["seen"]
    failed = [item for item in done.json if not item["ok"]]
    assert all(item["seen"] and item["remedy"] for item in failed)
    for check, reason in {
        "policy": Reason.NOT_APPROVED,
        "tpm": Reason.TPM_UNAVAILABLE,
        "certificate": Reason.NOT_ATTESTED,
        "attestation": Reason.NOT_ATTESTED,
        "topic secret.G01.residents": Reason.NOT_ATTESTED,
        "source registry file": Reason.CONFIG_INVALID,
    }.items():
        assert found[check]["seen"].startswith(reason.value), found[check]
        assert found[check]["remedy"] == remedy_of(reason)


BEHIND_TLS = (
    "certificate",
    "gateway 127.0.0.1:9",
    "broker 127.0.0.1:9",
    "attestation",
    "ticks",
    "topic secret.G01.residents",
)
"""Checks that nobody answers without a certificate."""


def outdated(folder: Path) -> None:
    """A certificate that ended yesterday, where the agent keeps its own."""
    (folder / "state").mkdir()
    (folder / "state" / "svid.pem").write_bytes(certificate(datetime(2020, 1, 1, tzinfo=UTC)))


def test_a_certificate_that_ended_is_the_hosts_own_and_no_brokers_fault(fabric, tmp_path) -> None:
    config = write_config(tmp_path, APPLYING)
    outdated(tmp_path)
    done = fabric("doctor", "-c", config, "-o", "json")
    found = {item["check"]: item for item in done.json}
    for check in BEHIND_TLS:
        assert found[check]["seen"].startswith("not_attested: the certificate ended"), found[check]
        assert "start the agent" in found[check]["remedy"]
    assert found["authority"]["seen"].startswith("authority_unavailable: 127.0.0.1:9: nobody")


def test_a_suspended_host_is_told_so_by_every_check_and_who_lifts_it(fabric, tmp_path) -> None:
    agent = FakeAgent()
    agent.board.show("attestation", Reason.HOST_SUSPENDED, "needs another approval")
    with agent.serve() as port:
        config = write_config(tmp_path, APPLYING, port=port)
        outdated(tmp_path)
        found = {item["check"]: item for item in fabric("doctor", "-c", config, "-o", "json").json}
    for check in BEHIND_TLS:
        assert found[check]["seen"].startswith("host_suspended: "), found[check]
        assert "needs another approval" in found[check]["seen"]
        assert "approval with a greater number" in found[check]["remedy"]


@pytest.mark.parametrize(
    ("closed", "reason"), [(True, "not_attested"), (False, "not_a_consumer")], ids=["all", "one"]
)
def test_a_topic_is_a_matter_of_rights_for_attested_hosts_only(
    fabric, tmp_path, monkeypatch, closed, reason
) -> None:
    class Closing(MemoryLog):
        async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
            if closed or topic != MEMBERS:
                raise DeniedError(Reason.NOT_A_CONSUMER, "reading is not allowed")
            return 0, 0

    @contextlib.asynccontextmanager
    async def opened(config: object) -> AsyncIterator[MemoryLog]:
        yield Closing()

    monkeypatch.setattr("fabric.cli.doctor_agent.log_of", opened)
    done = fabric("doctor", "-c", write_config(tmp_path, APPLYING), "-o", "json")
    found = {item["check"]: item for item in done.json}
    assert found["topic secret.G01.residents"]["seen"].startswith(reason)


def test_a_stream_that_its_agent_has_stopped_is_said_with_its_topic(
    fabric, tmp_path, monkeypatch
) -> None:
    class Readable(MemoryLog):
        async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
            return 0, 0

    @contextlib.asynccontextmanager
    async def opened(config: object) -> AsyncIterator[MemoryLog]:
        yield Readable()

    monkeypatch.setattr("fabric.cli.doctor_agent.log_of", opened)
    agent, stream = FakeAgent(), "stream G01/registry/main@secret.G01.residents:0"
    agent.board.show(stream, Reason.HISTORY_REFUSED, "policy version 8 refuses blocks")
    with agent.serve() as port:
        config = write_config(tmp_path, APPLYING, port=port)
        found = {item["check"]: item for item in fabric("doctor", "-c", config, "-o", "json").json}
    check = found["topic secret.G01.residents"]
    assert check["seen"] == f"history_refused: {stream}: policy version 8 refuses blocks"
    assert check["remedy"] == remedy_of(Reason.HISTORY_REFUSED)


def test_no_remedy_of_doctor_is_to_run_doctor() -> None:
    assert not [reason for reason, text in REMEDIES.items() if "fabric doctor" in text]


def test_databases_that_are_fit_are_well_and_stay_as_they_were(fabric, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE residents (id INTEGER PRIMARY KEY, name TEXT, phone TEXT)")
    database.close()
    before = (tmp_path / "a.db").read_bytes()
    done = fabric("doctor", "-c", write_config(tmp_path, SENDING + APPLYING), "-o", "json")
    found = {item["check"]: item for item in done.json}
    for check in ("file", "table residents", "change table", "reader"):
        assert found[f"source registry {check}"]["ok"], found
    assert found["target file"]["ok"]
    assert (tmp_path / "a.db").read_bytes() == before
    assert not (tmp_path / "b.db").exists()


def test_a_table_of_no_dataset_is_named_and_the_others_are_looked_at(fabric, tmp_path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE residents (id INTEGER PRIMARY KEY, name TEXT, phone TEXT)")
    database.close()
    parts = f'{SENDING}"more" = "secret.G01.more"\n'
    done = fabric("doctor", "-c", write_config(tmp_path, parts), "-o", "json")
    found = {item["check"]: item for item in done.json}
    assert found["source registry table residents"]["ok"]
    assert found["source registry table more"]["seen"].startswith("topic_unknown")


def test_no_secret_of_the_file_is_shown(fabric, tmp_path: Path) -> None:
    url = f"postgresql://registry:hunter2@127.0.0.1:{free_port()}/x"
    parts = SENDING.replace('"sqlite"', '"postgresql"').replace("a.db", url)
    done = fabric("doctor", "-c", write_config(tmp_path, parts))
    assert "source registry server" in done.out
    assert "hunter2" not in done.out + done.err


def test_a_policy_that_does_not_load_is_named_with_its_document(fabric, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    Repository(tmp_path / "policy", {**files(), "levels.yaml": b"no list"}).publish()
    found = {item["check"]: item for item in fabric("doctor", "-c", config, "-o", "json").json}
    assert "levels.yaml" in found["policy"]["seen"]
    assert found["policy"]["remedy"] == remedy_of(Reason.POLICY_INVALID)


def test_doctor_without_its_agent_says_which_option_is_missing(fabric) -> None:
    done = fabric("doctor")
    assert done.code == 2
    assert "--config" in done.err


def test_the_tpm_is_well_when_its_state_is_listed_or_its_boot_keeps_the_rules(
    fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = Boot()
    tpm = FakeTpm(elliptic=True)
    tpm.pcrs.update(boot.values())
    monkeypatch.setattr("fabric.tpm.device.TpmDevice", lambda tcti: tpm)
    config = write_config(tmp_path)
    versions = count(VERSION + 1)

    def seen(**changes: object) -> str:
        changed = documents()
        approval = changed["approvals/G02/health/host-b.yaml"]
        approval |= {"not_after": "2099-01-01T00:00:00Z", "pcrs": list(PCRS), **changes}
        Repository(tmp_path / "policy", files(changed), version=next(versions)).publish()
        done = fabric("doctor", "-c", config, "-o", "json")
        return str(next(item["seen"] for item in done.json if item["check"] == "tpm"))

    assert seen().startswith("state_refused")
    assert seen(digests=[boot.digest(PCRS).hex()]).endswith("is approved")
    rules = boot.rules(PCRS)
    assert seen(digests=[], event_log=rules).startswith("evidence_refused")
    (tmp_path / "boot.log").write_bytes(boot.log())
    monkeypatch.setenv("FABRIC_TPM__EVENT_LOG", str(tmp_path / "boot.log"))
    assert seen(digests=[], event_log=rules).endswith("is approved")


def test_the_token_of_the_signing_keys_is_looked_at(fabric, tmp_path) -> None:
    soft = tokens()
    config = write_config(tmp_path, SENDING)
    plain = {item["check"]: item for item in fabric("doctor", "-c", config, "-o", "json").json}
    assert plain["keys"]["seen"] == "in the state file"
    table = f'[keys]\nprovider = "pkcs11"\nmodule = "{soft.module}"\npin_file = "none"\n'
    for token, seen in (("agent", "on token agent, which makes"), ("lost", "keys_unavailable")):
        config.write_text(config.read_text().split("[keys]")[0] + table + f'token = "{token}"\n')
        done = fabric("doctor", "-c", config, "-o", "json")
        found = {item["check"]: item for item in done.json}
        assert found["keys"]["seen"].startswith(seen)
        assert found["keys"]["ok"] is (token == "agent")


# What an agent listens on, asks and keeps


def checked(fabric, config: Path) -> dict[str, dict[str, str]]:
    done = fabric("doctor", config, "-o", "json")
    return {item["check"]: item for item in done.json}


def test_a_taken_address_of_the_pages_is_told_before_the_start(fabric, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = checked(fabric, write_config(tmp_path, port=port))["web.listen"]
    assert not found["ok"]
    assert found["seen"] == f"config_invalid: another process listens on 127.0.0.1:{port}"
    assert "web.listen" in found["remedy"]
    assert checked(fabric, write_config(tmp_path, port=port))["web.listen"]["ok"]


def test_papers_of_pages_for_others_are_looked_at(fabric, tmp_path: Path) -> None:
    config = write_config(tmp_path, port=0)
    ca = make_ca("monitoring")
    for name, data in zip(
        ("w.pem", "w.key"), issue_platform(ca, "web", hosts=["host-b.example"], days=9), strict=True
    ):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "m.pem").write_bytes(ca.cert_pem)
    table = '[web]\nlisten = "127.1:0"\nlocal = "127.0.0.1:0"\ncertificate = "w.pem"\n'
    text = config.read_text().replace('listen = "127.0.0.1:0"\n', "")
    config.write_text(text.replace("[web]\n", table + 'key = "w.key"\nclient_ca = "m.pem"\n'))
    found = checked(fabric, config)
    assert found["web.local"]["ok"]
    assert found["web.certificate"]["seen"] == "for host-b.example, 9 days left"
    (tmp_path / "m.pem").write_text("no CA")
    seen = checked(fabric, config)["web.certificate"]["seen"]
    assert seen.startswith("config_invalid: web.client_ca: ")


def test_each_refusal_log_is_asked_with_our_certificate(fabric, tmp_path: Path) -> None:
    config = write_config(tmp_path)
    urls = [f"https://127.0.0.1:{free_port()}" for _ in range(2)]
    text = config.read_text()
    config.write_text(text.replace("[gateway]", f"[gateway]\nrefusals = {json.dumps(urls)}"))
    found = checked(fabric, config)
    assert found[f"refusals {urls[0]}"]["seen"].startswith("not_attested")
    ca = make_ca("svid")
    (tmp_path / "state").mkdir(exist_ok=True)
    for name, data in zip(
        ("svid.pem", "svid.key"), issue_platform(ca, "x", hosts=[], days=9), strict=True
    ):
        (tmp_path / "state" / name).write_bytes(data)
    found = checked(fabric, config)
    for url in urls:
        seen = found[f"refusals {url}"]["seen"]
        assert seen.startswith("gateway_unavailable: ")
        assert seen.endswith("nobody listens there")
        assert found[f"refusals {url}"]["remedy"]


def test_the_outbox_is_looked_at_where_there_is_one(fabric, tmp_path: Path) -> None:
    plain = checked(fabric, write_config(tmp_path))
    assert not any(check.startswith("outbox") for check in plain)
    topics = '[outbox]\ntopics = ["secret.G01.residents", "secret.G01.more"]\n'
    found = checked(fabric, write_config(tmp_path, topics))
    assert found["outbox file"]["ok"]
    assert found["outbox topic secret.G01.more"]["seen"].startswith("topic_unknown")
    (tmp_path / "state").mkdir(exist_ok=True)
    (tmp_path / "state" / "outbox.db").write_bytes(b"no database at all" * 100)
    spoilt = checked(fabric, write_config(tmp_path, topics))["outbox file"]
    assert not spoilt["ok"]
    assert spoilt["remedy"]


def test_a_published_row_that_no_block_holds_fails_the_outbox(fabric, tmp_path: Path) -> None:
    config = write_config(tmp_path, '[outbox]\ntopics = ["secret.G01.residents"]\n')
    (tmp_path / "state").mkdir(exist_ok=True)
    topic = Topic.parse("secret.G01.residents")
    schema = dataset_of(policy_of(AgentConfig.load(config)), str(topic)).schema

    async def put(size: int) -> None:
        box = SqliteOutbox(
            tmp_path / "state" / "outbox.db", [SourceTable(table="", topic=topic, schema=schema)]
        )
        await box.open(None)
        await box.put(topic, Op.UPSERT, {"id": 1, "name": "x" * size, "phone": None})
        await box.close()

    asyncio.run(put(500_000))
    assert checked(fabric, config)["outbox file"]["seen"] == "1 changes wait"
    asyncio.run(put(1_000_000))
    found = checked(fabric, config)["outbox file"]
    assert found["seen"].startswith(f"too_large: change 2 for {topic} is 1000")
    assert "DELETE FROM fabric_outbox WHERE id = 2" in found["remedy"]


# How the file is named


@pytest.mark.parametrize("words", [["doctor"], ["gateway", "doctor"], ["authority", "doctor"]])
def test_every_doctor_takes_its_file_as_argument_and_as_option(
    fabric, tmp_path: Path, words: list[str]
) -> None:
    config = tmp_path / "any.toml"
    config.write_text("wrong = 1")
    for form in ([config], ["-c", config], ["--config", config], [config, "-c", config]):
        done = fabric(*words, *form)
        assert (done.code, done.out[:12]) == (2, "FAIL  config"), form
    other = tmp_path / "other.toml"
    other.touch()
    both = fabric(*words, config, "-c", other)
    assert (both.code, both.out) == (2, "")
    assert "name one" in both.err
    none = fabric(*words)
    assert (none.code, none.out) == (2, "")
    assert "--config" in none.err
