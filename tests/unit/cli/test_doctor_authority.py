"""`fabric authority doctor` where nothing runs: what is in place is well, what is not is told."""

import fcntl
import stat
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from fabric.authority.ledger import Ledger
from fabric.authority.pki import (
    decode_verifier_keys,
    encode_verifier_keys,
    make_ca,
    make_verifier_keys,
)
from fabric.cli.doctor_authority import _told_ledger, of_policy
from fabric.config_web import WebConfig
from fabric.model.errors import Reason
from fabric.repository.keys import make_key
from fabric.web.server import serving
from tests.fakes.clock import START
from tests.fakes.platform_files import BROKER, PlatformFiles, write_platform
from tests.fakes.policy_files import policy


@pytest.fixture
def files(tmp_path: Path) -> PlatformFiles:
    return write_platform(tmp_path)


def away(files: PlatformFiles) -> set[str]:
    return {f"broker {BROKER}", f"gateway {files.layout.gateway}", "topics", "ticks"}


def look(fabric, files: PlatformFiles) -> dict[str, dict[str, str]]:
    done = fabric("authority", "doctor", files.authority, "-o", "json")
    assert done.code == 10
    return {item["check"]: item for item in done.json}


def ills(found: dict[str, dict[str, str]]) -> set[str]:
    return {name for name, item in found.items() if not item["ok"]}


def test_with_every_file_in_place_only_peers_are_missing(fabric, files: PlatformFiles) -> None:
    found = look(fabric, files)
    assert ills(found) == away(files)
    assert "makes it" in found["ledger"]["seen"]
    assert "https" not in found
    assert not (files.authority.parent / "state").exists()


def test_each_wrong_file_is_told_at_its_check(fabric, files: PlatformFiles) -> None:
    pki = files.layout.pki
    (pki / "verifier.keys").write_bytes(encode_verifier_keys(make_verifier_keys()))
    other = make_ca("another")
    (pki / "svid-ca.pem").write_bytes(other.cert_pem)
    (pki / "svid-ca.key").write_bytes(other.key_pem)
    (pki / "policy" / "timestamp.pem").unlink()
    make_key(pki / "policy" / "timestamp.pem")
    files.change(files.authority, "admin.key", "gateway.key")
    found = look(fabric, files)
    assert ills(found) == away(files) | {
        "verifier keys",
        "issuing CA",
        "timestamp key",
        "certificate of admin",
    }
    assert "trust.verifier.keys" in found["verifier keys"]["seen"]
    assert "not in tls.ca" in found["issuing CA"]["seen"]
    assert "roles.yaml" in found["timestamp key"]["seen"]


def test_new_keys_are_the_owners_alone_and_printed_as_the_policy_wants_them(
    fabric, tmp_path: Path
) -> None:
    path = tmp_path / "verifier.keys"
    done = fabric("authority", "key", path)
    assert done.code == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = decode_verifier_keys(path.read_bytes())
    wanted = [{"alg": int(k.public.alg), "public": k.public.data.hex()} for k in keys]
    assert yaml.safe_load(done.out) == {"keys": wanted}
    again = fabric("authority", "key", path)
    assert (again.code, again.out) == (2, "")
    assert decode_verifier_keys(path.read_bytes())[0].public == keys[0].public


def test_a_secret_that_others_may_read_is_told(fabric, files: PlatformFiles) -> None:
    for name in ("verifier.keys", "svid-ca.key", "policy/timestamp.pem"):
        (files.layout.pki / name).chmod(0o644)
    found = look(fabric, files)
    for check in ("verifier keys", "issuing CA", "timestamp key"):
        assert "chmod 600" in found[check]["seen"]


def test_a_ledger_is_read_and_a_lost_one_is_told(fabric, files: PlatformFiles) -> None:
    state = files.authority.parent / "state"
    Ledger(state / "ledger.db").close()
    assert look(fabric, files)["ledger"]["seen"] == "0 hosts, last notice 0"
    (state / "audit.jsonl").touch()
    (state / "ledger.db").unlink()
    found = look(fabric, files)["ledger"]
    assert not found["ok"]
    assert "backup" in found["remedy"]
    (state / "ledger.db").write_bytes(b"nothing of ours" * 1000)
    found = look(fabric, files)["ledger"]
    assert "is damaged" in found["seen"]
    assert "newest backup" in found["remedy"]
    (state / "ledger.db").write_bytes(b"")
    found = look(fabric, files)["ledger"]
    assert "is empty" in found["seen"]
    assert "backup" in found["remedy"]
    (state / "audit.jsonl").unlink()
    assert "makes it" in look(fabric, files)["ledger"]["seen"]


@pytest.mark.parametrize(("days", "reason"), [(8, None), (6, Reason.POLICY_EXPIRED)])
def test_a_signature_that_ends_soon_is_told_while_there_is_time(
    days: int, reason: Reason | None
) -> None:
    ending = replace(policy(), renew_by=START + timedelta(days=days))
    found = of_policy(ending, START)
    assert found.reason is reason
    assert reason is None or "fabric policy sign" in found.remedy


async def told(parts: Mapping[str, str | None]) -> object:
    async with serving(CollectorRegistry(), lambda: parts) as port:
        web = WebConfig.model_validate({"listen": f"127.0.0.1:{port}"})
        config: Any = SimpleNamespace(web=web)
        return await _told_ledger(config)


async def test_what_a_running_authority_says_of_its_ledger_is_what_doctor_finds() -> None:
    said = "no room on the disk of state; make room"
    found: Any = await told({"ledger": f"overloaded: {said}", "clock": None})
    assert [(item.reason, item.seen) for item in found] == [(Reason.OVERLOADED, said)]
    assert "no write fails" in str(await told({"ledger": None}))
    assert "no write fails" not in str(await told({"clock": None}))  # of an earlier release


def test_a_ledger_in_use_is_asked_of_the_process_that_has_it(fabric, files: PlatformFiles) -> None:
    state = files.authority.parent / "state"
    state.mkdir()
    with (state / "audit.jsonl").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        found = look(fabric, files)
    assert found["ledger"]["seen"].startswith("not_ready: its /readyz does not answer")


@pytest.mark.parametrize("command", [("authority", "doctor"), ("gateway", "doctor")])
def test_a_disk_without_room_is_told(
    fabric, files: PlatformFiles, monkeypatch: pytest.MonkeyPatch, command: tuple[str, str]
) -> None:
    monkeypatch.setattr("fabric.cli.parts.why_no_room", lambda folder: f"0 of {folder.name}")
    done = fabric(*command, getattr(files, command[0]), "-o", "json")
    (found,) = (item for item in done.json if item["check"] == "room")
    assert found["seen"] == "overloaded: no room on the disk: 0 of state"
    assert found["remedy"].startswith("make room")
