"""What grants that wait say of epochs, for as long as they wait."""

from dataclasses import replace

from fabric.agent.offers import Offers
from fabric.seal.epoch import Started, VerifiedStart, parse_start, verify_start
from fabric.seal.grant import GrantDraft, OpenedGrant, grant, parse_grant
from tests.fakes.sealing import NOW, TRUST_DOMAIN, Party

SENDER = Party.make()
READER = Party.make("G02/health/b1")


def verified(of: Started) -> VerifiedStart:
    return verify_start(parse_start(of.value), SENDER.result, TRUST_DOMAIN)


def granted(of: Started, by: Party = SENDER) -> OpenedGrant:
    draft = GrantDraft(
        granter=by.host,
        result_id=by.result.id,
        policy_version=7,
        revocation_number=3,
        granted=NOW,
    )
    (value,) = grant(
        draft,
        verified(of),
        SENDER.secret(of.start.number),
        recipients=[(READER.host, READER.key.public)],
        signers=by.signers,
    )
    return parse_grant(value)


def test_an_offer_stands_until_the_last_grant_that_makes_it_is_dropped() -> None:
    it, start = Offers(), SENDER.start(SENDER.draft(1))
    first, second = granted(start), granted(start)
    assert it.add(first)
    assert it.add(second)
    it.drop(first)
    assert verified(start) in it
    it.drop(second)
    assert verified(start) not in it
    assert len(it) == 0


def test_grants_by_others_and_without_a_wrap_of_ours_offer_nothing() -> None:
    it, start = Offers(), SENDER.start(SENDER.draft(1))
    for kept in (granted(start, READER), replace(granted(start), wraps=())):
        assert not it.add(kept)
        it.drop(kept)
        assert len(it) == 0


def test_an_offer_of_another_epoch_id_is_none_of_the_start() -> None:
    it, start = Offers(), SENDER.start(SENDER.draft(1))
    other = granted(SENDER.start(SENDER.draft(2)))
    it.add(replace(other, grant=replace(other.grant, start_hash=start.hash)))
    assert verified(start) not in it
    assert len(it) == 1


def test_of_these_starts_those_that_a_grant_names_are_found() -> None:
    it, start = Offers(), SENDER.start(SENDER.draft(1))
    it.add(granted(start))
    it.add(granted(SENDER.start(SENDER.draft(2))))
    assert it.among({start.hash, bytes(32)}) == {start.hash}
