"""Sealing's properties: inverses hold for anything, and foreign bytes raise PeerError only."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fabric.model import canonical
from fabric.model.block import Block
from fabric.model.change import ORDINAL_MAX, Op, Row, Run, Sequence
from fabric.model.errors import Malformed, PeerError
from fabric.model.schema import RowSchema
from fabric.seal import envelope as form
from fabric.seal import plaintext, record
from fabric.seal.chain import ROOT, Accepted, ChainState
from fabric.seal.epoch import parse_start, verify_start
from fabric.seal.grant import GrantDraft, grant, parse_grant, verify_grant
from fabric.seal.hpke import unwrap
from fabric.seal.opening import open_
from fabric.seal.sealing import Link, seal
from tests.fakes.sealing import NOTES, NOW, STREAM, TRUST_DOMAIN, Party, block

SUITES = ("classic", "hybrid", "hybrid-tpm", "hybrid-top")
FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PARTIES = {
    suite: Party.make(suite=suite) for suite in ("classic", "hybrid", "hybrid-tpm", "hybrid-top")
}
STARTS = {suite: party.start(party.draft()) for suite, party in PARTIES.items()}
VERIFIED = {suite: party.verified_start(party.draft()) for suite, party in PARTIES.items()}
SEALED = {suite: party.seal(block(), STARTS[suite]).data for suite, party in PARTIES.items()}
A = PARTIES["classic"]
GRANT = grant(
    GrantDraft(
        granter=A.host, result_id=A.result.id, policy_version=7, revocation_number=3, granted=NOW
    ),
    VERIFIED["classic"],
    A.secret(),
    recipients=[(A.host, A.key.public)],
    signers=A.signers,
)[0]
WIDE = RowSchema.parse(
    json.dumps(
        {
            "type": "record",
            "name": "Wide",
            "fields": [
                {"name": "id", "type": "long"},
                {"name": "name", "type": ["null", "string"]},
                {"name": "data", "type": "bytes"},
                {"name": "rate", "type": "double"},
                {"name": "tags", "type": {"type": "array", "items": "string"}},
            ],
        }
    ),
    ("id",),
)
LONG = st.integers(-(2**63), 2**63 - 1)
ROW = st.fixed_dictionaries(
    {
        "id": LONG,
        "name": st.none() | st.text(max_size=20),
        "data": st.binary(max_size=20),
        "rate": st.floats(allow_nan=False),
        "tags": st.lists(st.text(max_size=5), max_size=3),
    }
)
KEY = st.fixed_dictionaries({"id": LONG})


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any block of WIDE rows that keeps its own rules."""
    generation = draw(st.integers(1, 2**62))
    position, runs = draw(st.integers(0, 1000)), []
    after = Sequence(draw(st.integers(0, generation)), draw(st.integers(0, position)), 0)
    for _ in range(draw(st.integers(0, 4))):
        position += draw(st.integers(1, 2**40))
        op = draw(st.sampled_from(Op))
        rows: list[Row] = []
        if op in (Op.UPSERT, Op.DELETE):
            rows = draw(st.lists(ROW if op is Op.UPSERT else KEY, min_size=1, max_size=5))
        runs.append(
            Run(
                op=op,
                position=position,
                ordinal=draw(st.integers(1, 2**40)),
                commit_us=draw(LONG),
                rows=rows,
                absent=tuple(draw(st.lists(st.sampled_from(["name", "data"]), max_size=2))),
            )
        )
    upto = Sequence(generation, position, ORDINAL_MAX)
    return Block(stream=STREAM, after=after, upto=upto, runs=tuple(runs))


@FAST
@given(
    whole=blocks(),
    coding=st.sampled_from(["zstd", "none"]),
    padding=st.booleans(),
    counter=st.integers(0, 999_999),
)
def test_opening_undoes_sealing(whole: Block, coding: str, padding: bool, counter: int) -> None:
    sealed = seal(
        whole,
        WIDE,
        epoch=A.epoch(STARTS["classic"]),
        link=Link(counter=counter, previous=form.NO_PREVIOUS),
        stamp=A.stamp(coding=coding, padding=padding),
        signers=A.signers,
    )
    verified = A.verify(sealed.data)
    assert verified.envelope.hash == sealed.hash
    assert open_(verified, A.secret(), WIDE) == whole


@FAST
@given(
    plain=st.binary(max_size=10_000), coding=st.sampled_from(["zstd", "none"]), pad=st.booleans()
)
def test_plaintext_coding_and_padding_are_inverse(plain: bytes, coding: str, pad: bool) -> None:
    padded, used = plaintext.encode(plain, coding, pad)
    assert plaintext.decode(padded, used) == plain


PARSERS = [form.parse, parse_start, parse_grant, record.kind_of, ChainState.decode]


@pytest.mark.parametrize("parser", PARSERS)
@FAST
@given(data=st.binary(max_size=300))
def test_garbage_is_malformed(parser: object, data: bytes) -> None:
    with pytest.raises(Malformed):
        parser(data)  # type: ignore[operator]  # every parser takes bytes


VALUE = st.recursive(
    st.integers(-(2**17), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(-(2**17), 2**16), inner, max_size=5)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("parser", PARSERS)
@FAST
@given(value=VALUE, tagged=st.booleans())
def test_sound_cbor_of_another_shape_is_malformed(
    parser: object, value: canonical.Value, tagged: bool
) -> None:
    try:
        data = (b"\xd8\x62" if tagged else b"") + canonical.encode(value)
    except Malformed:
        return
    with pytest.raises(Malformed):
        parser(data)  # type: ignore[operator]  # every parser takes bytes


@pytest.mark.parametrize("suite", ["classic", "hybrid", "hybrid-tpm", "hybrid-top"])
@FAST
@given(data=st.data())
def test_changed_envelope_is_refused_by_a_peer_error(suite: str, data: st.DataObject) -> None:
    """Whatever bits are flipped, cut or put in, nothing but PeerError comes of it."""
    party = PARTIES[suite]
    bad = _damage(data, SEALED[suite])
    with pytest.raises(PeerError):
        open_(party.verify(bad), party.secret(), NOTES)


@FAST
@given(data=st.data())
def test_changed_start_is_refused_by_a_peer_error(data: st.DataObject) -> None:
    bad = _damage(data, STARTS["classic"].value)
    with pytest.raises(PeerError):
        verify_start(parse_start(bad), A.result, TRUST_DOMAIN)


@FAST
@given(data=st.data())
def test_changed_grant_is_refused_by_a_peer_error(data: st.DataObject) -> None:
    bad = _damage(data, GRANT)
    with pytest.raises(PeerError):
        verify_grant(parse_grant(bad), A.result, VERIFIED["classic"])


@pytest.mark.parametrize("suite", ["classic", "hybrid", "hybrid-tpm", "hybrid-top"])
@FAST
@given(wrapped=st.binary(max_size=1_300))
def test_garbage_never_unwraps(suite: str, wrapped: bytes) -> None:
    with pytest.raises(PeerError):
        unwrap(PARTIES[suite].key, wrapped, b"info")


@FAST
@given(padded=st.binary(max_size=200), coding=st.sampled_from(["zstd", "none"]))
def test_garbage_plaintext_is_malformed_or_the_one_way_to_write_it(
    padded: bytes, coding: str
) -> None:
    try:
        plain = plaintext.decode(padded, coding)
    except Malformed:
        return
    if coding == "none":
        assert padded == plaintext.encode(plain, coding, False)[0]


@FAST
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 999_999), st.binary(min_size=32, max_size=32)),
        max_size=65,
    ),
    st.lists(st.binary(min_size=32, max_size=32), min_size=4, max_size=64, unique=True),
    st.integers(0, 2**63 - 1),
)
def test_chain_state_survives_its_encoding(
    places: list[tuple[int, int, bytes]], epochs: list[bytes], number: int
) -> None:
    if ROOT.epoch in epochs:
        return
    last = Accepted(epochs[0], 7, bytes(32))
    known = tuple(Accepted(epochs[at], counter, digest) for at, counter, digest in places)
    state = ChainState(
        sender="spiffe://a.b/G01/r/h",
        number=number,
        accepted=(ROOT, *known, last),
        superseded=tuple(epochs[1:]),
    )
    assert ChainState.decode(state.encode()) == state


def _damage(data: st.DataObject, good: bytes) -> bytes:
    """Flip a bit, cut, insert or delete somewhere in `good`."""
    place = data.draw(st.integers(0, len(good) - 1))
    act = data.draw(st.sampled_from(["flip", "cut", "insert", "delete"]))
    if act == "flip":
        mask = 1 << data.draw(st.integers(0, 7))
        return good[:place] + bytes([good[place] ^ mask]) + good[place + 1 :]
    if act == "cut":
        return good[:place]
    if act == "insert":
        return good[:place] + data.draw(st.binary(min_size=1, max_size=4)) + good[place:]
    return good[:place] + good[place + 1 :]
