"""What must be right before the authority serves; its life is in the integration tests."""

from pathlib import Path

import pytest

from fabric.authority import run
from fabric.model.errors import ConfigInvalid, Reason, UnavailableError
from tests.fakes.authority_site import AuthoritySite
from tests.fakes.verifier import Verifier


def test_keys_must_be_the_ones_the_policy_names(tmp_path: Path) -> None:
    site = AuthoritySite(tmp_path)
    site.close()
    run.check_keys(site.policy, site.verifier.signers)
    for signers in (Verifier().signers, site.verifier.signers[::-1], site.verifier.signers[:1]):
        with pytest.raises(ConfigInvalid, match="trust.verifier.keys"):
            run.check_keys(site.policy, signers)


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert run._secret(path, "a.key") == b"secret"
    for mode in (0o640, 0o604, 0o660, 0o601):
        path.chmod(mode)
        with pytest.raises(ConfigInvalid, match="chmod 600"):
            run._secret(path, "a.key")


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"^config_invalid: a\.key"):
        run._file(tmp_path / "none", "a.key")


def test_the_first_failure_of_a_group_is_told() -> None:
    cause = UnavailableError(Reason.NOT_READY, "x")
    assert run._first(ExceptionGroup("a", [ExceptionGroup("b", [cause])])) is cause
