"""The judgement of one request: every premise changed alone must refuse it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from fabric.attest.appraise import Counters, enrol
from fabric.attest.ek import check_ek
from fabric.attest.keys import Alg, Kem, PublicKey, SigningKey, Use, of_use
from fabric.attest.members import MemberState, NoticeKind
from fabric.attest.messages import AttestRequest, Challenge
from fabric.authority.attest_machine import (
    SUSPENDING,
    Case,
    Known,
    approved,
    attested_state,
    heads_of,
    judge,
    noticed_state,
    svid_end,
    tls_point,
)
from fabric.authority.machine import Challenges
from fabric.model.errors import DeniedError, FabricError, Reason
from fabric.model.label import Label
from fabric.model.limits import CLOCK_SKEW_S_MAX, HEADS_SPARE, RESULT_HEADS_MAX
from fabric.policy.types import Policy
from fabric.seal.suites import suite_of
from tests.fakes import policy_files
from tests.fakes.authority_site import READER, SENDER, Machine
from tests.fakes.tpm import FakeTpm, FakeTpmCa
from tests.fakes.verifier import TRUST_DOMAIN, UNFIT, a_notice

NOW = datetime.now(UTC)
MAKER = FakeTpmCa()


def policy_for(machine: Machine, **approval: object) -> Policy:
    documents = policy_files.documents()
    documents[f"approvals/{machine.host}.yaml"] = machine.approval(**approval)
    return policy_files.load({**policy_files.files(documents), "trust/ek-ca.pem": MAKER.pem})


def known_of(machine: Machine, **changes: object) -> Known:
    ek = check_ek(machine.tpm.ek_certificate(), MAKER.pem, NOW)
    known = Known(
        enrolment=enrol(machine.host, ek, machine.tpm.ak_public()),
        counters=None,
        tally=None,
        approval_seen=0,
        notices=[],
        last_number=0,
    )
    return replace(known, **changes)


def case_of(machine: Machine, policy: Policy, **changes: object) -> Case:
    challenge = Challenges().open(machine.host, "a", NOW)
    answer = Challenge(
        session=challenge.session,
        nonce=challenge.nonce,
        verifier=policy.trust.verifier_name,
        pcrs=policy.approvals[machine.host].pcrs,
        expires_ms=1,
        tally=b"",
        step=bytes(32),
    )
    case = Case(
        request=AttestRequest.decode(machine.attest_request(answer.encode())),
        challenge=challenge,
        known=known_of(machine),
        policy=policy,
        now=NOW,
        lifetime_s=None,
    )
    return replace(case, **changes)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine(SENDER, FakeTpm(MAKER, elliptic=True))


def reason_of(call: Callable[[], object]) -> Reason:
    with pytest.raises(FabricError) as error:
        call()
    return error.value.reason


def test_a_right_host_gets_what_its_approval_says(machine: Machine) -> None:
    policy = policy_for(machine, security_level=3, clearance="confidential")
    verdict = judge(case_of(machine, policy))
    result = verdict.result
    assert (result.level, result.clearance) == (3, Label.parse("confidential"))
    assert result.expires - result.issued == timedelta(seconds=600)
    assert result.policy_version == policy.version
    assert verdict.counters.resets == machine.tpm.resets


@pytest.mark.parametrize("kem", [*Kem])
def test_a_key_to_which_nothing_can_be_wrapped_is_not_bound(kem: Kem) -> None:
    machine = Machine(SENDER, FakeTpm(MAKER, elliptic=True))
    machine.keys.hpke = PublicKey(Use.HPKE, int(kem), UNFIT[kem])
    case = case_of(machine, policy_for(machine))
    assert reason_of(lambda: judge(case)) is Reason.MALFORMED


def test_a_key_that_lives_in_the_tpm_is_bound_when_it_is_proved() -> None:
    machine = Machine(SENDER, FakeTpm(MAKER, elliptic=True))
    machine.sign_in_tpm()
    result = judge(case_of(machine, policy_for(machine))).result
    suite = suite_of("hybrid-tpm")
    bound = of_use(result.keys, Use.SIGN, suite.signatures)
    assert bound == tuple(key.public for key in machine.keys.sign)


def test_a_key_that_claims_to_live_in_the_tpm_is_not_bound_without_proof() -> None:
    """MUST-9.21."""
    machine = Machine(SENDER, FakeTpm(MAKER, elliptic=True))
    machine.keys.sign = (SigningKey.generate(Alg.ESP256), machine.keys.sign[1])
    case = case_of(machine, policy_for(machine))
    assert reason_of(lambda: judge(case)) is Reason.EVIDENCE_REFUSED
    machine.sign_in_tpm()
    good = case_of(machine, policy_for(machine))
    earlier = case_of(machine, policy_for(machine)).request.resident
    replayed = replace(good, request=replace(good.request, resident=earlier))
    assert reason_of(lambda: judge(replayed)) is Reason.BINDING_MISMATCH


def test_a_setting_shortens_a_result_and_never_lengthens_it(machine: Machine) -> None:
    for setting, expected in ((5, 5), (10_000, 600)):
        case = case_of(machine, policy_for(machine), lifetime_s=setting)
        result = judge(case).result
        assert result.expires - result.issued == timedelta(seconds=expected)


def test_the_shortest_lifetime_among_a_hosts_levels_counts(machine: Machine) -> None:
    policy = policy_for(machine)
    for level, expected in (("internal", 60), ("secret", 60), ("top-secret", 600)):
        rules = {**policy.rules, level: replace(policy.rules[level], result_lifetime_s=60)}
        result = judge(case_of(machine, replace(policy, rules=rules))).result
        assert result.expires - result.issued == timedelta(seconds=expected)


def test_a_result_never_outlives_the_approval(machine: Machine) -> None:
    end = NOW.replace(microsecond=0) + timedelta(seconds=7)
    result = judge(case_of(machine, policy_for(machine, not_after=end.isoformat()))).result
    assert result.expires == end


def test_an_approval_that_ends_this_second_gives_no_result(machine: Machine) -> None:
    policy = policy_for(machine)
    ending = replace(policy.approvals[SENDER], not_after=NOW + timedelta(microseconds=1))
    case = case_of(machine, replace(policy, approvals={SENDER: ending}))
    assert reason_of(lambda: judge(case)) is Reason.APPROVAL_EXPIRED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"enrolment": None}, Reason.NOT_ENROLLED),
        ({"approval_seen": 2}, Reason.NOT_APPROVED),
        ({"notices": [a_notice(1)]}, Reason.HOST_SUSPENDED),
        ({"notices": [a_notice(1, NoticeKind.REVOCATION)]}, Reason.HOST_REVOKED),
        (
            {"counters": Counters(clock=2**40, resets=2**31, restarts=0, safe=True)},
            Reason.COUNTERS_WENT_BACK,
        ),
    ],
)
def test_what_the_ledger_holds_against_a_host_refuses_it(
    machine: Machine, changes: dict[str, object], reason: Reason
) -> None:
    case = case_of(machine, policy_for(machine), known=known_of(machine, **changes))
    assert reason_of(lambda: judge(case)) is reason


@pytest.mark.parametrize(
    ("approval", "reason"),
    [
        ({"ak_name": None}, Reason.NOT_APPROVED),
        ({"ak_name": "000b" + "11" * 32}, Reason.NOT_APPROVED),
        ({"ek_sha256": "11" * 32}, Reason.NOT_APPROVED),
        ({"digests": ["11" * 32]}, Reason.STATE_REFUSED),
        ({"not_before": (NOW + timedelta(hours=1)).isoformat()}, Reason.NOT_APPROVED),
        ({"not_after": (NOW - timedelta(seconds=1)).isoformat()}, Reason.APPROVAL_EXPIRED),
    ],
)
def test_what_the_approval_does_not_say_refuses_a_host(
    machine: Machine, approval: dict[str, object], reason: Reason
) -> None:
    case = case_of(machine, policy_for(machine, **approval))
    assert reason_of(lambda: judge(case)) is reason


def test_a_quote_over_other_pcrs_than_the_approvals_is_refused(machine: Machine) -> None:
    asked = policy_for(machine)
    case = case_of(machine, asked)
    narrowed = replace(asked.approvals[SENDER], pcrs=(0,))
    case = replace(case, policy=replace(asked, approvals={SENDER: narrowed}))
    assert reason_of(lambda: judge(case)) is Reason.EVIDENCE_REFUSED


def test_a_quote_for_another_verifier_is_refused(machine: Machine) -> None:
    case = case_of(machine, policy_for(machine))
    trust = replace(case.policy.trust, verifier_name="another")
    case = replace(case, policy=replace(case.policy, trust=trust))
    assert reason_of(lambda: judge(case)) is Reason.BINDING_MISMATCH


def test_keys_that_the_quote_does_not_bind_are_refused(machine: Machine) -> None:
    case = case_of(machine, policy_for(machine))
    other = Machine(SENDER, machine.tpm)
    request = replace(case.request, keys=other.keys.public)
    assert reason_of(lambda: judge(replace(case, request=request))) is Reason.BINDING_MISMATCH


def test_an_expired_policy_attests_nobody(machine: Machine) -> None:
    case = case_of(machine, policy_for(machine))
    case = replace(case, policy=replace(case.policy, expires=NOW))
    assert reason_of(lambda: judge(case)) is Reason.POLICY_EXPIRED


def test_states_follow_from_results_and_notices(machine: Machine) -> None:
    known = known_of(machine, last_number=4)
    result = judge(case_of(machine, policy_for(machine), known=known)).result
    state = attested_state(result, NOW)
    assert (state.number, state.result_id, state.expires) == (4, result.id, result.expires)
    assert noticed_state(a_notice(5)).state is MemberState.SUSPENDED
    assert noticed_state(a_notice(5, NoticeKind.REVOCATION)).state is MemberState.REVOKED


def test_the_certificate_is_for_the_bound_tls_key_and_ends_with_the_result(
    machine: Machine,
) -> None:
    result = judge(case_of(machine, policy_for(machine))).result
    assert tls_point(result) == machine.keys.tls.public.data
    assert svid_end(result) == result.expires + timedelta(seconds=CLOCK_SKEW_S_MAX)
    assert result.host.spiffe(TRUST_DOMAIN).endswith(str(SENDER))


def telling(case: Case, count: int) -> Case:
    """The same request, with so many heads."""
    heads = tuple(number.to_bytes(32) for number in range(count))
    return replace(case, request=replace(case.request, heads=heads))


def with_partitions(policy: Policy, partitions: int) -> Policy:
    """The policy, with so many streams of the sender's sealed dataset."""
    topic = "secret.G01.residents"
    dataset = replace(policy.datasets[topic], partitions=partitions)
    return replace(policy, datasets={topic: dataset})


def test_a_host_with_very_many_streams_has_every_head_carried(machine: Machine) -> None:
    policy = with_partitions(policy_for(machine), RESULT_HEADS_MAX)
    case = telling(case_of(machine, policy), RESULT_HEADS_MAX)
    assert judge(case).result.heads == case.request.heads


def test_heads_beyond_a_hosts_streams_are_left_out_and_refuse_nothing(machine: Machine) -> None:
    """A policy that took datasets away locks nobody out; what is still named comes first."""
    policy = with_partitions(policy_for(machine), 3)
    case = telling(case_of(machine, policy), RESULT_HEADS_MAX)
    kept = case.request.heads[: 3 + HEADS_SPARE]
    assert judge(case).result.heads == heads_of(case) == kept
    none_left = replace(case, policy=replace(policy, datasets={}))
    assert judge(none_left).result.heads == ()


def test_no_head_of_a_host_that_sends_nothing_is_carried() -> None:
    reader = Machine(READER, FakeTpm(MAKER, elliptic=True))
    case = telling(case_of(reader, policy_for(reader)), 10)
    assert judge(case).result.heads == heads_of(case) == ()


def with_makers(policy: Policy, pem: bytes) -> Policy:
    """The policy with other makers of TPMs."""
    return replace(policy, trust=replace(policy.trust, ek_ca_pem=pem))


def test_a_tpm_whose_maker_the_policy_has_dropped_is_refused_with_the_remedy(
    machine: Machine,
) -> None:
    case = case_of(machine, policy_for(machine))
    others = replace(case, policy=with_makers(case.policy, FakeTpmCa("another").pem))
    with pytest.raises(DeniedError, match="put its CA back into the file") as error:
        judge(others)
    assert error.value.reason is Reason.EVIDENCE_REFUSED
    both = with_makers(case.policy, FakeTpmCa("another").pem + MAKER.pem)
    judge(replace(case, policy=both))


def test_a_dropped_maker_is_no_wrong_state_and_suspends_nobody() -> None:
    assert Reason.EVIDENCE_REFUSED not in SUSPENDING


def test_an_endorsement_certificate_may_end_while_its_maker_is_trusted(machine: Machine) -> None:
    policy, known = policy_for(machine), known_of(machine)
    assert known.enrolment is not None
    der = MAKER.certify(machine.tpm.ek.public_key(), until=NOW - timedelta(days=1))
    enrolment = replace(known.enrolment, ek_certificate=der)
    ended = replace(known, enrolment=enrolment, enrolled=NOW - timedelta(days=2))
    approved(policy, ended, machine.host, NOW)
    for makers, enrolled_at in ((MAKER, NOW), (FakeTpmCa("another"), ended.enrolled)):
        other, changed = with_makers(policy, makers.pem), replace(ended, enrolled=enrolled_at)
        call = partial(approved, other, changed, machine.host, NOW)
        assert reason_of(call) is Reason.EVIDENCE_REFUSED


def test_a_maker_that_issued_its_ca_anew_is_asked_for_the_one_of_then(machine: Machine) -> None:
    """It is trusted as ever, so what is said must not be that it is not."""
    policy, known = policy_for(machine), known_of(machine)
    assert known.enrolment is not None
    der = MAKER.certify(machine.tpm.ek.public_key(), until=NOW - timedelta(days=2))
    enrolment = replace(known.enrolment, ek_certificate=der)
    ended = replace(known, enrolment=enrolment, enrolled=NOW - timedelta(days=3))
    anew = MAKER.issue(since=NOW - timedelta(days=1))
    date = f"{ended.enrolled:%Y-%m-%d}"
    with pytest.raises(DeniedError, match=f"has ended.*was valid on {date}.*beside") as error:
        approved(with_makers(policy, anew), ended, machine.host, NOW)
    assert error.value.reason is Reason.EVIDENCE_REFUSED
    assert "any more" not in str(error.value)
    approved(with_makers(policy, anew + MAKER.pem), ended, machine.host, NOW)


def test_an_enrolment_without_its_certificate_has_to_be_made_again(machine: Machine) -> None:
    case = case_of(machine, policy_for(machine))
    assert case.known.enrolment is not None
    bare = replace(case.known.enrolment, ek_certificate=b"")
    known = replace(case.known, enrolment=bare)
    assert reason_of(lambda: judge(replace(case, known=known))) is Reason.NOT_ENROLLED
