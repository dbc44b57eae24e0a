"""The service: effects in their order, and what must not happen."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509

from fabric.attest.members import MemberState, NoticeKind
from fabric.attest.messages import ActivateRequest, Challenge, EnrolChallenge, EnrolRequest
from fabric.attest.result import decode
from fabric.attest.tally import TallyReport
from fabric.authority import ledger_rows
from fabric.authority.admin_messages import Scope
from fabric.authority.callers import Caller
from fabric.authority.ledger import Ledger
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason, UnavailableError
from fabric.model.limits import (
    ATTEST_INTERVAL_S_MIN,
    CHALLENGE_LIFETIME_S,
    ENROLMENT_LIFETIME_S,
    PENDING_PER_HOST_MAX,
)
from fabric.model.names import AUDIT, MEMBERS, RECEIPTS, RESULTS, HostId
from fabric.ports import Quote
from tests.fakes.authority_site import (
    ADMIN,
    CALLER,
    READER,
    SENDER,
    AuthoritySite,
    Machine,
    until,
)
from tests.fakes.policy_files import OPEN_TOPIC, TOPIC
from tests.fakes.tpm import FakeTpm, FakeTpmCa


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AuthoritySite]:
    site = AuthoritySite(tmp_path)
    async with site.running():
        yield site
    site.close()


@pytest.fixture
async def enrolled(site: AuthoritySite) -> Machine:
    machine = site.machines[SENDER]
    await site.enrol(machine)
    return machine


def refused(error: pytest.ExceptionInfo[FabricError], reason: Reason) -> None:
    assert error.value.reason is reason


async def test_an_attested_host_gets_a_certificate_a_result_and_its_rights(
    site: AuthoritySite, enrolled: Machine
) -> None:
    answer = await site.attest(enrolled)
    result = decode(answer.result, site.policy.trust)
    assert result.host == SENDER
    assert result.keys == enrolled.keys.public
    assert (result.level, result.approval) == (4, 1)
    certificate = x509.load_pem_x509_certificate(answer.svid_pem)
    assert certificate.subject.rfc4514_string() == "CN=host-a,OU=registry,O=G01"
    assert site.members().current(SENDER, site.clock.now()) == result
    grants = f"fabric.grants.{TOPIC}"
    common = {MEMBERS, RESULTS, AUDIT, RECEIPTS}
    assert site.admin.rights[SENDER.principal] == {*common, TOPIC, grants, OPEN_TOPIC}


async def test_effects_come_in_the_order_ledger_results_members_answer(
    site: AuthoritySite, enrolled: Machine
) -> None:
    seen: list[str] = []

    def judge(topic: str, _partition: int, key: bytes | None, _value: bytes) -> None:
        if key != b"verifier/heartbeat":
            seen.append(topic)
            assert site.ledger._ledger.host(SENDER) is not None

    site.log.judge = judge
    await site.attest(enrolled)
    assert seen == [RESULTS, MEMBERS]


async def test_a_host_without_enrolment_gets_no_challenge(site: AuthoritySite) -> None:
    with pytest.raises(DeniedError) as error:
        await site.challenge(site.machines[SENDER])
    refused(error, Reason.NOT_ENROLLED)


async def test_an_approval_without_attestation_key_names_the_remedy(
    site: AuthoritySite, enrolled: Machine
) -> None:
    site.approve(enrolled, ak_name=None)
    site.publish()
    with pytest.raises(DeniedError, match=f"add ak_name {enrolled.ak_name.hex()}") as error:
        await site.challenge(enrolled)
    refused(error, Reason.NOT_APPROVED)


async def test_a_tpm_that_the_approval_does_not_name_cannot_enrol(site: AuthoritySite) -> None:
    other = Machine(SENDER, FakeTpm(site.maker, elliptic=True))
    with pytest.raises(DeniedError) as error:
        await site.service.enrol(other.enrol_request(), CALLER)
    refused(error, Reason.NOT_APPROVED)


async def test_a_tpm_that_the_approval_does_not_name_costs_no_chain_of_certificates(
    site: AuthoritySite,
) -> None:
    request = EnrolRequest.decode(site.machines[SENDER].enrol_request())
    rogue = FakeTpm(FakeTpmCa("rogue"), elliptic=True).ek_certificate()
    for certificate in (rogue, b"no certificate"):
        strange = replace(request, ek_certificate=certificate)
        with pytest.raises(DeniedError, match=sha256(certificate).hexdigest()) as error:
            await site.service.enrol(strange.encode(), CALLER)
        refused(error, Reason.NOT_APPROVED)


async def test_a_tpm_of_an_unknown_manufacturer_cannot_enrol(site: AuthoritySite) -> None:
    other = Machine(SENDER, FakeTpm(FakeTpmCa("rogue"), elliptic=True))
    site.approve(other)
    site.publish()
    with pytest.raises(DeniedError) as error:
        await site.service.enrol(other.enrol_request(), CALLER)
    refused(error, Reason.EVIDENCE_REFUSED)


async def test_a_maker_that_a_policy_drops_ends_the_attestations_of_its_tpms_and_comes_back(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    maker, site.maker = site.maker, FakeTpmCa("another")
    site.publish()
    with pytest.raises(DeniedError) as error:
        await site.challenge(enrolled)
    refused(error, Reason.EVIDENCE_REFUSED)
    site.maker = maker
    site.publish()
    await site.attest(enrolled)


async def test_a_host_of_a_ledger_without_certificates_comes_back_by_enrolling_again(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    site.ledger._ledger._db.execute("UPDATE enrolments SET ek_certificate = NULL")
    with pytest.raises(DeniedError) as error:
        await site.challenge(enrolled)
    refused(error, Reason.NOT_ENROLLED)
    await site.enrol(enrolled)
    await site.attest(enrolled)  # counters and tally go on, or it would be a fork


async def test_enrolling_the_same_again_changes_nothing(
    site: AuthoritySite, enrolled: Machine
) -> None:
    before = await site.service.enrolments()
    site.clock.advance(5)
    await site.enrol(enrolled)
    assert await site.service.enrolments() == before


async def test_another_attestation_key_of_the_same_tpm_is_a_conflict(
    site: AuthoritySite, enrolled: Machine
) -> None:
    before = await site.service.enrolments()
    enrolled.tpm.clear()
    with pytest.raises(DeniedError) as error:
        await site.enrol(enrolled)
    refused(error, Reason.ENROLMENT_CONFLICT)
    assert await site.service.enrolments() == before
    assert "enrolment_conflict" in site.audit.names()


async def test_two_pending_enrolments_of_one_host_end_in_a_conflict_for_the_later(
    site: AuthoritySite,
) -> None:
    machine = site.machines[SENDER]
    first = await site.service.enrol(machine.enrol_request(), CALLER)
    body = machine.activate_request(first)
    machine.tpm.clear()
    second = await site.service.enrol(machine.enrol_request(), CALLER)
    await site.service.activate(body, CALLER)
    with pytest.raises(DeniedError) as error:
        await site.service.activate(machine.activate_request(second), CALLER)
    refused(error, Reason.ENROLMENT_CONFLICT)


async def test_a_forgotten_host_may_enrol_with_another_key(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.service.forget(SENDER, why="TPM was cleared", caller=ADMIN)
    enrolled.tpm.clear()
    site.approve(enrolled)
    site.publish()
    await site.enrol(enrolled)
    await site.attest(enrolled)


async def test_a_wrong_secret_ends_the_enrolment(site: AuthoritySite) -> None:
    machine = site.machines[SENDER]
    answer = await site.service.enrol(machine.enrol_request(), CALLER)
    ident = EnrolChallenge.decode(answer).enrolment
    wrong = ActivateRequest(enrolment=ident, secret=bytes(32)).encode()
    with pytest.raises(DeniedError) as error:
        await site.service.activate(wrong, CALLER)
    refused(error, Reason.ACTIVATION_FAILED)
    with pytest.raises(DeniedError) as error:
        await site.service.activate(machine.activate_request(answer), CALLER)
    refused(error, Reason.ACTIVATION_FAILED)
    assert await site.service.enrolments() == []


async def test_an_activation_that_comes_too_late_fails(site: AuthoritySite) -> None:
    machine = site.machines[SENDER]
    answer = await site.service.enrol(machine.enrol_request(), CALLER)
    site.clock.advance(ENROLMENT_LIFETIME_S + 1)
    with pytest.raises(DeniedError) as error:
        await site.service.activate(machine.activate_request(answer), CALLER)
    refused(error, Reason.ACTIVATION_FAILED)


async def test_a_challenge_is_used_once(site: AuthoritySite, enrolled: Machine) -> None:
    body = enrolled.attest_request(await site.challenge(enrolled))
    await site.service.attest(body, CALLER)
    with pytest.raises(PeerError) as error:
        await site.service.attest(body, CALLER)
    refused(error, Reason.NONCE_REFUSED)


async def test_what_strangers_are_refused_again_and_again_is_one_line_and_a_count(
    site: AuthoritySite, enrolled: Machine
) -> None:
    """They would wash everything else out of the audit log in time."""
    for number in range(20):
        body = enrolled.attest_request(
            await site.challenge(enrolled), quote=Quote(attest=b"a", signature=b"s")
        )
        with pytest.raises(FabricError):
            await site.service.attest(body, Caller(name=f"10.0.0.{number}"))
    site.service.refusals.flush()
    refusals = [item for item in site.audit.events if "refused" in item[0]]
    assert [name for name, _ in refusals] == ["attestation_refused", "requests_refused"]
    assert refusals[0][1]["caller"] == "10.0.0.0"
    assert refusals[1][1]["requests"] == 19


async def test_strangers_who_ask_in_a_hosts_name_keep_it_from_nothing(
    site: AuthoritySite, enrolled: Machine
) -> None:
    itself = Caller(name=str(SENDER), host=SENDER, has_certificate=True)
    answer = await site.service.challenge(enrolled.challenge_request(), itself)
    for number in range(PENDING_PER_HOST_MAX + 1):
        stranger = Caller(name=f"2001:db8:0:{number:x}::1")
        await site.service.challenge(enrolled.challenge_request(), stranger)
    await site.service.attest(enrolled.attest_request(answer), itself)


async def test_a_host_gets_one_result_a_second_however_many_challenges_it_saved_up(
    site: AuthoritySite, enrolled: Machine
) -> None:
    """Views keep a bounded number of results: nobody may push out those of others."""
    bodies = [enrolled.attest_request(await site.challenge(enrolled)) for _ in range(2)]
    await site.service.attest(bodies[0], CALLER)
    with pytest.raises(UnavailableError) as error:
        await site.service.attest(bodies[1], CALLER)
    refused(error, Reason.OVERLOADED)
    with pytest.raises(UnavailableError) as error:
        await site.service.challenge(enrolled.challenge_request(), CALLER)
    refused(error, Reason.OVERLOADED)
    assert len(site.log.values(RESULTS)) == 1
    other = site.machines[READER]
    await site.enrol(other)
    await site.service.challenge(other.challenge_request(), CALLER)
    await site.attest(enrolled)
    assert site.noticed == []


async def test_a_challenge_lives_for_seconds(site: AuthoritySite, enrolled: Machine) -> None:
    body = enrolled.attest_request(await site.challenge(enrolled))
    site.clock.advance(CHALLENGE_LIFETIME_S + 1)
    with pytest.raises(PeerError) as error:
        await site.service.attest(body, CALLER)
    refused(error, Reason.NONCE_REFUSED)


async def test_a_challenge_of_one_host_serves_no_other(
    site: AuthoritySite, enrolled: Machine
) -> None:
    other = site.machines[READER]
    await site.enrol(other)
    body = other.attest_request(await site.challenge(enrolled))
    with pytest.raises(PeerError) as error:
        await site.service.attest(body, CALLER)
    refused(error, Reason.NONCE_REFUSED)


def forged(body: bytes) -> bytes:
    """The request with a wrong signature, its last."""
    return body[:-1] + bytes([body[-1] ^ 1])


async def test_without_a_challenge_no_signature_is_looked_at(
    site: AuthoritySite, enrolled: Machine
) -> None:
    """They cost the authority most, and anybody may send some."""
    other = site.machines[READER]
    answer = await site.challenge(enrolled)
    body = enrolled.attest_request(answer)
    strange = replace(Challenge.decode(answer), session=bytes(16)).encode()
    bodies = [enrolled.attest_request(strange), other.attest_request(answer)]
    await site.service.attest(body, CALLER)
    said = set()
    for wrong in (*bodies, *map(forged, bodies), body, forged(body)):
        with pytest.raises(PeerError) as error:
            await site.service.attest(wrong, CALLER)
        said.add((error.value.reason, str(error.value)))
    assert {reason for reason, _ in said} == {Reason.NONCE_REFUSED}
    assert len(said) == 1, "nobody learns which sessions there are"


async def test_nobody_else_uses_a_hosts_challenge_up(
    site: AuthoritySite, enrolled: Machine
) -> None:
    other = site.machines[READER]
    await site.enrol(other)
    answer = await site.challenge(enrolled)
    body = enrolled.attest_request(answer)
    for wrong in (other.attest_request(answer), forged(body)):
        with pytest.raises(PeerError):
            await site.service.attest(wrong, CALLER)
    await site.service.attest(body, CALLER)


async def test_a_quote_for_another_session_is_refused(
    site: AuthoritySite, enrolled: Machine
) -> None:
    first = Challenge.decode(await site.challenge(enrolled))
    quote = enrolled.tpm.quote(first.pcrs, enrolled.extra(first))
    body = enrolled.attest_request(await site.challenge(enrolled), quote)
    with pytest.raises(PeerError) as error:
        await site.service.attest(body, CALLER)
    refused(error, Reason.BINDING_MISMATCH)
    assert site.noticed == []


async def test_a_changed_host_is_suspended_at_once_and_loses_its_rights(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    enrolled.tpm.extend(1, bytes(range(32)))
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.STATE_REFUSED)
    assert site.noticed == ["suspension"]
    assert SENDER.principal not in site.admin.rights
    members = site.members()
    assert members.revocation_number == 1
    with pytest.raises(DeniedError) as error:
        members.current(SENDER, site.clock.now())
    refused(error, Reason.HOST_SUSPENDED)
    assert members.hosts[SENDER].state is MemberState.SUSPENDED


async def test_a_suspended_host_is_refused_without_a_second_notice(
    site: AuthoritySite, enrolled: Machine
) -> None:
    enrolled.tpm.extend(1, bytes(range(32)))
    for reason in (Reason.STATE_REFUSED, Reason.HOST_SUSPENDED, Reason.HOST_SUSPENDED):
        with pytest.raises(DeniedError) as error:
            await site.attest(enrolled)
        refused(error, reason)
    assert site.noticed == ["suspension"]


async def test_a_suspended_host_that_is_put_right_still_needs_a_greater_approval(
    site: AuthoritySite, enrolled: Machine
) -> None:
    enrolled.tpm.extend(1, bytes(range(32)))
    with pytest.raises(DeniedError):
        await site.attest(enrolled)
    enrolled.tpm.reboot()
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.HOST_SUSPENDED)
    site.approve(enrolled, number=2)
    site.publish()
    answer = await site.attest(enrolled)
    assert decode(answer.result, site.policy.trust).approval == 2
    assert site.members().current(SENDER, site.clock.now()).approval == 2
    assert TOPIC in site.admin.rights[SENDER.principal]


async def test_an_approval_number_never_goes_back(site: AuthoritySite, enrolled: Machine) -> None:
    site.approve(enrolled, number=3)
    site.publish()
    await site.attest(enrolled)
    site.approve(enrolled, number=2)
    site.publish()
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.NOT_APPROVED)


async def test_a_tpm_whose_time_went_back_is_refused_and_suspended(
    site: AuthoritySite, enrolled: Machine
) -> None:
    enrolled.tpm.reboot()
    await site.attest(enrolled)
    enrolled.tpm.resets -= 1
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.COUNTERS_WENT_BACK)
    assert site.noticed == [NoticeKind.SUSPENSION]


async def test_an_honest_power_cut_passes(site: AuthoritySite, enrolled: Machine) -> None:
    await site.attest(enrolled)
    enrolled.tpm.reboot(clean=False)
    await site.attest(enrolled)


async def test_while_the_gateway_is_away_the_answer_is_unavailable_and_a_retry_works(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.3)
    await site.ticks.opened()
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway"))
    with pytest.raises(UnavailableError) as error:
        await site.attest(enrolled)
    refused(error, Reason.GATEWAY_UNAVAILABLE)
    site.log.fail(None)
    await site.attest(enrolled)
    assert site.members().current(SENDER, site.clock.now())


async def test_a_host_whose_result_no_gateway_took_is_not_shown_as_attested(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.1)

    async def shown() -> tuple[object, object]:
        (host,) = await site.service.hosts()
        return host["state"], host["result"]

    first = decode((await site.attest(enrolled)).result, site.policy.trust)
    assert await shown() == ("attested", first.id.hex())
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
    site.clock.advance((first.expires - first.issued).total_seconds() / 2)
    with pytest.raises(UnavailableError):
        await site.attest(enrolled)
    assert await shown() == ("attested", first.id.hex()), "everybody goes by the first result"
    site.clock.advance((first.expires - site.clock.now()).total_seconds())
    assert (await shown())[0] == "unpublished"


async def test_a_host_without_an_approval_of_now_is_not_shown_as_attested(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    site.approve(enrolled, security_level=3, clearance="secret")
    site.publish()
    (host,) = await site.service.hosts()
    assert (host["state"], host["level"], host["clearance"]) == ("attested", 3, "secret")
    del site.documents[f"approvals/{SENDER}.yaml"]
    site.publish()
    (host,) = await site.service.hosts()
    assert host["state"] == "not_approved"


async def test_a_suspension_is_told_and_kept_even_while_the_gateway_is_away(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.2)
    await site.attest(enrolled)
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "no gateway"))
    enrolled.tpm.extend(1, bytes(range(32)))
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.STATE_REFUSED)
    assert SENDER.principal not in site.admin.rights
    assert site.members().revocation_number == 0
    site.log.fail(None)
    await until(lambda: site.members().revocation_number == 1)


async def test_revocation_wins_over_a_renewal_in_every_interleaving(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    for hold in (RESULTS, MEMBERS):
        site.approve(enrolled, number=site.policy.approvals[SENDER].number + 1)
        site.publish()
        body = enrolled.attest_request(await site.challenge(enrolled))
        await _revoke_while_appending(site, body, hold)
        with pytest.raises(DeniedError) as error:
            site.members().current(SENDER, site.clock.now())
        refused(error, Reason.HOST_REVOKED)
        assert SENDER.principal not in site.admin.rights


async def _revoke_while_appending(site: AuthoritySite, body: bytes, topic: str) -> None:
    """Let a renewal reach its append to `topic`, revoke, then let the append go on."""
    reached, go_on, append = asyncio.Event(), asyncio.Event(), site.log.append

    async def held(name: str, partition: int, records: object) -> int:
        key = records[0][0]
        if name == topic and not key.startswith((b"verifier/heartbeat", b"verifier/revocation")):
            reached.set()
            await go_on.wait()
        return await append(name, partition, records)

    site.log.append = held
    async with asyncio.TaskGroup() as group:
        renewal = group.create_task(_outcome(site, body))
        await reached.wait()
        who = Scope.parse(str(SENDER))
        await site.service.decide(who, NoticeKind.REVOCATION, why="stolen", caller=ADMIN)
        go_on.set()
    site.log.append = append
    assert renewal.result() is Reason.HOST_REVOKED


async def _outcome(site: AuthoritySite, body: bytes) -> Reason | None:
    try:
        await site.service.attest(body, CALLER)
    except FabricError as exc:
        return exc.reason
    return None


async def test_a_revocation_stands_above_a_suspension_and_is_given_once(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    decide, who = site.service.decide, Scope.parse(str(SENDER))
    (first,) = await decide(who, NoticeKind.SUSPENSION, why="odd traffic", caller=ADMIN)
    (second,) = await decide(who, NoticeKind.REVOCATION, why="stolen", caller=ADMIN)
    (third,) = await decide(who, NoticeKind.REVOCATION, why="stolen", caller=ADMIN)
    assert [first["number"], second["number"], third["number"]] == [1, 2, 0]
    (host,) = await site.service.hosts()
    assert (host["state"], host["number"]) == ("revoked", 2)


async def test_nobody_can_revoke_a_host_that_nobody_knows(site: AuthoritySite) -> None:
    for stranger in ("G09/other/host-x", "G09/other", "G09", str(SENDER) + "0"):
        who = Scope.parse(stranger)
        with pytest.raises(DeniedError) as error:
            await site.service.decide(who, NoticeKind.REVOCATION, why="why", caller=ADMIN)
        refused(error, Reason.NOT_ENROLLED)


async def test_one_command_revokes_every_host_of_a_system_and_no_other(
    site: AuthoritySite, enrolled: Machine
) -> None:
    twin = Machine(HostId.parse("G01/registry/a2"), FakeTpm(site.maker, elliptic=True))
    site.approve(twin)
    site.publish()
    await site.attest(enrolled)
    system = Scope.parse("G01/registry")
    entries = await site.service.decide(system, NoticeKind.REVOCATION, why="raid", caller=ADMIN)
    assert {entry["host"] for entry in entries} == {str(SENDER), str(twin.host)}
    assert sorted(entry["number"] for entry in entries) == [1, 2]
    members = site.members()
    assert members.revocation_number == 2
    with pytest.raises(DeniedError) as error:
        members.current(SENDER, site.clock.now())
    refused(error, Reason.HOST_REVOKED)
    assert site.audit.names().count("decided") == site.audit.names().count("notice") == 2
    with pytest.raises(DeniedError) as error:
        await site.challenge(twin)
    refused(error, Reason.NOT_ENROLLED)
    standing = await site.ledger.do(lambda ledger: ledger.known(READER))
    assert not standing.notices


async def test_an_agency_whose_gateway_is_away_is_revoked_all_the_same(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.publisher.PUBLISH_S_MAX", 0.1)
    await site.attest(enrolled)
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
    for _ in range(2):  # given again it is no more published than before
        with pytest.raises(UnavailableError, match="the revocation is kept") as error:
            await site.service.decide(
                Scope.parse("G01"), NoticeKind.REVOCATION, why="raid", caller=ADMIN
            )
        refused(error, Reason.GATEWAY_UNAVAILABLE)
    (host,) = await site.service.hosts()
    assert host["state"] == "revoked"
    site.log.fail(None)
    await until(lambda: site.members().revocation_number == 1)


async def test_every_notice_of_a_decision_is_kept_before_any_is_waited_for(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.service, "_following", asyncio.Semaphore(1))
    for number in range(3):
        tpm = FakeTpm(site.maker, elliptic=True)
        site.approve(Machine(HostId.parse(f"G01/registry/h{number}"), tpm))
    site.publish()
    site.log.fail(UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away"))
    async with asyncio.TaskGroup() as group:
        raid = site.service.decide(
            Scope.parse("G01"), NoticeKind.SUSPENSION, why="raid", caller=ADMIN
        )
        deciding = group.create_task(raid)
        async with asyncio.timeout(5):  # half of what a publication is waited for
            while await site.ledger.do(Ledger.last_number) < 4:
                await asyncio.sleep(0.01)
        assert not deciding.done()
        site.log.fail(None)
    assert len(deciding.result()) == 4


async def test_a_notice_is_done_while_the_rights_of_others_take_long_and_they_follow_later(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.attest(enrolled)
    monkeypatch.setattr("fabric.authority.service.PUBLISH_S_MAX", 0.1)
    monkeypatch.setattr(site.service, "_following", asyncio.Semaphore(0))
    async with asyncio.timeout(30):
        [entry] = await site.service.decide(
            Scope.parse(str(SENDER)), NoticeKind.SUSPENSION, why="raid", caller=ADMIN
        )
    assert entry["number"] == 1
    await until(lambda: SENDER.principal not in site.admin.rights)


async def test_a_decision_that_the_ledger_does_not_take_is_to_be_given_again(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "the disk is full")

    monkeypatch.setattr(Ledger, "notice", full)
    with pytest.raises(UnavailableError, match="give it again") as error:
        await site.service.decide(
            Scope.parse(str(SENDER)), NoticeKind.SUSPENSION, why="raid", caller=ADMIN
        )
    refused(error, Reason.DATABASE_UNAVAILABLE)


async def test_a_certificate_speaks_for_its_own_host_alone(
    site: AuthoritySite, enrolled: Machine
) -> None:
    other = Caller(name=str(READER), host=READER, has_certificate=True)
    own = replace(other, name=str(SENDER), host=SENDER)
    challenge = await site.service.challenge(enrolled.challenge_request(), own)
    for operation, body in (
        (site.service.enrol, enrolled.enrol_request()),
        (site.service.challenge, enrolled.challenge_request()),
        (site.service.attest, enrolled.attest_request(challenge)),
    ):
        with pytest.raises(PeerError) as error:
            await operation(body, other)
        refused(error, Reason.IDENTITY_MISMATCH)


async def test_one_peer_cannot_take_all_challenges(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fabric.authority.machine.PENDING_PER_PEER_MAX", 3)
    for _ in range(3):
        await site.challenge(enrolled)
    with pytest.raises(UnavailableError) as error:
        await site.challenge(enrolled)
    refused(error, Reason.OVERLOADED)
    await site.service.challenge(enrolled.challenge_request(), Caller(name="10.0.0.9"))


async def test_an_expired_policy_attests_nobody_and_leaves_rights_alone(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    site.policy = replace(site.policy, expires=site.clock.now())
    with pytest.raises(DeniedError) as error:
        await site.challenge(enrolled)
    refused(error, Reason.POLICY_EXPIRED)
    await site.keeper.check()
    assert TOPIC in site.admin.rights[SENDER.principal]


async def test_counters_are_kept_over_a_restart(
    site: AuthoritySite, enrolled: Machine, tmp_path: Path
) -> None:
    await site.attest(enrolled)
    known = await site.ledger.do(lambda ledger: ledger.known(SENDER))
    assert known.counters is not None
    assert known.counters.resets == enrolled.tpm.resets
    assert await site.ledger.do(Ledger.last_number) == 0


@pytest.mark.parametrize("is_first", [True, False], ids=["the copy", "the host"])
async def test_of_two_copies_of_a_tpm_the_second_is_caught_at_its_first_renewal(
    site: AuthoritySite, enrolled: Machine, is_first: bool
) -> None:
    await site.attest(enrolled)
    copy = Machine(SENDER, enrolled.tpm.copy())
    first, second = (copy, enrolled) if is_first else (enrolled, copy)
    await site.attest(first)
    with pytest.raises(DeniedError, match="clear the TPM") as error:
        await site.attest(second)
    refused(error, Reason.FORK)
    with pytest.raises(DeniedError) as published:
        site.members().current(SENDER, site.clock.now())
    refused(published, Reason.HOST_SUSPENDED)
    (name, fields), (_, notice) = site.audit.events[-2:]
    assert (name, fields["reason"]) == ("attestation_refused", Reason.FORK.value)
    assert notice["why"] == Reason.FORK.value
    for machine in (first, second):  # nobody knows which of them is the host
        with pytest.raises(DeniedError) as again:
            await site.attest(machine)
        refused(again, Reason.HOST_SUSPENDED)


async def test_a_copy_that_follows_the_published_nonces_is_caught_all_the_same(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    copy = Machine(SENDER, enrolled.tpm.copy())
    answer = await site.attest(enrolled)
    copy.tpm.extend_tally(decode(answer.result, site.policy.trust).nonce)
    with pytest.raises(DeniedError) as error:
        await site.attest(copy)
    refused(error, Reason.FORK)


async def test_a_crash_between_extension_and_report_is_caught_up(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    lost = Challenge.decode(await site.challenge(enrolled))
    enrolled.tally_report(lost)
    answer = await site.challenge(enrolled)
    quote = enrolled.tpm.certify_tally(enrolled.extra(Challenge.decode(answer)))
    late = TallyReport(attest=quote.attest, signature=quote.signature, step=lost.step)
    await site.service.attest(enrolled.attest_request(answer, tally=late), CALLER)
    await site.attest(enrolled)
    assert site.noticed == []


async def test_a_report_that_was_heard_already_is_no_fork(
    site: AuthoritySite, enrolled: Machine
) -> None:
    """The host gave up waiting and asked again while its first request was on its way."""
    await site.attest(enrolled)
    first, second = await site.challenge(enrolled), await site.challenge(enrolled)
    body = enrolled.attest_request(first)
    quote = enrolled.tpm.certify_tally(enrolled.extra(Challenge.decode(second)))
    again = TallyReport(
        attest=quote.attest, signature=quote.signature, step=Challenge.decode(first).step
    )
    await site.service.attest(body, CALLER)
    site.clock.advance(ATTEST_INTERVAL_S_MIN)
    with pytest.raises(PeerError) as error:
        await site.service.attest(enrolled.attest_request(second, tally=again), CALLER)
    refused(error, Reason.NONCE_REFUSED)
    assert site.noticed == []
    await site.attest(enrolled)


async def test_a_refused_state_does_not_break_the_tally(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    before = await site.ledger.do(lambda ledger: ledger.known(SENDER))
    enrolled.tpm.extend(7, bytes(32))
    with pytest.raises(DeniedError) as error:
        await site.attest(enrolled)
    refused(error, Reason.STATE_REFUSED)
    after = await site.ledger.do(lambda ledger: ledger.known(SENDER))
    assert after.tally == before.tally


async def test_a_forgotten_host_begins_another_tally(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    enrolled.tpm.extend_tally(b"lost with the authority's backup".ljust(32))
    await site.service.forget(SENDER, why="ledger restored", caller=ADMIN)
    await site.enrol(enrolled)
    await site.attest(enrolled)
    await site.attest(enrolled)


async def test_the_tally_is_kept_over_a_restart(site: AuthoritySite, enrolled: Machine) -> None:
    await site.attest(enrolled)
    value = enrolled.tpm.tally()
    await site.ledger.do(lambda ledger: ledger.close())
    ledger = Ledger(site.folder / "ledger.db")
    site.ledger._ledger = ledger
    assert ledger.known(SENDER).tally == value


async def test_no_audit_line_and_no_error_holds_a_step(
    site: AuthoritySite, enrolled: Machine
) -> None:
    await site.attest(enrolled)
    copy = Machine(SENDER, enrolled.tpm.copy())
    answer = await site.challenge(enrolled)
    await site.service.attest(enrolled.attest_request(answer), CALLER)
    with pytest.raises(DeniedError) as error:
        await site.attest(copy)
    challenge = Challenge.decode(answer)
    shown = str(site.audit.events) + str(error.value) + repr(challenge)
    assert challenge.step.hex() not in shown
    assert repr(challenge.step) not in shown


@pytest.mark.parametrize("is_reconciled", [True, False])
async def test_a_ledger_restored_from_a_backup_suspends_nobody_once_it_has_read_the_log(
    site: AuthoritySite, enrolled: Machine, is_reconciled: bool
) -> None:
    await site.attest(enrolled)
    before = await site.ledger.do(lambda ledger: ledger.known(SENDER))
    entry = await site.ledger.do(lambda ledger: ledger.host(SENDER))
    assert entry is not None
    assert before.tally is not None
    for _ in range(2):  # one alone would be caught up as an unheard report
        await site.attest(enrolled)
    db = site.ledger._ledger._db
    ledger_rows.put_host(db, entry.state, entry.standing)
    ledger_rows.put_tally(db, enrolled.ak_name, before.tally)
    assert (await site.ledger.do(lambda ledger: ledger.known(SENDER))).tally == before.tally
    if is_reconciled:
        await site.publisher._reconcile(site.policy.trust)
        await site.attest(enrolled)
        await site.attest(enrolled)
        assert site.noticed == []
    else:
        with pytest.raises(DeniedError) as error:
            await site.attest(enrolled)
        refused(error, Reason.FORK)


async def test_a_ledger_of_a_clock_that_was_ahead_serves_on_under_a_right_one(
    site: AuthoritySite, enrolled: Machine
) -> None:
    """As `--clock-is-right` starts: readers take the new state for the later one all the same."""
    right = site.clock.now()
    site.clock.set_wall(right + timedelta(minutes=5))
    await site.ticks.opened()
    await site.attest(enrolled)
    await site.service.decide(Scope.parse(str(READER)), NoticeKind.SUSPENSION, why="", caller=ADMIN)
    newest = await site.ledger.do(Ledger.newest)
    assert newest is not None
    assert newest > right + timedelta(minutes=4)
    site.clock.set_wall(right)
    answer = await site.attest(enrolled)
    result = decode(answer.result, site.policy.trust)
    assert site.members().current(SENDER, site.clock.now()).id == result.id


async def test_nobody_is_judged_before_the_ledger_agrees_with_the_log(
    site: AuthoritySite, enrolled: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.ticks.opened()  # else the publisher opens them after they are closed here
    monkeypatch.setattr("fabric.authority.ticks.PUBLISH_S_MAX", 0.05)
    site.ticks._open.clear()
    with pytest.raises(UnavailableError) as error:
        await site.attest(enrolled)
    refused(error, Reason.NOT_READY)
    site.ticks.open()
    await site.attest(enrolled)


async def test_no_enrolment_is_dated_by_a_clock_that_nobody_confirmed(
    site: AuthoritySite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger would hold its time, and stop the next start under a right clock."""
    await site.ticks.opened()
    monkeypatch.setattr("fabric.authority.ticks.PUBLISH_S_MAX", 0.05)
    site.ticks._open.clear()
    with pytest.raises(UnavailableError) as error:
        await site.enrol(site.machines[SENDER])
    refused(error, Reason.NOT_READY)
    assert await site.ledger.do(Ledger.newest) is None
    site.ticks.open()
    await site.enrol(site.machines[SENDER])
