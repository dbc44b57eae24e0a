"""Starts and grants, trusted when asked for."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from fabric.admit.view import View
from fabric.agent import grant_book
from fabric.agent.grant_book import GrantBook
from fabric.attest.members import Members
from fabric.attest.result import Result
from fabric.model import canonical
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import HostId, Topic
from fabric.seal.epoch import Started, parse_start, start_epoch, start_key, verify_start
from fabric.seal.grant import GrantDraft, grant, grant_key, parse_grant
from fabric.seal.hpke import HpkeKey
from fabric.seal.secret import EpochSecret
from tests.fakes.platform import Platform, dataset
from tests.fakes.sealing import NOW, TOPIC, TRUST_DOMAIN, Party

SENDER = Party.make()
READER = Party.make("G02/health/b1")
LATE = Party.make("G03/statistics/c1")


class KnownResults(Members):
    """A view that knows these results and trusts them."""

    def __init__(self, *results: Result) -> None:
        self._known = {result.id: result for result in results}
        self.refuses: Reason | None = None

    def result(self, result_id: bytes) -> Result:
        if result_id not in self._known:
            raise DeniedError(Reason.RESULT_UNKNOWN, "result is not known here")
        return self._known[result_id]

    def was_trusted(self, result: Result, at: object) -> Reason | None:
        return self.refuses

    def learn(self, result: Result) -> None:
        self._known[result.id] = result


def view_of(members: Members, *custodians: str) -> View:
    """What a reader knows: these members, and a dataset with these custodians."""
    found = dataset(
        TOPIC, consumers=("G02/health", "G03/statistics", "G04/archive"), custodians=custodians
    )
    return View(Platform(found).policy, members)


def book(party: Party = READER) -> GrantBook:
    return GrantBook(TOPIC, TRUST_DOMAIN, party.host)


def started(number: int = 1) -> Started:
    return SENDER.start(SENDER.draft(number), [READER])


def grant_to(
    party: Party,
    of: Started,
    *,
    by: Party = SENDER,
    others: int = 0,
    secret: EpochSecret | None = None,
    granted: datetime = NOW + timedelta(hours=1),
) -> tuple[bytes, bytes]:
    """A grant for one host, and for others who share its key."""
    verified = verify_start(parse_start(of.value), SENDER.result, TRUST_DOMAIN)
    draft = GrantDraft(
        granter=by.host,
        result_id=by.result.id,
        policy_version=7,
        revocation_number=3,
        granted=granted,
    )
    more = [(HostId("G09", "many", f"h{n}"), party.key.public) for n in range(others)]
    (value,) = grant(
        draft,
        verified,
        secret or SENDER.secret(of.start.number),
        recipients=[(party.host, party.key.public), *more],
        signers=by.signers,
    )
    return grant_key(by.host, of.start.id), value


def forged(value: bytes, bit: int = 0) -> bytes:
    """The same record with another signature."""
    match canonical.decode(value):
        case [bytes() as manifest, int() as first, list() as wraps]:
            at = len(manifest) - 1 - bit // 8
            spoilt = bytes([*manifest[:at], manifest[at] ^ 1 << bit % 8, *manifest[at + 1 :]])
            return canonical.encode([spoilt, first, wraps])
    raise AssertionError


def test_a_named_reader_finds_start_and_secret() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    assert it.secret(verified, [READER.key], view_of(members)) == SENDER.secret()


def test_a_secret_is_at_hand_only_once_start_and_wrap_were_verified() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    assert it.known(start.hash) is None
    verified = it.start(start.hash, members)
    assert it.known(start.hash) is None
    assert verified is not None
    it.secret(verified, [READER.key], view_of(members))
    assert it.known(start.hash) == SENDER.secret()
    assert it.known(bytes(32)) is None


def test_an_unknown_start_is_missing_and_an_unknown_result_is_waited_for() -> None:
    it, start, members = book(), started(), KnownResults()
    assert it.start(start.hash, members) is None
    it.feed(start_key(start.start), start.value)
    with pytest.raises(DeniedError) as caught:
        it.start(start.hash, members)
    assert caught.value.reason is Reason.RESULT_UNKNOWN
    members.learn(SENDER.result)
    assert it.start(start.hash, members) is not None


def test_a_late_reader_needs_a_grant() -> None:
    it, start, members = book(LATE), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    with pytest.raises(DeniedError) as caught:
        it.secret(verified, [LATE.key], view_of(members))
    assert caught.value.reason is Reason.GRANT_MISSING
    it.feed(*grant_to(LATE, start))
    assert it.secret(verified, [LATE.key], view_of(members)) == SENDER.secret()


def test_a_reader_that_lost_its_keys_is_served_by_a_grant_to_the_new_ones() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    new = HpkeKey.generate(READER.key.kem)
    with pytest.raises(DeniedError):
        it.secret(verified, [new], view_of(members))
    it.feed(*grant_to(replace(READER, key=new), start))
    assert it.secret(verified, [new], view_of(members)) == SENDER.secret()


def test_of_a_record_only_our_own_wrap_is_kept() -> None:
    it, start = book(LATE), started()
    it.feed(start_key(start.start), start.value)
    it.feed(*grant_to(LATE, start, others=50))
    assert [len(item.wraps) for copies in it._opened.values() for item in copies] == [0]
    assert [len(item.wraps) for kept in it._grants.values() for item in kept.values()] == [1]


def test_our_wrap_is_found_in_whichever_record_of_a_start_it_stands() -> None:
    many = [(HostId("G02", "a-many", f"h{n}"), READER.key.public) for n in range(600)]
    hosts = [(party.host, party.key.public) for party in (SENDER, READER)]
    made = start_epoch(SENDER.draft(), SENDER.secret(), [*hosts, *many], signers=SENDER.signers)
    assert len(made.values) == 2
    for values in (made.values, made.values[::-1]):
        it, members = book(), KnownResults(SENDER.result)
        it.feed(start_key(made.start), values[0])
        verified = it.start(made.hash, members)
        assert verified is not None
        it.feed(start_key(made.start), values[1])
        assert it.secret(verified, [READER.key], view_of(members)) == SENDER.secret()


def test_a_custodian_that_policy_names_may_grant_and_nobody_else() -> None:
    """MUST-6.13."""
    it, start = book(LATE), started()
    members = KnownResults(SENDER.result, READER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    it.feed(*grant_to(LATE, start, by=READER))
    for custodians in ((), ("G03/statistics",)):
        with pytest.raises(DeniedError) as caught:
            it.secret(verified, [LATE.key], view_of(members, *custodians))
        assert caught.value.reason is Reason.GRANT_MISSING
    view = view_of(members, "G02/health")
    assert it.secret(verified, [LATE.key], view) == SENDER.secret()
    assert (LATE.host, LATE.key.public.thumbprint) in it.served(verified, view)


def test_what_a_custodian_granted_outlives_its_approval() -> None:
    it, start = book(LATE), started()
    members = KnownResults(SENDER.result, READER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    it.feed(*grant_to(LATE, start, by=READER))
    view = view_of(members, "G02/health")
    assert READER.host not in view.policy.approvals
    assert it.secret(verified, [LATE.key], view) == SENDER.secret()


def test_a_custodian_that_was_not_trusted_then_grants_nothing() -> None:
    it, start = book(LATE), started()
    members = KnownResults(SENDER.result, READER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    it.feed(*grant_to(LATE, start, by=READER))
    members.refuses = Reason.HOST_REVOKED
    with pytest.raises(DeniedError):
        it.secret(verified, [LATE.key], view_of(members, "G02/health"))


def test_whom_an_epoch_serves_counts_starts_and_good_grants() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    assert {host for host, _ in it.served(verified, view_of(members))} == {SENDER.host, READER.host}
    it.feed(*grant_to(LATE, start))
    assert {host for host, _ in it.served(verified, view_of(members))} == {
        SENDER.host,
        READER.host,
        LATE.host,
    }
    assert it.starts(members) == [verified]


def test_what_began_before_our_first_epoch_is_before_our_join() -> None:
    it, members = book(), KnownResults(SENDER.result)
    made = [
        SENDER.start(
            SENDER.draft(n, history="from_join", started=NOW + timedelta(minutes=n)),
            [READER] if n == 2 else [],
        )
        for n in range(4)
    ]
    for start in made[:2]:
        it.feed(start_key(start.start), start.value)
    starts = it.starts(members)
    assert [it.is_before_join(item, members) for item in starts] == [False, False]
    for start in made[2:]:
        it.feed(start_key(start.start), start.value)
    starts = it.starts(members)
    assert [it.is_before_join(item, members) for item in starts] == [True, True, False, False]
    it.feed(*grant_to(READER, made[1]))
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False, False]


def joined_second(it: GrantBook) -> list[Started]:
    """Epochs 0 to 2 of a `from_join` dataset; of them number 1 serves the reader."""
    made = [
        SENDER.start(
            SENDER.draft(n, history="from_join", started=NOW + timedelta(minutes=n)),
            [READER] if n == 1 else [],
        )
        for n in range(3)
    ]
    for start in made:
        it.feed(start_key(start.start), start.value)
    return made


def test_only_a_good_grant_by_its_sender_says_that_an_older_epoch_is_for_us() -> None:
    it, members = book(), KnownResults(SENDER.result, LATE.result)
    first = joined_second(it)[0]
    starts = it.starts(members)
    key, value = grant_to(READER, first)
    it.feed(key, forged(value))
    it.feed(*grant_to(READER, first, by=LATE))  # attested, and nobody to grant this
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False]
    assert it.served(starts[0], view_of(members, "G03/statistics"))
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False]
    it.feed(key, value)
    assert not any(it.is_before_join(item, members) for item in starts)


def test_of_grants_under_made_up_start_hashes_nothing_is_left_once_they_are_told() -> None:
    told: list[Reason] = []
    it = GrantBook(TOPIC, TRUST_DOMAIN, READER.host, told.append)
    members = KnownResults(SENDER.result)
    first = joined_second(it)[0]
    start = it.start(first.hash, members)
    assert start is not None
    for n in range(1, 6):  # of the same epoch, and so of the same id
        at = NOW + timedelta(seconds=n)
        made_up = SENDER.start(SENDER.draft(0, history="from_join", started=at), [])
        assert (made_up.start.id, made_up.hash != first.hash) == (first.start.id, True)
        it.feed(*grant_to(READER, made_up))
        it.served(start, view_of(members))
        assert len(told) == n
        assert not it._offered
        assert not it._grants_room[True]._kept
        assert it.is_before_join(start, members)
    it.feed(*grant_to(READER, first))
    assert len(it._offered) == 1
    assert not it.is_before_join(start, members)
    assert not it._offered


def test_a_grant_of_a_start_under_another_epoch_id_is_no_offer_of_it() -> None:
    """Else one that nobody ever asks about has it looked at anew each time a reader asks."""
    it, members = book(), KnownResults(SENDER.result)
    first = joined_second(it)[0]
    start = it.start(first.hash, members)
    assert start is not None
    other = SENDER.start(SENDER.draft(9, history="from_join"), [])
    key, value = grant_to(READER, other)
    value = value.replace(other.hash, first.hash)
    assert parse_grant(value).grant.start_hash == first.hash
    it.feed(key, value)
    assert it.is_before_join(start, members)
    assert it._joined_at[0] == it._news


def test_a_grant_says_that_an_epoch_is_for_us_once_its_result_is_known() -> None:
    it, later = book(), replace(SENDER, result=replace(SENDER.result, id=bytes(16)))
    members = KnownResults(SENDER.result)
    first = joined_second(it)[0]
    starts = it.starts(members)
    it.feed(*grant_to(READER, first, by=later))
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False]
    members.learn(later.result)
    assert not any(it.is_before_join(item, members) for item in starts)


def test_a_forged_start_that_names_us_is_not_where_we_joined() -> None:
    it, members = book(), KnownResults(SENDER.result)
    joined_second(it)
    older = replace(SENDER, twist="forged").draft(7, history="from_join", started=NOW)
    made = replace(SENDER, twist="forged").start(older, [READER])
    it.feed(start_key(made.start), forged(made.value))
    starts = it.starts(members)
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False]
    assert made.hash not in it._naming_me


def test_a_wrap_that_does_not_open_hides_no_good_one_and_is_told_once() -> None:
    told: list[Reason] = []
    it = GrantBook(TOPIC, TRUST_DOMAIN, LATE.host, told.append)
    members = KnownResults(SENDER.result, READER.result)
    start, view = started(), view_of(members, "G02/health")
    it.feed(start_key(start.start), start.value)
    verified = it.start(start.hash, members)
    assert verified is not None
    it.feed(*grant_to(LATE, start, by=READER, secret=SENDER.secret(99)))
    for _ in range(3):
        with pytest.raises(DeniedError) as caught:
            it.secret(verified, [LATE.key], view)
        assert caught.value.reason is Reason.GRANT_MISSING
    assert told == [Reason.OPEN_FAILED]
    it.feed(*grant_to(LATE, start))
    assert it.secret(verified, [LATE.key], view) == SENDER.secret()
    assert told == [Reason.OPEN_FAILED]


def test_grants_of_one_granter_take_no_room_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_book, "_GRANTS_MAX", (9, 4, 2))
    it, start, members = book(LATE), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    again = [NOW + timedelta(minutes=n) for n in range(4)]
    for at in again[:2]:
        it.feed(*grant_to(LATE, start, by=READER, granted=at))
    with pytest.raises(PeerError) as caught:
        it.feed(*grant_to(LATE, start, by=READER, granted=again[2]))
    assert caught.value.reason is Reason.TOO_LARGE
    for number, at in enumerate(again[:2], 2):  # other epochs, until all its room is taken
        it.feed(*grant_to(LATE, started(number), by=READER, granted=at))
    with pytest.raises(PeerError):
        it.feed(*grant_to(LATE, started(4), by=READER))
    it.feed(*grant_to(LATE, start))
    verified = it.start(start.hash, members)
    assert verified is not None
    assert it.secret(verified, [LATE.key], view_of(members)) == SENDER.secret()


def test_grants_for_others_take_no_room_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_book, "_GRANTS_MAX", (1, 1, 1))
    it, start = book(LATE), started()
    it.feed(*grant_to(READER, start))
    it.feed(*grant_to(LATE, start))
    with pytest.raises(PeerError):
        it.feed(*grant_to(LATE, start, others=1))


def test_a_grant_that_is_written_again_takes_no_more_room() -> None:
    it, start, members = book(LATE), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified, record = it.start(start.hash, members), grant_to(LATE, start)
    assert verified is not None
    for _ in range(2):
        it.feed(*record)
        it.feed(*record)
        it.served(verified, view_of(members))
    assert it._grants_room[True]._kept[()] == 1


def test_forged_grants_give_their_room_back() -> None:
    it, start, members = book(LATE), started(), KnownResults(SENDER.result)
    it.feed(start_key(start.start), start.value)
    verified, (key, value) = it.start(start.hash, members), grant_to(LATE, start)
    assert verified is not None
    it.feed(key, forged(value))
    it.served(verified, view_of(members))
    assert not it._grants_room[True]._kept


def test_starts_of_one_sender_take_no_room_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (4, 2))
    it, members = book(), KnownResults(SENDER.result, LATE.result)
    mine = started()
    it.feed(start_key(mine.start), mine.value)
    made = [LATE.start(LATE.draft(n), [READER]) for n in range(9)]
    for start in made[:8]:
        it.feed(start_key(start.start), forged(start.value))
    it.feed(start_key(made[8].start), made[8].value)
    assert [item.hash for item in it.starts(members)] == [mine.hash, made[8].hash]
    it.feed(start_key(made[7].start), made[7].value)  # the forged ones gave their room back
    assert len(it.starts(members)) == 3


def test_a_sender_of_too_many_starts_loses_its_oldest_and_never_its_newest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MUST-6.15."""
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 3))
    members, made = KnownResults(SENDER.result), [started(n) for n in range(1, 6)]
    for reads_while_they_come in (True, False):  # or begins anew when all are in the log
        told: list[Reason] = []
        it = GrantBook(TOPIC, TRUST_DOMAIN, READER.host, told.append)
        for start in made:
            it.feed(start_key(start.start), start.value)
            assert not reads_while_they_come or it.start(start.hash, members) is not None
        assert told == [Reason.TOO_LARGE] * 2
        assert [it.start(each.hash, members) is None for each in made] == [True] * 2 + [False] * 3
        assert [it.is_too_old(SENDER.host, each.start.number, members) for each in made] == [
            True
        ] * 2 + [False] * 3
        assert not it.is_too_old(SENDER.host, made[-1].start.number + 1, members)  # it may come
        assert not it.is_too_old(LATE.host, 1, members)
        newest = it.start(made[-1].hash, members)
        assert newest is not None
        assert it.secret(newest, [READER.key], view_of(members)) == SENDER.secret(5)


def forged_starts(count: int, result: Result = SENDER.result) -> list[tuple[bytes, bytes]]:
    """Records of starts that the sender never made, under its name."""
    forger = replace(SENDER, twist="forged", result=result)
    drafts = [
        forger.draft(100 + n, history="from_join", started=NOW - timedelta(hours=1))
        for n in range(count)
    ]
    made = [forger.start(draft, [READER]) for draft in drafts]
    return [(start_key(start.start), forged(start.value)) for start in made]


@pytest.mark.parametrize("is_asked_first", [True, False])
@pytest.mark.parametrize("is_result_known", [True, False])
def test_forged_starts_push_out_none_that_verifies(
    monkeypatch: pytest.MonkeyPatch, is_asked_first: bool, is_result_known: bool
) -> None:
    """MUST-6.15: whoever writes in the sender's name, its epochs go on."""
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 3))
    it, mine, members = book(), started(), KnownResults(SENDER.result)
    it.feed(start_key(mine.start), mine.value, members)
    if is_asked_first:
        verified = it.start(mine.hash, members)
        assert verified is not None
        it.secret(verified, [READER.key], view_of(members))
    result = SENDER.result if is_result_known else replace(SENDER.result, id=bytes(16))
    for key, value in forged_starts(40, result):
        it.feed(key, value, members)
    assert it.start(mine.hash, members) is not None
    assert not it.is_too_old(SENDER.host, mine.start.number, members)
    assert not is_asked_first or it.known(mine.hash) == SENDER.secret()
    assert len(it._opened) <= 3


def test_a_start_whose_result_is_not_known_yet_is_kept_beside_all_that_verify(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 3))
    later = replace(SENDER, result=replace(SENDER.result, id=bytes(16)))
    it, members = book(), KnownResults(SENDER.result)
    made = [started(n) for n in range(1, 4)]
    for start in made:
        it.feed(start_key(start.start), start.value, members)
    newest = later.start(later.draft(4), [READER])
    it.feed(start_key(newest.start), newest.value, members)
    assert [it.start(each.hash, members) is None for each in made] == [True, False, False]
    members.learn(later.result)
    assert it.start(newest.hash, members) is not None


def test_forged_starts_that_had_to_go_are_not_where_we_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 3))
    it, members = book(), KnownResults(SENDER.result)
    joined_second(it)
    starts = it.starts(members)
    unknown = replace(SENDER.result, id=bytes(16))
    for key, value in forged_starts(3) + forged_starts(9, unknown):
        it.feed(key, value, members)
    assert [it.is_before_join(item, members) for item in starts] == [True, False, False]


def test_a_flood_of_forged_starts_costs_each_one_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (900, 50))
    checked = [0]

    class Counting(KnownResults):
        def was_trusted(self, result: Result, at: object) -> Reason | None:
            checked[0] += 1
            return None

    it, members = book(), Counting(SENDER.result)
    for key, value in forged_starts(200):
        before = checked[0]
        it.feed(key, value, members)
        assert checked[0] - before <= 8
    assert checked[0] <= 200


def test_a_crowd_of_senders_of_one_start_each_pushes_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (2, 2))
    it, members = book(), KnownResults(SENDER.result)
    parties = (SENDER, LATE, Party.make("G04/archive/d1"))
    mine, *rest = [party.start(party.draft(), [READER]) for party in parties]
    it.feed(start_key(mine.start), mine.value)
    it.feed(start_key(rest[0].start), rest[0].value)
    with pytest.raises(PeerError) as caught:
        it.feed(start_key(rest[1].start), rest[1].value)
    assert caught.value.reason is Reason.TOO_LARGE
    assert it.start(mine.hash, members) is not None


def test_of_a_start_that_had_to_go_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 1))
    it, members = book(), KnownResults(SENDER.result)
    first, second = started(1), started(2)
    it.feed(start_key(first.start), first.value)
    it.feed(*grant_to(READER, first))
    it.feed(*grant_to(LATE, first))
    verified = it.start(first.hash, members)
    assert verified is not None
    it.secret(verified, [READER.key], view_of(members))
    assert it.served(verified, view_of(members))
    it.feed(*grant_to(READER, first, granted=NOW + timedelta(hours=2)))
    it.feed(start_key(second.start), second.value)
    assert it.known(first.hash) is None
    kept = (it._opened, it._verified, it._mine, it._grants, it._good, it._secrets, it._offered)
    assert [len(each) for each in kept] == [1, 0, 1, 0, 0, 0, 0]
    assert not any(room._kept for room in it._grants_room.values())


@pytest.mark.parametrize("is_verified", [True, False])
def test_where_we_joined_is_known_also_when_its_start_had_to_go(
    monkeypatch: pytest.MonkeyPatch, is_verified: bool
) -> None:
    """MUST-6.15, MUST-7.11: passed over is only what began before, whatever is forgotten."""
    monkeypatch.setattr(grant_book, "_STARTS_MAX", (9, 1))
    it, members = book(LATE), KnownResults(SENDER.result, READER.result)
    made = []
    for n, (party, others) in enumerate(((SENDER, [LATE]), (READER, []), (SENDER, [LATE]))):
        draft = party.draft(n, started=NOW + timedelta(minutes=n), history="from_join")
        made.append(party.start(draft, others))
    for start in made:
        it.feed(start_key(start.start), start.value, members)
        if is_verified:
            assert it.start(start.hash, members) is not None
    assert it.start(made[0].hash, members) is None
    between = it.start(made[1].hash, members)
    assert between is not None
    assert not it.is_before_join(between, members)


def test_under_retained_nothing_is_before_our_join() -> None:
    it, members = book(), KnownResults(SENDER.result)
    for n, others in ((1, []), (2, [READER])):
        start = SENDER.start(SENDER.draft(n, started=NOW + timedelta(minutes=n)), others)
        it.feed(start_key(start.start), start.value)
    assert not any(it.is_before_join(item, members) for item in it.starts(members))


def test_other_wraps_than_the_signed_ones_are_refused_at_once() -> None:
    it, start = book(), started()
    match canonical.decode(start.value):
        case [bytes() as manifest, _, list() as wraps]:
            spoilt = canonical.encode([manifest, 0, [bytes(len(wraps[0]))] * len(wraps)])  # type: ignore[arg-type]
    with pytest.raises(PeerError) as caught:
        it.feed(start_key(start.start), spoilt)
    assert caught.value.reason is Reason.BAD_SIGNATURE


def test_a_copy_with_other_signatures_does_not_hide_the_good_one() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    spoilt = forged(start.value)
    it.feed(start_key(start.start), spoilt)
    assert it.start(start.hash, members) is None
    it.feed(start_key(start.start), spoilt)
    it.feed(start_key(start.start), start.value)
    assert it.start(start.hash, members) is not None


def test_many_forged_copies_take_no_room_of_the_good_one() -> None:
    it, start, members = book(), started(), KnownResults(SENDER.result)
    for n in range(12):
        it.feed(start_key(start.start), forged(start.value, bit=n), members)
    it.feed(start_key(start.start), start.value, members)
    assert it.start(start.hash, members) is not None


def test_a_start_by_a_host_that_was_not_trusted_then_is_none_and_is_told() -> None:
    told: list[Reason] = []
    it = GrantBook(TOPIC, TRUST_DOMAIN, READER.host, told.append)
    start, members = started(), KnownResults(SENDER.result)
    members.refuses = Reason.HOST_SUSPENDED
    it.feed(start_key(start.start), start.value)
    assert it.start(start.hash, members) is None
    assert told == [Reason.HOST_SUSPENDED]


def test_foreign_records_are_refused() -> None:
    start = started()
    other = GrantBook(Topic.parse("secret.G01.other"), TRUST_DOMAIN, READER.host)
    for it, key, value in (
        (other, start_key(start.start), start.value),
        (other, *grant_to(LATE, start)),
        (book(), b"G09/else/x1/start/1", start.value),
        (book(), b"G09/else/x1/grant/1", grant_to(LATE, start)[1]),
        (book(), b"k", b"garbage"),
    ):
        with pytest.raises(PeerError):
            it.feed(key, value)


def test_a_start_that_is_missing_where_none_had_to_go_may_still_come() -> None:
    it, members, second = book(), KnownResults(SENDER.result), started(2)
    it.feed(start_key(second.start), second.value, members)
    assert not it.is_too_old(SENDER.host, 1, members)
