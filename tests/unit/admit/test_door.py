"""What the gateway lets in, case by case: everything that is not right has its own reason."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from fabric.admit import door
from fabric.admit.view import Place, View
from fabric.attest.members import Members, MemberState, NoticeKind, notice_record
from fabric.model.errors import DeniedError, FabricError, PeerError, Reason
from fabric.model.label import Label
from fabric.model.limits import ENVELOPE_BYTES_MAX, OPEN_RECORD_BYTES_MAX
from fabric.model.names import MEMBERS, RESULTS, Origin
from fabric.policy.types import SuiteRule
from fabric.seal.grant import GrantDraft, grant, grant_key
from tests.fakes.gateway import GRANTS, OPEN, SCHEMA_ID, SEALED, World, a_dataset, a_party, a_rule
from tests.fakes.verifier import Verifier, a_notice

HERE = Place(SEALED, 0)
THERE = Place(OPEN, 0)


@pytest.fixture
def world() -> World:
    return World()


def with_policy(world: World, **changes: object) -> View:
    return View(replace(world.policy, **changes), world.members)


def with_dataset(world: World, topic: str, **changes: object) -> View:
    changed = a_dataset(topic, **changes)
    return with_policy(world, datasets={**world.policy.datasets, topic: changed})


def sealed(world: World, value: bytes, place: Place = HERE, view: View | None = None) -> Reason:
    """The reason of the refusal; fails when there is none."""
    with pytest.raises(FabricError) as refused:
        door.admit_sealed(value, place, view or world.view, identity=world.a.host, now=world.now)
    return refused.value.reason


def test_an_honest_envelope_is_admitted(world: World) -> None:
    value = world.seal()
    found = door.admit_sealed(value, HERE, world.view, identity=world.a.host, now=world.now)
    assert found.result == world.a.result


def test_a_plain_record_is_not_sealed(world: World) -> None:
    assert sealed(world, world.open_record()) is Reason.NOT_SEALED
    assert sealed(world, b"") is Reason.NOT_SEALED


def test_a_torn_envelope_is_malformed(world: World) -> None:
    assert sealed(world, world.seal()[:-1]) is Reason.MALFORMED


def test_an_oversized_envelope_is_too_large(world: World) -> None:
    assert sealed(world, b"\xd8\x62" + bytes(ENVELOPE_BYTES_MAX)) is Reason.TOO_LARGE


def test_another_topic_or_partition_is_refused(world: World) -> None:
    assert sealed(world, world.seal(), THERE) is Reason.TOPIC_MISMATCH
    assert sealed(world, world.seal(), Place(SEALED, 1)) is Reason.PARTITION_MISMATCH


def test_another_hosts_envelope_is_refused_on_this_connection(world: World) -> None:
    value = world.seal()
    with pytest.raises(PeerError) as refused:
        door.admit_sealed(value, HERE, world.view, identity=world.b.host, now=world.now)
    assert refused.value.reason is Reason.IDENTITY_MISMATCH


def test_every_changed_byte_is_refused(world: World) -> None:
    value = world.seal()
    for at in range(0, len(value), 97):
        changed = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        assert isinstance(sealed(world, changed), Reason)


def test_a_changed_byte_in_a_signature_is_a_bad_signature(world: World) -> None:
    value = world.seal()
    changed = value[:-1] + bytes([value[-1] ^ 1])
    assert sealed(world, changed) is Reason.BAD_SIGNATURE


def test_a_host_that_never_attested_is_refused(world: World) -> None:
    stranger = a_party("G01/registry/d1", world.now)
    value = world.seal_as(stranger)
    with pytest.raises(DeniedError) as refused:
        door.admit_sealed(value, HERE, world.view, identity=stranger.host, now=world.now)
    assert refused.value.reason is Reason.NOT_ATTESTED


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (NoticeKind.SUSPENSION, Reason.HOST_SUSPENDED),
        (NoticeKind.REVOCATION, Reason.HOST_REVOKED),
    ],
)
def test_a_notice_takes_effect_at_once(world: World, kind: NoticeKind, reason: Reason) -> None:
    value = world.seal()
    notice = a_notice(1, kind, host=world.a.host, at=world.now)
    world.members.feed(MEMBERS, *notice_record(notice, world.verifier.signers))
    assert sealed(world, value) is reason


def test_an_approval_that_a_policy_withdraws_or_lowers_admits_nothing_more(world: World) -> None:
    value, record, host = world.seal(), world.open_record(), world.a.host
    withdrawn = world.approving(world.b.host)
    assert sealed(world, value, view=withdrawn) is Reason.NOT_APPROVED
    assert open_(world, record, view=withdrawn) is Reason.NOT_APPROVED
    lowered = world.approving(host, security_level=3)
    assert sealed(world, value, view=lowered) is Reason.LEVEL_TOO_LOW
    door.admit_open(record, THERE, lowered, identity=host, now=world.now)


def test_a_host_that_a_newer_policy_approves_is_waited_for(world: World) -> None:
    renew(world, policy_version=8)
    view = world.approving(world.b.host)
    assert open_(world, world.open_record(), view=view) is Reason.POLICY_NEWER


def test_an_ended_result_means_sealing_again(world: World) -> None:
    value = world.seal()
    later = world.a.result.expires
    with pytest.raises(DeniedError) as refused:
        door.admit_sealed(value, HERE, world.view, identity=world.a.host, now=later)
    assert refused.value.reason is Reason.RESULT_EXPIRED


def renew(world: World, **changes: object) -> None:
    """Give host `a` a newer result."""
    issued = world.a.result.issued + timedelta(seconds=30)
    result = replace(
        world.a.result,
        id=bytes(15) + b"\1",
        issued=issued,
        expires=world.a.result.expires + timedelta(minutes=5),
        **changes,
    )
    for record in world.records_of(result):
        world.members.feed(*record)


def test_an_envelope_under_the_former_result_still_passes(world: World) -> None:
    value = world.seal()
    renew(world)
    door.admit_sealed(value, HERE, world.view, identity=world.a.host, now=world.now)


def test_the_current_result_counts_too(world: World) -> None:
    value = world.seal()
    renew(world, level=3)
    assert sealed(world, value) is Reason.LEVEL_TOO_LOW


def test_a_result_of_an_earlier_approval_is_no_longer_taken(world: World) -> None:
    value = world.seal()
    renew(world, approval=2)
    assert sealed(world, value) is Reason.RESULT_EXPIRED


def test_an_unknown_result_is_waited_for(world: World) -> None:
    assert sealed(world, world.seal(result_id=bytes(16))) is Reason.RESULT_UNKNOWN


def test_a_newer_policy_is_waited_for(world: World) -> None:
    assert sealed(world, world.seal(policy_version=8)) is Reason.POLICY_NEWER


def test_a_topic_without_dataset_is_unknown(world: World) -> None:
    view = with_policy(world, datasets={})
    assert sealed(world, world.seal(), view=view) is Reason.TOPIC_UNKNOWN


RULES: list[tuple[Callable[[World], View], Reason]] = [
    (
        lambda w: with_dataset(w, SEALED, producers=(Origin.parse("G02/health/main"),)),
        Reason.NOT_A_PRODUCER,
    ),
    (
        lambda w: with_dataset(w, SEALED, producers=(Origin.parse("G01/registry/other"),)),
        Reason.NOT_A_PRODUCER,
    ),
    (lambda w: with_dataset(w, SEALED, label=Label("secret")), Reason.LABEL_MISMATCH),
    (lambda w: with_dataset(w, SEALED, suite="hybrid"), Reason.SUITE_REFUSED),
    (lambda w: with_dataset(w, SEALED, partitions=0), Reason.PARTITION_MISMATCH),
    (
        lambda w: with_policy(w, suites={"classic": SuiteRule(id="classic", status="deprecated")}),
        Reason.SUITE_REFUSED,
    ),
    (
        lambda w: with_policy(
            w, rules={**w.policy.rules, "secret": a_rule("secret", evidence=frozenset({"snp"}))}
        ),
        Reason.EVIDENCE_REFUSED,
    ),
    (
        lambda w: with_policy(
            w, rules={**w.policy.rules, "secret": a_rule("secret", sealed=False)}
        ),
        Reason.SUITE_REFUSED,
    ),
    (lambda w: with_policy(w, expires=w.now), Reason.POLICY_EXPIRED),
]


@pytest.mark.parametrize(("view", "reason"), RULES)
def test_what_policy_does_not_allow_is_refused(
    world: World, view: Callable[[World], View], reason: Reason
) -> None:
    assert sealed(world, world.seal(), view=view(world)) is reason


def test_time_of_sealing_lies_within_the_delivery_time(world: World) -> None:
    assert sealed(world, world.seal(now=world.now - timedelta(seconds=61))) is Reason.TOO_OLD
    ahead = world.now + timedelta(seconds=31)
    assert sealed(world, world.seal(now=ahead)) is Reason.FROM_THE_FUTURE


def open_(world: World, value: bytes, place: Place = THERE, view: View | None = None) -> Reason:
    with pytest.raises(FabricError) as refused:
        door.admit_open(value, place, view or world.view, identity=world.a.host, now=world.now)
    return refused.value.reason


def test_an_open_record_of_a_producer_is_admitted(world: World) -> None:
    record = world.open_record()
    door.admit_open(record, THERE, world.view, identity=world.a.host, now=world.now)


def test_open_records_are_framed_known_and_the_producers_own(world: World) -> None:
    assert open_(world, b"text") is Reason.MALFORMED
    assert open_(world, b"") is Reason.MALFORMED
    assert open_(world, world.seal()) is Reason.MALFORMED
    assert open_(world, world.open_record(schema_id=SCHEMA_ID + 1)) is Reason.SCHEMA_UNKNOWN
    assert open_(world, world.open_record("G01/registry/mai")) is Reason.NOT_A_PRODUCER
    assert open_(world, world.open_record("G02/health/main")) is Reason.NOT_A_PRODUCER
    large = world.open_record() + bytes(OPEN_RECORD_BYTES_MAX)
    assert open_(world, large) is Reason.TOO_LARGE


def test_open_topics_ask_the_policy_too(world: World) -> None:
    record = world.open_record()
    assert open_(world, record, Place("public.G01.none", 0)) is Reason.TOPIC_UNKNOWN
    assert open_(world, record, Place(OPEN, 2)) is Reason.PARTITION_MISMATCH
    expired = with_policy(world, expires=world.now)
    assert open_(world, record, view=expired) is Reason.POLICY_EXPIRED


def test_a_suspended_host_writes_no_open_records_either(world: World) -> None:
    result = world.a.result
    late = world.now
    state = world.records_of(result, state=MemberState.SUSPENDED, number=1, since=late)[1]
    world.members.feed(*state)
    assert open_(world, world.open_record()) is Reason.HOST_SUSPENDED


def test_a_long_origin_has_a_long_length() -> None:
    assert door._avro_string("a" * 63)[:2] == b"\x7ea"
    assert door._avro_string("a" * 64)[:3] == b"\x80\x01a"


def control(
    world: World, key: bytes | None, value: bytes, topic: str = GRANTS, *, identity: str
) -> Reason | None:
    try:
        door.admit_control(key, value, topic, world.view, identity=identity, now=world.now)
    except (PeerError, DeniedError) as exc:
        return exc.reason
    return None


def test_the_authority_writes_members_and_results(world: World) -> None:
    for topic, key, value in (*world.records(), world.heartbeat()):
        assert control(world, key, value, topic, identity="verifier") is None


def test_the_authority_is_judged_by_signature_alone(world: World) -> None:
    topic, key, value = world.heartbeat()
    view = View(world.policy, Members(world.verifier.trust))
    door.admit_control(key, value, topic, view, identity="verifier", now=world.now)
    forged = World()
    forged.verifier = Verifier()
    _, key, value = forged.heartbeat()
    assert control(world, key, value, MEMBERS, identity="verifier") is Reason.BAD_SIGNATURE


def test_nobody_else_writes_the_authoritys_topics(world: World) -> None:
    topic, key, value = world.heartbeat()
    host = str(world.a.host)
    assert control(world, key, value, topic, identity=host) is Reason.IDENTITY_MISMATCH
    own = f"{host}/heartbeat".encode()
    assert control(world, own, value, topic, identity=host) is Reason.IDENTITY_MISMATCH
    admin = control(world, b"admin/heartbeat", value, topic, identity="admin")
    assert admin is Reason.IDENTITY_MISMATCH
    assert control(world, None, value, RESULTS, identity="verifier") is Reason.IDENTITY_MISMATCH


def test_the_authority_writes_no_grants(world: World) -> None:
    key = b"verifier/start/1"
    value = world.started.value
    assert control(world, key, value, identity="verifier") is Reason.IDENTITY_MISMATCH


def test_a_host_writes_its_epoch_start_and_grants(world: World) -> None:
    key = f"{world.a.host}/start/1".encode()
    assert control(world, key, world.started.value, identity=str(world.a.host)) is None
    started = world.a.verified_start(world.started.start)
    draft = GrantDraft(
        granter=world.a.host,
        result_id=world.a.result.id,
        policy_version=7,
        revocation_number=0,
        granted=world.now,
    )
    (value,) = grant(
        draft,
        started,
        world.a.secret(),
        recipients=[(world.b.host, world.b.key.public)],
        signers=world.a.signers,
    )
    key = grant_key(world.a.host, started.start.id)
    assert control(world, key, value, identity=str(world.a.host)) is None


def test_a_key_of_another_identity_is_refused(world: World) -> None:
    for key in (None, b"", b"G01/registry/a10/start/1", b"verifier/x"):
        found = control(world, key, world.started.value, identity=str(world.a.host))
        assert found is Reason.IDENTITY_MISMATCH
