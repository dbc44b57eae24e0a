"""The types are plain data; what they must not do is show themselves whole."""

from tests.fakes.policy_files import policy


def test_policy_shows_its_version_and_not_its_salts() -> None:
    given = policy()
    assert repr(given) == "Policy(version=7, datasets=2)"
    assert "5a5a" not in repr(given)
