"""Fields are read exactly: wrong keys, types and names are malformed."""

import pytest

from fabric.model.errors import Malformed
from fabric.model.names import HostId
from fabric.seal import fields


def test_exact_keys_are_all_and_only_those() -> None:
    assert fields.exact_keys({0: 1, 1: 2}, 2, "map") == {0: 1, 1: 2}
    for wrong in ({0: 1}, {0: 1, 2: 2}, {0: 1, 1: 2, 2: 3}, [1, 2], b""):
        with pytest.raises(Malformed):
            fields.exact_keys(wrong, 2, "map")


def test_spiffe_id_gives_its_domain_and_host() -> None:
    uri = "spiffe://fabric.example/G01/registry/a1"
    assert fields.spiffe(uri, "sender") == ("fabric.example", HostId("G01", "registry", "a1"))


@pytest.mark.parametrize(
    "value",
    [
        1,
        b"spiffe://a.b/G01/r/h",
        "",
        "G01/registry/a1",
        "spiffe:///G01/registry/a1",
        "spiffe://A.B/G01/registry/a1",
        "spiffe://a.b/G01/registry",
        "spiffe://a.b/G01/registry/a1/x",
        "spiffe://a.b//registry/a1",
        "https://a.b/G01/registry/a1",
        "spiffe://spiffe://a.b/G01/registry/a1",
    ],
)
def test_other_things_are_no_spiffe_id(value: object) -> None:
    with pytest.raises(Malformed):
        fields.spiffe(value, "sender")  # type: ignore[arg-type]  # foreign values


def test_text_is_text() -> None:
    assert fields.text("x", "name") == "x"
    with pytest.raises(Malformed):
        fields.text(b"x", "name")
