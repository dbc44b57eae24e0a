"""Names are read in one way or refused."""

import pytest

from fabric.model.errors import Malformed
from fabric.model.names import (
    HostId,
    Origin,
    Stream,
    Topic,
    agency_code,
    grants_topic,
    part,
)


@pytest.mark.parametrize("text", ["G01", "0", "A.B.C", "000.00.01.H03", "A" * 35])
def test_agency_code_is_taken(text: str) -> None:
    assert agency_code(text) == text


@pytest.mark.parametrize(
    "text", ["", "g01", ".A", "A.", "A..B", "A-B", "A/B", "A B", "Đ1", "A\n", "A" * 36, "fabric"]
)
def test_agency_code_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        agency_code(text)


@pytest.mark.parametrize("text", ["a", "a-1", "0", "x" * 63])
def test_part_is_taken(text: str) -> None:
    assert part(text) == text


@pytest.mark.parametrize("text", ["", "A", "a.b", "a/b", "a:b", "a_b", "a b", "á", "a\n", "x" * 64])
def test_part_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        part(text)


def test_host_has_one_text_one_spiffe_id_and_one_principal() -> None:
    host = HostId.parse("G01.A/registry/host-a")
    assert (host.agency, host.system, host.host) == ("G01.A", "registry", "host-a")
    assert str(host) == "G01.A/registry/host-a"
    assert host.spiffe("fabric.example") == "spiffe://fabric.example/G01.A/registry/host-a"
    assert host.principal == "G01.A:registry:host-a"
    assert HostId.from_spiffe(host.spiffe("fabric.example"), "fabric.example") == host


@pytest.mark.parametrize(
    "text", ["", "G01/a", "G01/a/b/c", "g01/a/b", "G01/A/b", "G01/a/", "/a/b", " G01/a/b"]
)
def test_identity_outside_the_grammar_is_refused(text: str) -> None:
    for kind in (HostId, Origin):
        with pytest.raises(Malformed):
            kind.parse(text)


@pytest.mark.parametrize(
    ("uri", "domain"),
    [
        ("spiffe://fabric.example/G01/a/b", "other.example"),
        ("spiffe://fabric.example.evil/G01/a/b", "fabric.example"),
        ("SPIFFE://fabric.example/G01/a/b", "fabric.example"),
        ("spiffe://fabric.example//G01/a/b", "fabric.example"),
        ("spiffe://fabric.example/G01/a/b?x", "fabric.example"),
        ("spiffe:///G01/a/b", ""),
        ("spiffe://A/G01/a/b", "A"),
        ("https://fabric.example/G01/a/b", "fabric.example"),
    ],
)
def test_spiffe_id_of_another_domain_or_shape_is_refused(uri: str, domain: str) -> None:
    with pytest.raises(Malformed):
        HostId.from_spiffe(uri, domain)


def test_topic_has_level_before_the_first_dot_and_dataset_after_the_last() -> None:
    topic = Topic.parse("secret.G01.02.residents")
    assert (topic.level, topic.agency, topic.dataset) == ("secret", "G01.02", "residents")
    assert str(topic) == "secret.G01.02.residents"
    assert grants_topic(topic) == "fabric.grants.secret.G01.02.residents"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "secret.residents",
        "secret..residents",
        "secret.g01.residents",
        "Secret.G01.residents",
        "secret.G01.Residents",
        "secret.G01.",
        ".G01.residents",
        "fabric.members",
        "fabric.results",
        "fabric.grants.secret.G01.residents",
        "secret.G01.residents\n",
    ],
)
def test_topic_outside_the_grammar_is_refused_control_topics_among_them(text: str) -> None:
    with pytest.raises(Malformed):
        Topic.parse(text)


def test_stream_names_origin_topic_and_partition() -> None:
    stream = Stream(Origin.parse("G01/registry/db"), Topic.parse("secret.G01.a"), 3)
    assert str(stream) == "G01/registry/db@secret.G01.a:3"


def test_names_sort_and_hash_by_their_parts() -> None:
    first, second = HostId.parse("G01/a/a"), HostId.parse("G01/a/b")
    assert first < second
    assert len({first, second, HostId.parse("G01/a/a")}) == 2


@pytest.mark.parametrize("text", ["nonsense", "secret.G01", "secret.g01.notes", "x" * 5_000, "\n"])
def test_what_is_no_topic_is_told_the_form_of_one_and_shown_in_part(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        Topic.parse(text)
    said = str(caught.value.args[0])
    assert "a topic has the form LEVEL.AGENCY.DATASET, as secret.G01.residents" in said
    assert repr(text[:20])[:-1] in said
    assert len(said) < 400
    assert said.isprintable()
