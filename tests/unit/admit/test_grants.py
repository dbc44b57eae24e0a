"""What a grants topic refuses."""

from contextlib import suppress
from dataclasses import replace

import pytest

from fabric.admit.grants import admit_grant
from fabric.admit.view import View
from fabric.attest.members import notice_record
from fabric.model.errors import FabricError, Reason
from fabric.model.names import MEMBERS, HostId, Origin, Topic
from fabric.policy.types import SuiteRule
from fabric.seal import epoch, record
from fabric.seal.epoch import parse_start, start_epoch, start_key, verify_start
from fabric.seal.grant import GrantDraft, grant, grant_key, parse_grant
from tests.fakes.gateway import SEALED, World, a_dataset
from tests.fakes.sealing import TRUST_DOMAIN, Party
from tests.fakes.verifier import a_notice

TOPIC = Topic.parse(SEALED)


@pytest.fixture
def world() -> World:
    return World()


def key_of(value: bytes) -> bytes:
    """The key that a record stands under; a record that does not parse has none."""
    with suppress(FabricError):
        if record.kind_of(value) == epoch.KIND:
            return start_key(parse_start(value).start)
        found = parse_grant(value).grant
        return grant_key(found.granter, found.terms.epoch_id)
    return b""


def why(
    world: World,
    value: bytes,
    *,
    key: bytes | None = None,
    host: Party | None = None,
    topic: Topic = TOPIC,
    view: View | None = None,
) -> Reason:
    party, place = host or world.a, key_of(value) if key is None else key
    with pytest.raises(FabricError) as refused:
        admit_grant(place, value, topic, view or world.view, host=party.host, now=world.now)
    return refused.value.reason


def test_garbage_and_envelopes_are_malformed(world: World) -> None:
    assert why(world, b"garbage") is Reason.MALFORMED
    assert why(world, world.seal()) is Reason.MALFORMED


def test_the_record_is_about_its_own_topic(world: World) -> None:
    other = Topic.parse("secret.G01.other")
    assert why(world, world.started.value, topic=other) is Reason.TOPIC_MISMATCH


def test_the_record_is_its_writers_own(world: World) -> None:
    assert why(world, world.started.value, host=world.b) is Reason.IDENTITY_MISMATCH


def test_the_record_stands_under_its_own_key_alone(world: World) -> None:
    """A key is not encrypted: nothing may be added to it."""
    value = world.started.value
    for key in (b"", key_of(value) + b" NAME=An", f"{world.a.host}/plaintext".encode()):
        assert why(world, value, key=key) is Reason.IDENTITY_MISMATCH
    granted = a_grant(world, world.a)
    assert why(world, granted, key=key_of(granted) + b"0") is Reason.IDENTITY_MISMATCH


def test_changed_bytes_are_a_bad_signature(world: World) -> None:
    value = world.started.value
    changed = value[:-1] + bytes([value[-1] ^ 1])
    assert why(world, changed) is Reason.BAD_SIGNATURE


def test_a_host_that_may_not_publish_starts_no_epoch(world: World) -> None:
    assert why(world, world.start(world.b).value, host=world.b) is Reason.NOT_A_PRODUCER


def test_a_producer_of_another_system_starts_no_epoch(world: World) -> None:
    dataset = a_dataset(SEALED, producers=(Origin.parse("G01/other/main"),))
    view = View(replace(world.policy, datasets={SEALED: dataset}), world.members)
    assert why(world, world.started.value, view=view) is Reason.NOT_A_PRODUCER


def test_suite_and_label_are_the_datasets(world: World) -> None:
    hybrid = a_dataset(SEALED, suite="hybrid")
    view = View(replace(world.policy, datasets={SEALED: hybrid}), world.members)
    assert why(world, world.started.value, view=view) is Reason.SUITE_REFUSED
    plain = a_dataset(SEALED, label=replace(hybrid.label, compartments=frozenset()))
    view = View(replace(world.policy, datasets={SEALED: plain}), world.members)
    assert why(world, world.started.value, view=view) is Reason.LABEL_MISMATCH


def test_a_record_from_before_the_last_notice_is_made_anew(world: World) -> None:
    notice = a_notice(1, host=world.b.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert why(world, world.started.value) is Reason.TOO_OLD


def test_a_record_that_knows_a_later_notice_waits(world: World) -> None:
    draft = world.a.draft(2, revocation_number=1, started=world.now)
    assert why(world, world.a.start(draft).value) is Reason.MEMBERS_STALE


def test_a_newer_policy_waits(world: World) -> None:
    draft = world.a.draft(2, revocation_number=0, policy_version=8, started=world.now)
    assert why(world, world.a.start(draft).value) is Reason.POLICY_NEWER


def test_unknown_foreign_and_ended_results_are_refused(world: World) -> None:
    draft = world.a.draft(2, revocation_number=0, started=world.now)
    unknown = world.a.start(replace(draft, result_id=bytes(16))).value
    assert why(world, unknown) is Reason.RESULT_UNKNOWN
    foreign = world.a.start(replace(draft, result_id=world.b.result.id)).value
    assert why(world, foreign) is Reason.IDENTITY_MISMATCH
    world.now = world.a.result.expires
    assert why(world, world.started.value) is Reason.RESULT_EXPIRED


def a_grant(world: World, by: Party, **changes: object) -> bytes:
    """A grant of host a's epoch to host b, by `by`."""
    draft = GrantDraft(
        granter=by.host,
        result_id=by.result.id,
        policy_version=7,
        revocation_number=0,
        granted=world.now,
    )
    started = verify_start(parse_start(world.started.value), world.a.result, TRUST_DOMAIN)
    (value,) = grant(
        replace(draft, **changes),  # type: ignore[arg-type]  # tests name real fields
        started,
        world.a.secret(),
        recipients=[(world.b.host, world.b.key.public)],
        signers=by.signers,
    )
    return value


def with_custodians(world: World, *names: str, **changes: object) -> View:
    dataset = a_dataset(SEALED, custodians=names, **changes)
    return View(replace(world.policy, datasets={SEALED: dataset}), world.members)


def test_a_custodian_that_policy_names_may_grant(world: World) -> None:
    """MUST-6.13."""
    value = a_grant(world, world.b)
    for name in ("G02/health", "G02/health/b1"):
        view = with_custodians(world, name)
        admit_grant(key_of(value), value, TOPIC, view, host=world.b.host, now=world.now)


def test_nobody_else_grants_what_another_has_sent(world: World) -> None:
    """MUST-6.13."""
    value = a_grant(world, world.b)
    assert why(world, value, host=world.b) is Reason.NOT_A_CUSTODIAN
    view = with_custodians(world, "G02/health/b2", "G03/tax")
    assert why(world, value, host=world.b, view=view) is Reason.NOT_A_CUSTODIAN


def test_a_custodian_must_be_let_read_what_it_grants(world: World) -> None:
    value = a_grant(world, world.b)
    view = with_custodians(world, "G02/health", consumers=("G03/tax",))
    assert why(world, value, host=world.b, view=view) is Reason.NOT_A_CONSUMER
    view = with_custodians(world, "G02/health")
    rule = replace(world.policy.rules["secret"], host_level_min=6)
    view = View(replace(view.policy, rules={**world.policy.rules, "secret": rule}), world.members)
    assert why(world, value, host=world.b, view=view) is Reason.LEVEL_TOO_LOW


def test_a_custodian_opens_no_epochs(world: World) -> None:
    view = with_custodians(world, "G02/health")
    started = world.start(world.b).value
    assert why(world, started, host=world.b, view=view) is Reason.NOT_A_PRODUCER


def test_a_custodians_grant_must_know_the_last_notice(world: World) -> None:
    notice = a_notice(1, host=Party.make("G05/x/y").host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    view = with_custodians(world, "G02/health")
    stale, fresh = a_grant(world, world.b), a_grant(world, world.b, revocation_number=1)
    assert why(world, stale, host=world.b, view=view) is Reason.TOO_OLD
    admit_grant(key_of(fresh), fresh, TOPIC, view, host=world.b.host, now=world.now)


def test_a_suspended_custodian_grants_nothing(world: World) -> None:
    notice = a_notice(1, host=world.b.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    value = a_grant(world, world.b, revocation_number=1)
    view = with_custodians(world, "G02/health")
    assert why(world, value, host=world.b, view=view) is Reason.HOST_SUSPENDED


def test_who_is_not_approved_any_more_starts_and_grants_nothing(world: World) -> None:
    view = world.approving(world.b.host)
    assert why(world, world.started.value, view=view) is Reason.NOT_APPROVED
    assert why(world, a_grant(world, world.a), view=view) is Reason.NOT_APPROVED
    world.policy = world.approving(world.a.host).policy
    view, value = with_custodians(world, "G02/health"), a_grant(world, world.b)
    assert why(world, value, host=world.b, view=view) is Reason.NOT_APPROVED


def test_epochs_of_a_deprecated_suite_can_be_granted_but_not_started(world: World) -> None:
    suites = {
        "classic": SuiteRule(id="classic", status="deprecated"),
        "hybrid": SuiteRule(id="hybrid", status="approved"),
    }
    dataset = a_dataset(SEALED, suite="hybrid", custodians=("G02/health",))
    policy = replace(world.policy, suites=suites, datasets={SEALED: dataset})
    view = View(policy, world.members)
    for party in (world.a, world.b):
        value = a_grant(world, party)
        admit_grant(key_of(value), value, TOPIC, view, host=party.host, now=world.now)
    assert why(world, world.started.value, view=view) is Reason.SUITE_REFUSED


def test_every_record_of_a_start_is_admitted_alone(world: World) -> None:
    many = [(HostId("G02", "health", f"h{n}"), world.b.key.public) for n in range(600)]
    pairs = [(world.a.host, world.a.key.public), *many]
    draft = world.a.draft(2, revocation_number=0, started=world.now)
    made = start_epoch(draft, world.a.secret(2), pairs, signers=world.a.signers)
    assert len(made.values) == 2
    for value in made.values:
        admit_grant(key_of(value), value, TOPIC, world.view, host=world.a.host, now=world.now)
    assert why(world, made.values[0][:-1] + bytes([made.values[0][-1] ^ 1])) is Reason.BAD_SIGNATURE
