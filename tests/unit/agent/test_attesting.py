"""Attesting against an authority that answers as told."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.agent import attest_machine
from fabric.agent.attesting import PART, Attesting, Hooks, read_event_log
from fabric.agent.identity import STATE, Identity
from fabric.agent.supervisor import Board
from fabric.agent.view import WorldView
from fabric.attest.binding import qualifying
from fabric.attest.keys import Alg, Kem, Use
from fabric.attest.messages import (
    AttestAnswer,
    AttestRequest,
    Challenge,
    EnrolChallenge,
    EnrolRequest,
)
from fabric.attest.resident import is_resident, point_of
from fabric.attest.result import Result, encode
from fabric.attest.tally import START, extended
from fabric.authority.pki import issue_svid, make_ca
from fabric.model.errors import (
    ConfigInvalid,
    DeniedError,
    FabricError,
    Reason,
    UnavailableError,
)
from fabric.model.label import Label
from fabric.model.limits import EVENT_LOG_BYTES_MAX
from fabric.model.names import HostId
from fabric.policy.types import Approval, SuiteRule
from fabric.store.clock import SystemClock
from fabric.store.file_keys import FileKeys
from fabric.store.sealed import read_sealed_key
from fabric.store.tpm_keys import TpmKeys
from tests.fakes.platform import LABEL, A, DrawerTpm, Platform
from tests.fakes.running import until
from tests.fakes.verifier import TRUST_DOMAIN, Verifier, a_result

CA = make_ca("a test")


class Authority:
    """Answers, or refuses what `refuses` names."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.refuses: dict[str, FabricError] = {}
        self.calls: list[str] = []
        self.requests: list[AttestRequest] = []
        self.tally = b""

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuses:
            raise self.refuses[name]

    async def enrol(self, body: EnrolRequest) -> EnrolChallenge:
        self._called("enrol")
        return EnrolChallenge(enrolment=bytes(16), credential=b"credential", secret=b"secret")

    async def activate(self, enrolment: bytes, secret: bytes) -> None:
        self._called("activate")
        assert secret == b"credentialsecret"

    async def challenge(self, host: HostId) -> Challenge:
        self._called("challenge")
        return Challenge(
            session=bytes(16),
            nonce=bytes(32),
            verifier="verifier",
            pcrs=(0, 7),
            expires_ms=30_000,
            tally=self.tally,
            step=secrets.token_bytes(32),
        )

    async def attest(self, body: bytes) -> AttestAnswer:
        self._called("attest")
        request = AttestRequest.decode(body)
        self.requests.append(request)
        now = self.platform.clock.now().replace(microsecond=0)
        result = a_result(
            host=A, keys=request.keys, issued=now, expires=now + timedelta(minutes=10)
        )
        tls = next(key for key in request.keys if key.use == "tls")
        return AttestAnswer(
            svid_pem=issue_svid(CA, A, TRUST_DOMAIN, tls.data, result.expires),
            result=encode(result, TRUST_DOMAIN, self.platform.verifier.signers),
        )


class Bench:
    """One attesting host."""

    def __init__(self, folder: Path, platform: Platform) -> None:
        (folder / "ca.pem").write_bytes(CA.cert_pem)
        self.tpm = DrawerTpm()
        self.folder = folder
        self.platform = platform
        self.authority = Authority(platform)
        self.results: list[Result] = []
        self.failures: list[Reason] = []
        self.board = Board()
        self.begin()

    def begin(self) -> None:
        """A new life."""
        self.identity = Identity(
            self.folder, self.tpm, ca=self.folder / "ca.pem", stores=(TpmKeys(self.tpm), FileKeys())
        )
        latest = self.platform.clock.latest
        self.view = WorldView(A, self.platform.policy, rejected=lambda *_: None, latest=latest)
        self.attesting = Attesting(
            self.identity,
            self.view,
            tpm=self.tpm,
            authority=self.authority,  # type: ignore[arg-type]
            clock=SystemClock(),
            board=self.board,
            hooks=Hooks(
                heads=lambda: (bytes(32),),
                attested=self.results.append,
                failed=self.failures.append,
            ),
        )

    async def run(self, done: Callable[[], bool]) -> None:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self.attesting.run())
            await until(done)
            task.cancel()
        self.identity.close()


@pytest.fixture
def bench(tmp_path: Path, platform: Platform) -> Bench:
    return Bench(tmp_path, platform)


async def test_a_new_host_enrols_attests_and_has_papers(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    assert bench.authority.calls == ["enrol", "activate", "challenge", "attest"]
    assert bench.attesting.ready.is_set()
    assert (bench.folder / "svid.pem").exists()
    assert bench.board.parts[PART] is None


async def test_the_quote_is_over_the_challenge_and_every_key(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    (request,) = bench.authority.requests
    bound = qualifying(
        bytes(32), bytes(16), verifier="verifier", spiffe=A.spiffe(TRUST_DOMAIN), keys=request.keys
    )
    assert request.quote_attest == bound  # the drawer quotes by giving back
    assert request.heads == (bytes(32),)


async def test_the_keys_are_those_of_the_suites_that_the_policy_lets_the_host_use(
    bench: Bench,
) -> None:
    await bench.run(lambda: bool(bench.results))
    (request,) = bench.authority.requests
    bound = {int(key.alg) for key in request.keys if key.use is not Use.TLS}
    assert bound == {Alg.ED25519, Kem.X25519}  # no approval: as little as can attest
    bench.begin()
    bench.view.take_policy(replace(bench.view.policy, approvals={A: an_approval()}))
    await bench.run(lambda: len(bench.authority.requests) == 2)
    bound = {int(key.alg) for key in bench.authority.requests[1].keys if key.use is not Use.TLS}
    assert bound == {Alg.ED25519, Alg.ML_DSA_65, Kem.X25519, Kem.MLKEM768_X25519}


async def test_a_signing_key_in_the_tpm_goes_with_its_proof(bench: Bench) -> None:
    policy = bench.view.policy
    rules = {**policy.rules, "secret": replace(policy.rules["secret"], suites=("hybrid-tpm",))}
    suites = {"hybrid-tpm": SuiteRule(id="hybrid-tpm", status="approved")}
    bench.view.take_policy(
        replace(policy, rules=rules, suites=suites, approvals={A: an_approval()})
    )
    await bench.run(lambda: bool(bench.results))
    (request,) = bench.authority.requests
    assert request.resident is not None
    assert request.resident.attest == request.quote_attest  # over the same qualifying data
    (bound,) = [key for key in request.keys if is_resident(key)]
    assert point_of(request.resident.public) == bound.data


def an_approval() -> Approval:
    return Approval(
        host=A,
        number=1,
        ek_sha256=bytes(32),
        ak_name=None,
        security_level=4,
        clearance=LABEL,
        pcrs=(0, 7),
        digests=(bytes(32),),
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2030, 1, 1, tzinfo=UTC),
    )


async def test_the_tally_goes_with_the_quote_and_moves_once_per_renewal(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    (request,) = bench.authority.requests
    assert request.tally.attest == bench.tpm.tally_value == extended(START, request.tally.step)
    bench.authority.tally = bench.tpm.tally_value
    bench.begin()
    await bench.run(lambda: len(bench.authority.requests) == 2)
    second = bench.authority.requests[1].tally
    assert second.attest == extended(bench.authority.tally, second.step)


async def test_the_event_log_goes_with_the_quote(bench: Bench) -> None:
    path = bench.folder / "boot.log"
    path.write_bytes(b"log")
    bench.attesting._event_log = path
    await bench.run(lambda: bool(bench.results))
    assert bench.authority.requests[0].event_log == b"log"


async def test_an_event_log_that_cannot_be_read_is_shown(bench: Bench) -> None:
    bench.attesting._event_log = bench.folder / "missing"
    await bench.run(lambda: bool(bench.failures))
    assert bench.failures == [Reason.CONFIG_INVALID]
    assert "tpm.event_log" in bench.board.problems[PART]


def test_an_event_log_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(EVENT_LOG_BYTES_MAX))
    assert len(read_event_log(path)) == EVENT_LOG_BYTES_MAX
    path.write_bytes(bytes(EVENT_LOG_BYTES_MAX + 1))
    with pytest.raises(ConfigInvalid, match="longer"):
        read_event_log(path)


async def test_the_state_key_is_sealed_to_every_state_that_the_approval_accepts(
    bench: Bench,
) -> None:
    planned = b"planned".ljust(32, b"\0")
    approval = Approval(
        host=A,
        number=1,
        ek_sha256=bytes(32),
        ak_name=None,
        security_level=4,
        clearance=Label("secret"),
        pcrs=(0, 7),
        digests=(bench.tpm.pcr_digest(()), planned),
        not_before=bench.platform.clock.now(),
        not_after=bench.platform.clock.now() + timedelta(days=1),
    )
    bench.view.take_policy(replace(bench.view.policy, version=99, approvals={A: approval}))
    await bench.run(lambda: bool(bench.results))
    sealed = read_sealed_key(bench.folder / STATE)
    assert sealed is not None
    assert sealed.digests == set(approval.digests)


async def test_the_next_life_does_not_enrol_again(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    bench.begin()
    bench.authority.calls.clear()
    await bench.run(lambda: len(bench.authority.requests) == 2)
    assert bench.authority.calls == ["challenge", "attest"]


async def test_a_living_result_serves_while_the_authority_is_away(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    bench.begin()
    away = UnavailableError(Reason.AUTHORITY_UNAVAILABLE, "authority does not answer")
    bench.authority.refuses["challenge"] = away
    await bench.run(lambda: bool(bench.failures))
    assert bench.attesting.ready.is_set()
    assert Reason.AUTHORITY_UNAVAILABLE.value in bench.board.problems[PART]
    assert bench.results[0] == bench.results[1]


async def test_no_key_is_erased_by_a_clock_that_is_ahead_of_the_authoritys(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    bench.begin()
    ahead = timedelta(days=40)  # more than the log keeps anything
    bench.attesting._clock = SystemClock(wall=lambda: datetime.now(UTC) + ahead)
    bench.authority.calls.clear()
    await bench.run(lambda: len(bench.results) == 2)
    bench.begin()
    assert bench.identity.open_existing()
    hpke = {key.public for key in bench.identity.keyring.hpke}
    assert all(hpke >= {key for key in r.keys if key.use == Use.HPKE} for r in bench.results)
    assert len(hpke) == 2 * len([key for key in bench.results[0].keys if key.use == Use.HPKE])


async def test_a_result_of_a_clock_that_is_ahead_is_not_kept(bench: Bench) -> None:
    bench.platform.clock.ahead += timedelta(hours=1)
    await bench.run(lambda: bool(bench.failures))
    assert bench.failures == [Reason.CLOCK_WENT_BACK]
    assert "ahead of this machine's clock" in bench.board.problems[PART]
    assert not bench.attesting.ready.is_set()
    bench.platform.clock.ahead -= timedelta(hours=1)
    bench.begin()
    await bench.run(lambda: bool(bench.results))
    assert bench.attesting.ready.is_set()


async def test_a_result_of_a_verifier_that_is_trusted_no_more_serves_nothing(
    bench: Bench,
) -> None:
    await bench.run(lambda: bool(bench.results))
    other = replace(bench.platform.policy, version=8, trust=Verifier().trust)
    bench.platform.policy = other
    bench.begin()
    bench.authority.refuses["challenge"] = UnavailableError(
        Reason.AUTHORITY_UNAVAILABLE, "authority does not answer"
    )
    await bench.run(lambda: bool(bench.failures))
    assert len(bench.results) == 1
    assert not bench.attesting.ready.is_set()
    assert not bench.identity.has_context


async def test_an_open_state_file_is_gone_on_with_and_its_ca_read_anew(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    bench.begin()
    bench.identity.open_existing()
    bench.authority.refuses["challenge"] = UnavailableError(
        Reason.AUTHORITY_UNAVAILABLE, "authority does not answer"
    )
    await bench.run(lambda: bool(bench.failures))
    assert bench.attesting.ready.is_set()
    assert bench.identity.has_context


async def test_a_refusal_shows_and_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attest_machine, "_HOLD_S_MIN", 0.01)
    monkeypatch.setattr(attest_machine, "_HOLD_S_MAX", 0.02)
    refused = DeniedError(Reason.STATE_REFUSED, "host is not in an approved state")
    bench.authority.refuses["attest"] = refused

    def put_right() -> bool:
        if len(bench.failures) >= 2:
            assert Reason.STATE_REFUSED.value in bench.board.problems[PART]
            bench.authority.refuses.clear()
            return True
        return False

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.attesting.run())
        await until(put_right)
        await until(lambda: bool(bench.results))
        task.cancel()
    assert bench.board.parts[PART] is None


async def test_a_changed_policy_wakes_a_host_that_waits(bench: Bench) -> None:
    bench.authority.refuses["challenge"] = DeniedError(Reason.NOT_APPROVED, "no approval")
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(bench.attesting.run())
        await until(lambda: bool(bench.failures))
        bench.authority.refuses.clear()
        await asyncio.sleep(0.05)
        bench.view.take_policy(replace(bench.view.policy, version=8))
        await until(lambda: bool(bench.results), seconds=2)
        task.cancel()


async def test_a_state_file_that_does_not_open_is_held_and_never_replaced(bench: Bench) -> None:
    await bench.run(lambda: bool(bench.results))
    bench.begin()
    bench.tpm.state = b"changed"
    bench.authority.calls.clear()
    with pytest.raises(DeniedError) as caught:
        await bench.attesting.run()
    assert caught.value.reason is Reason.SEALED_STATE_LOST
    assert bench.authority.calls == []
