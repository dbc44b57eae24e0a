"""One role for each path, and no path, no role and no lone signer beyond that."""

import pytest

from fabric.model.errors import PeerError, Reason
from fabric.policy import roles


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("levels.yaml", "targets"),
        ("trust/ca.pem", "targets"),
        ("agencies/G01.yaml", "targets"),
        ("floors.yaml", "targets"),
        ("approvals/G01/registry/host-a.yaml", "approvals"),
        ("releases/G01/residents/1.yaml", "releases"),
        ("datasets/G01/residents.yaml", "agency-G01"),
        ("schemas/G01.A2/residents.avsc", "agency-G01.A2"),
    ],
)
def test_each_file_has_one_role(path: str, role: str) -> None:
    """MUST-14.2."""
    assert roles.role_of(path) == role
    roles.check_signer(path, role)
    with pytest.raises(PeerError, match="only .* may sign it"):
        roles.check_signer(path, "agency-G02")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../levels.yaml",
        "datasets/../levels.yaml",
        "datasets/G01/..",
        "datasets/G01//x.yaml",
        "datasets/G01/.x.yaml",
        "datasets/residents.yaml",
        "datasets/G01/a/b.yaml",
        "schemas/x.avsc",
        "approvals/G01/registry.yaml",
        "releases/G01/residents.yaml",
        "a\\b",
        "a b",
        "a\n",
        "é",
        "a/b/c/d/e/f/g",
        "x" * 200,
    ],
)
def test_other_paths_belong_to_nobody(path: str) -> None:
    """MUST-14.6."""
    with pytest.raises(PeerError) as caught:
        roles.role_of(path)
    assert caught.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    "name", ["", "targets", "root", "agency-", "agency-g01", "agency-*", "agency-G01/x", "other"]
)
def test_other_roles_get_nothing(name: str) -> None:
    with pytest.raises(PeerError, match="may not"):
        roles.paths_of(name)


def test_delegated_paths_cover_the_files_of_the_role_and_no_others() -> None:
    """MUST-14.3."""
    assert roles.paths_of("agency-G01") == ("datasets/G01/*", "schemas/G01/*")
    assert roles.paths_of("approvals") == ("approvals/*/*/*",)


@pytest.mark.parametrize("role", sorted(roles.TWO_PERSONS))
def test_two_persons_are_two(role: str) -> None:
    """MUST-14.4."""
    roles.check_persons(role, 2, {"a": b"1", "b": b"2"})
    for threshold, publics in ((1, {"a": b"1", "b": b"2"}), (2, {"a": b"1", "b": b"1"})):
        with pytest.raises(PeerError):
            roles.check_persons(role, threshold, publics)


def test_an_agency_may_sign_alone() -> None:
    roles.check_persons("agency-G01", 1, {"a": b"1"})


def test_files_are_split_by_role_in_order() -> None:
    found = roles.split(["levels.yaml", "datasets/G01/b.yaml", "datasets/G01/a.yaml"])
    assert found == {
        "agency-G01": ["datasets/G01/a.yaml", "datasets/G01/b.yaml"],
        "targets": ["levels.yaml"],
    }
