"""`fabric doctor` where nothing runs: each failed check has its cause and its remedy."""

import sqlite3
from itertools import count
from pathlib import Path

import pytest

from fabric.cli.remedies import remedy_of
from fabric.demo.process import free_port
from fabric.model.errors import Reason
from tests.contract.softhsm import tokens
from tests.fakes.agent_page import APPLYING, SENDING, write_config
from tests.fakes.boot import PCRS, Boot
from tests.fakes.policy_files import VERSION, documents, files
from tests.fakes.policy_repository import Repository
from tests.fakes.tpm import FakeTpm


def test_every_failed_check_has_cause_and_remedy_and_the_exit_is_10(fabric, tmp_path) -> None:
    config = write_config(tmp_path, SENDING + APPLYING)
    done = fabric("doctor", "-c", config, "-o", "json")
    assert done.code == 10
    found = {item["check"]: item for item in done.json}
    assert found["package"]["ok"]
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
