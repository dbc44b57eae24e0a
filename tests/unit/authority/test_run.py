"""What must be right before the authority serves; its life is in the integration tests."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from fabric.attest.appraise import Counters, Enrolment
from fabric.attest.audit_chain import Link
from fabric.attest.members import NoticeKind
from fabric.authority import run
from fabric.authority.attest_machine import Verdict
from fabric.authority.ledger import Ledger
from fabric.authority.policy_files import folder_of
from fabric.config import AuthorityConfig
from fabric.metrics import AGENT_STATES, AuthorityMetrics
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError
from fabric.model.names import HostId
from fabric.repository.audited import PolicyAudit
from fabric.repository.client import PolicyRepository
from fabric.repository.fetch import FolderFetcher
from fabric.repository.held import Held, keep_copy
from fabric.repository.keys import make_key
from fabric.repository.published import read_published
from fabric.repository.staging import Workspace
from fabric.repository.timestamp import Renewal
from fabric.store.clock import SigningClock
from tests.fakes.audit import MemoryAudit
from tests.fakes.authority_site import READER, SENDER, AuthoritySite, until
from tests.fakes.clock import ManualClock
from tests.fakes.policy_repository import Repository, key
from tests.fakes.policy_workspace import live_files, make_workspace, publish_all
from tests.fakes.verifier import Verifier, a_result, a_state

ENROLMENT = Enrolment(
    host=HostId.parse("G09/none/new"), ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a"
)


def test_keys_must_be_the_ones_the_policy_names(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    site.close()
    run.check_keys(site.policy, site.verifier.signers)
    for signers in (Verifier().signers, site.verifier.signers[::-1], site.verifier.signers[:1]):
        with pytest.raises(ConfigInvalid, match="trust.verifier.keys"):
            run.check_keys(site.policy, signers)


def test_a_running_authority_says_what_is_wrong_with_its_policy(tmp_path: Path) -> None:
    """It must not end: notices go out, also under a policy that names other keys."""
    site = AuthoritySite(tmp_path)
    site.close()
    signers, before = site.verifier.signers, site.policy.expires - timedelta(seconds=1)
    assert run.fault_of(site.policy, signers, before) is None
    assert "expired" in (run.fault_of(site.policy, signers, site.policy.expires) or "")
    assert "trust.verifier.keys" in (run.fault_of(site.policy, Verifier().signers, before) or "")


def named(verifier: Verifier) -> list[dict[str, Any]]:
    """Its keys as policy.yaml lists them."""
    return [{"alg": int(alg), "public": key.hex()} for alg, key in verifier.trust.verifier_keys]


def test_an_authority_starts_with_the_keys_of_before_while_they_count(tmp_path: Path) -> None:
    """A crash between two steps of a planned change must not end the fabric."""
    new, old = Verifier(), Verifier()
    content = live_files()
    document = yaml.safe_load(content["policy.yaml"])
    document["trust"]["verifier"] |= {"keys": named(new), "former": named(old)}
    content["policy.yaml"] = yaml.safe_dump(document).encode()
    workspace = publish_all(make_workspace(tmp_path, content), datetime.now(UTC))
    where = str(workspace.repository.relative_to(tmp_path))
    anchor = workspace.repository / "metadata" / "1.root.json"
    (tmp_path / "1.root.json").write_bytes(anchor.read_bytes())
    loaded = config(tmp_path, where)
    for verifier in (new, old):
        policies, _ = run._opened_policy(loaded, verifier.signers)
    fault = run.fault_of(policies.policy, old.signers, datetime.now(UTC))
    assert "trust.verifier.keys" in (fault or "")  # said until it has the new ones
    for signers in (Verifier().signers, old.signers[:1], (new.signers[0], old.signers[1]), ()):
        with pytest.raises(ConfigInvalid, match=r"trust\.verifier\.keys"):
            run._opened_policy(loaded, signers)


def config(folder: Path, repository: str, timestamp_key: str = "") -> AuthorityConfig:
    path = folder / "authority.toml"
    path.write_text(
        f"""
[authority]
listen = "127.0.0.1:0"
folder = "state"
verifier_key = "v.keys"
issuing_certificate = "ca.pem"
issuing_key = "ca.key"
{timestamp_key}
[tls]
certificate = "v.pem"
key = "v.key"
ca = "ca.pem"
[admin]
certificate = "a.pem"
key = "a.key"
[gateway]
bootstrap = ["localhost:1"]
[broker]
bootstrap = ["localhost:1"]
[policy]
root = "1.root.json"
repository = "{repository}"
state = "policy-state"
"""
    )
    return AuthorityConfig.load(path)


KEY = 'timestamp_key = "timestamp.pem"'


def test_a_folder_is_served_and_renewed_and_a_url_is_neither(tmp_path: Path) -> None:
    make_key(tmp_path / "timestamp.pem")
    ours = config(tmp_path, "repository", KEY)
    assert folder_of(ours.policy) == tmp_path / "repository"
    renewal = run.renewal_of(ours)
    assert renewal is not None
    assert renewal.folder == tmp_path / "repository"
    assert run.renewal_of(config(tmp_path, "repository")) is None
    others = config(tmp_path, "https://elsewhere/policy", KEY)
    assert folder_of(others.policy) is None
    with pytest.raises(ConfigInvalid, match=r"authority\.timestamp_key: needs the repository"):
        run.renewal_of(others)


def test_the_timestamps_key_is_a_secret(tmp_path: Path) -> None:
    make_key(tmp_path / "timestamp.pem")
    (tmp_path / "timestamp.pem").chmod(0o644)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        run.renewal_of(config(tmp_path, "repository", KEY))


def test_a_due_timestamp_is_renewed_and_taken_at_one_look(tmp_path: Path) -> None:
    workspace = publish_all(make_workspace(tmp_path), datetime.now(UTC))
    anchor = workspace.repository / "metadata" / "1.root.json"
    policies = PolicyRepository(anchor, FolderFetcher(workspace.repository), tmp_path / "s")
    before = policies.load()
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=24 * 3600)
    assert run.look(policies, renewal, datetime.now(UTC)) is None
    after = run.look(policies, renewal, datetime.now(UTC) + timedelta(hours=13))
    assert after is not None
    assert after.expires > before.expires
    assert run.look(policies, None, datetime.now(UTC)) is None


def a_timestamp_of(workspace: Workspace) -> bytes:
    return (workspace.repository / "metadata" / "timestamp.json").read_bytes()


def test_a_start_signs_no_timestamp(tmp_path: Path) -> None:
    """Nobody has confirmed the clock yet, and one signed ahead lasts until that time has come."""
    site = AuthoritySite(tmp_path / "site")
    site.close()
    content = live_files()
    document = yaml.safe_load(content["policy.yaml"])
    document["trust"]["verifier"]["keys"] = named(site.verifier)
    content["policy.yaml"] = yaml.safe_dump(document).encode()
    due = datetime.now(UTC) - timedelta(hours=13)
    workspace = publish_all(make_workspace(tmp_path, content), due)
    anchor = workspace.repository / "metadata" / "1.root.json"
    (tmp_path / "1.root.json").write_bytes(anchor.read_bytes())
    (tmp_path / "timestamp.pem").touch(mode=0o600)
    (tmp_path / "timestamp.pem").write_bytes(key("timestamp").private_bytes)
    loaded = config(tmp_path, str(workspace.repository.relative_to(tmp_path)), KEY)
    before = a_timestamp_of(workspace)
    _, renewal = run._opened_policy(loaded, site.verifier.signers)
    assert renewal is not None
    assert a_timestamp_of(workspace) == before


def with_copy_alone(workspace: Workspace, state: Path) -> PolicyRepository:
    """As a process that was off so long that the timestamp has ended finds its policy."""
    anchor = workspace.repository / "metadata" / "1.root.json"
    published = read_published(workspace.repository)
    files = {path: (workspace.source / path).read_bytes() for path in published.verified().files}
    state.mkdir()
    keep_copy(state, Held.of(list(published.roots), dict(published.metadata), files))
    return PolicyRepository(anchor, FolderFetcher(workspace.repository), state)


@pytest.mark.parametrize("off", [timedelta(hours=13), timedelta(days=2)])
async def test_a_timestamp_is_renewed_once_the_clock_is_confirmed_and_not_before(
    off: timedelta, tmp_path: Path
) -> None:
    """Also one that ended while the authority was off."""
    now = datetime.now(UTC)
    workspace = publish_all(make_workspace(tmp_path), now - off)
    policies = with_copy_alone(workspace, tmp_path / "state")
    policies.load()
    before, wall = a_timestamp_of(workspace), ManualClock(now + timedelta(days=365))
    clock = SigningClock(wall=wall.now, monotonic=wall.monotonic)
    audit, looks = MemoryAudit(), []
    process: Any = SimpleNamespace(
        config=SimpleNamespace(policy=SimpleNamespace(refresh_s=0.01)),
        policies=policies,
        renewal=Renewal(workspace.repository, key("timestamp"), valid_s=24 * 3600),
        clock=clock,
        ticks=SimpleNamespace(opened=not_opened),
        keeper=SimpleNamespace(check_soon=lambda: None),
        metrics=AuthorityMetrics(),
        signers=(),
        told=SimpleNamespace(refused=lambda *_: None, looked=looks.append),
        _took=audit.events.append,
    )
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(run._Process._refresh(process))
        await until(lambda: len(looks) > 3)
        assert a_timestamp_of(workspace) == before
        with pytest.raises(UnavailableError):
            clock.compare(now, since=wall.now())
        looks.clear()
        await until(lambda: len(looks) > 3)
        assert a_timestamp_of(workspace) == before
        wall.set_wall(now)
        clock.compare(now, since=now)
        await until(lambda: policies.policy.expires > now)
        await until(lambda: bool(audit.events))
        looking.cancel()
    assert policies.policy.expires == (now + timedelta(days=1)).replace(microsecond=0)


async def not_opened() -> None:
    raise UnavailableError(Reason.NOT_READY, "clocks are not compared yet")


def test_no_head_is_signed_with_a_clock_that_nobody_confirmed(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    site.close()
    process: Any = SimpleNamespace(clock=site.signing, signers=site.verifier.signers)
    link = Link(log=bytes(16), number=3, hash=bytes(32))
    with pytest.raises(UnavailableError) as error:
        run._Process._sign_head(process, link)
    assert error.value.reason is Reason.NOT_READY
    site.signing.compare(site.clock.now(), since=site.clock.now())
    assert run._Process._sign_head(process, link)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert run._secret(path, "a.key") == b"secret"
    for mode in (0o640, 0o604, 0o660, 0o601):
        path.chmod(mode)
        with pytest.raises(ConfigInvalid, match="chmod 600"):
            run._secret(path, "a.key")


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"^config_invalid: a\.key"):
        run._file(tmp_path / "none", "a.key")


def test_the_first_failure_of_a_group_is_told() -> None:
    cause = UnavailableError(Reason.NOT_READY, "x")
    assert run._first(ExceptionGroup("a", [ExceptionGroup("b", [cause])])) is cause


async def test_a_policy_that_is_not_taken_is_in_the_authoritys_audit_log(tmp_path: Path) -> None:
    served = Repository(tmp_path / "served").publish()
    policies = PolicyRepository(served.anchor, FolderFetcher(served.folder), tmp_path / "state")
    policies.load()
    audit, clock = MemoryAudit(), ManualClock()
    process: Any = SimpleNamespace(
        config=SimpleNamespace(policy=SimpleNamespace(refresh_s=0.01)),
        policies=policies,
        renewal=None,
        clock=SigningClock(wall=clock.now, monotonic=clock.monotonic),
        ticks=SimpleNamespace(opened=partial(asyncio.sleep, 0)),
        metrics=AuthorityMetrics(),
        signers=(),
        told=PolicyAudit(audit, clock),
    )
    served.signers["agency-G01"] = ["mallory"]
    served.publish()
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(run._Process._refresh(process))
        async with asyncio.timeout(5):
            while not audit.events:
                await asyncio.sleep(0.01)
        looking.cancel()
    assert audit.events == [("policy_refused", {"reason": "bad_signature", "version": 7})]
    assert policies.policy.version == 7


def test_an_authority_whose_clock_jumped_says_so(tmp_path: Path) -> None:
    site, clock = AuthoritySite(tmp_path), ManualClock(datetime.now(UTC))
    site.close()
    process: Any = SimpleNamespace(
        policies=site,
        signers=site.verifier.signers,
        clock=SigningClock(wall=clock.now, monotonic=clock.monotonic),
        ledger=SimpleNamespace(why_not_ready=None),
        keeper=SimpleNamespace(why_not_ready=None),
        publisher=SimpleNamespace(why_not_ready=None),
    )
    assert not any(run._Process._ready(process).values())
    clock.set_wall(clock.now() + timedelta(hours=1))
    shown = run._Process._ready(process)
    assert "3600 s ahead" in (shown["clock"] or "")
    assert shown["policy"]


def test_an_authority_whose_clock_crept_ahead_says_so_as_at_its_start(tmp_path: Path) -> None:
    site, now = AuthoritySite(tmp_path), datetime.now(UTC)
    site.close()
    shown = []
    for told in (SigningClock.compare, SigningClock.heed):
        process: Any = SimpleNamespace(
            policies=site,
            signers=site.verifier.signers,
            clock=SigningClock(wall=lambda: now),
            ledger=SimpleNamespace(why_not_ready=None),
            keeper=SimpleNamespace(why_not_ready=None),
            publisher=SimpleNamespace(why_not_ready=None),
        )
        with contextlib.suppress(UnavailableError):
            told(process.clock, now - timedelta(seconds=31), since=now)
        shown.append(run._Process._ready(process)["clock"])
    said = "31 s ahead of the brokers' clock; set right the one that is wrong"
    assert said in (shown[0] or "")
    assert shown[0] == shown[1]


async def a_host_in_every_state(site: AuthoritySite) -> None:
    """One each, by ledger and policy; the log has the first three."""
    now = site.clock.now()
    later, past = now + timedelta(minutes=5), now - timedelta(minutes=5)
    times = {SENDER: later, HostId.parse("G09/none/host"): later, READER: past}
    logged = [a_state(a_result(host=host, expires=end)) for host, end in times.items()]
    await site.ledger.do(lambda ledger: ledger.all_in_log(logged))
    await site.ledger.do(lambda ledger: ledger.enrol(ENROLMENT, now))
    result = a_result(host=ENROLMENT.host, expires=later)
    counters = Counters(clock=7, resets=2, restarts=1, safe=True)
    verdict = Verdict(enrolment=ENROLMENT, result=result, counters=counters, tally=bytes(32))
    await site.ledger.do(lambda ledger: ledger.attest(verdict, now))
    for name, kind in (("s", NoticeKind.SUSPENSION), ("r", NoticeKind.REVOCATION)):
        host, why = HostId.parse(f"G09/none/{name}"), Reason.HOST_SUSPENDED
        give = partial(Ledger.notice, host=host, kind=kind, approval=1, why=why, now=now)
        await site.ledger.do(give)


async def test_hosts_are_counted_by_the_state_that_others_see(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    await a_host_in_every_state(site)
    metrics = AuthorityMetrics()
    process: Any = SimpleNamespace(
        ledger=site.ledger,
        clock=site.clock,
        policies=site,
        metrics=metrics,
        publisher=SimpleNamespace(last_beat=None),
    )

    def counted() -> dict[str, float | None]:
        name = "fabric_authority_agents"
        return {s: metrics.registry.get_sample_value(name, {"state": s}) for s in AGENT_STATES}

    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(run._Process._count(process))
        await until(lambda: any(counted().values()))
        counting.cancel()
    assert counted() == dict.fromkeys(AGENT_STATES, 1)
    site.close()


async def test_an_authority_whose_disk_is_full_says_so_until_it_has_room(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    process: Any = SimpleNamespace(
        ledger=site.ledger,
        clock=site.clock,
        policies=site,
        signers=site.verifier.signers,
        metrics=AuthorityMetrics(),
        keeper=SimpleNamespace(why_not_ready=None),
        publisher=SimpleNamespace(why_not_ready=None, last_beat=None),
    )

    def pages(ledger: Ledger, most: int) -> None:
        ledger._db.execute(f"PRAGMA max_page_count = {most}")

    much = replace(ENROLMENT, ek_certificate=bytes(100_000))
    await site.ledger.do(partial(pages, most=1))
    with pytest.raises(UnavailableError):
        await site.ledger.do(lambda ledger: ledger.enrol(much, site.clock.now()))
    assert run._Process._ready(process)["ledger"] == (
        f"overloaded: no room on the disk of {site.folder}; make room"
    )
    async with asyncio.TaskGroup() as tasks:
        await site.ledger.do(partial(pages, most=1_000_000))
        counting = tasks.create_task(run._Process._count(process))
        await until(lambda: run._Process._ready(process)["ledger"] is None)
        counting.cancel()
    site.close()


def test_an_authority_that_cannot_keep_a_policy_says_so(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    site.close()
    full: Any = SimpleNamespace(
        policy=site.policy, fault=UnavailableError(Reason.OVERLOADED, "no room on the disk")
    )
    process: Any = SimpleNamespace(
        policies=full,
        signers=site.verifier.signers,
        clock=site.clock,
        ledger=SimpleNamespace(why_not_ready=None),
        keeper=SimpleNamespace(why_not_ready=None),
        publisher=SimpleNamespace(why_not_ready=None),
    )
    assert run._Process._ready(process)["policy"] == "overloaded: no room on the disk"
