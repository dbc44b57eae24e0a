"""From bytes to an Envelope, and nothing that is almost one."""

from dataclasses import replace

import pytest

from fabric.attest import cose
from fabric.model import canonical
from fabric.model.errors import Malformed
from fabric.model.limits import ENVELOPE_BYTES_MAX
from fabric.seal import envelope as form
from tests.fakes.sealing import LABEL, NOW, ORIGIN, TOPIC, Party, block, fixed
from tests.vectors import judge

A = Party.make()
STARTED = A.start(A.draft())
SEALED = A.seal(block(), STARTED)


def test_envelope_says_in_the_clear_what_was_sealed() -> None:
    header = form.parse(SEALED.data).header
    assert (header.topic, header.label, header.origin) == (TOPIC, LABEL, ORIGIN)
    assert (header.host, header.counter, header.count) == (A.host, 0, 3)
    assert (header.after, header.upto) == (block().after, block().upto)
    assert (header.generation, header.sealed_at) == (1, NOW)
    assert header.start_hash == STARTED.hash


def test_header_survives_its_own_encoding() -> None:
    envelope = form.parse(SEALED.data)
    assert form.protect(envelope.header) == envelope.header_bytes


def test_hash_covers_header_and_payload_but_never_signatures() -> None:
    """MUST-5.14."""
    envelope = form.parse(SEALED.data)
    signed = cose.sign(
        form.KIND, envelope.header_bytes, envelope.payload, Party.make("B/b/b").signers
    )
    assert form.parse(signed).hash == envelope.hash == SEALED.hash
    assert form.hash_of(envelope.header_bytes, envelope.payload + b"x") != envelope.hash
    assert form.hash_of(envelope.header_bytes + b"x", envelope.payload) != envelope.hash


def test_salt_is_the_only_field_outside_the_salts_input() -> None:
    """MUST-5.8."""
    header = form.parse(SEALED.data).header
    assert form.without_salt(replace(header, salt=bytes(32))) == form.without_salt(header)
    assert form.without_salt(replace(header, counter=1)) != form.without_salt(header)
    bare = canonical.decode(form.without_salt(header))
    assert bare == {key: judge.header_of(SEALED.data)[key] for key in range(21)}


def test_envelope_longer_than_the_limit_is_refused_unread() -> None:
    """MUST-5.7."""
    with pytest.raises(Malformed, match="envelope is too long"):
        form.parse(bytes(ENVELOPE_BYTES_MAX + 1))


def test_description_names_every_field_of_the_header_and_no_plaintext() -> None:
    said = form.describe(form.parse(SEALED.data))
    assert said["topic"] == "secret.G01.notes"
    assert said["sealed_at"] == "2026-11-24T08:00:00.250+00:00"
    assert said["after"] == "0/0/0"
    assert said["upto"] == "1/100/3"
    assert said["hash"] == SEALED.hash.hex()
    assert len(said) == 25
    assert "note" not in str({key: value for key, value in said.items() if key != "topic"})


def test_plain_records_are_no_envelopes() -> None:
    for value in (b"", b"\x00\x00\x00\x00\x01\x02", b"{}", fixed("garbage", 500), b"\xd8\x62"):
        with pytest.raises(Malformed):
            form.parse(value)
