"""Files of TLS that are renewed while a server runs."""

import logging
from pathlib import Path

import pytest

from fabric.authority.pki import issue_platform, make_ca
from fabric.model.errors import ConfigInvalid
from fabric.web.papers import Papers


def write(folder: Path) -> tuple[Path, Path, Path]:
    """A new CA, and a server's certificate and key of it."""
    ca = make_ca("monitoring")
    certificate, key = issue_platform(ca, "gateway", hosts=["localhost"], days=1)
    files = folder / "web.pem", folder / "web.key", folder / "ca.pem"
    for path, data in zip(files, (certificate, key, ca.cert_pem), strict=True):
        path.write_bytes(data)
    return files


def test_files_that_stay_give_one_context(tmp_path: Path) -> None:
    papers = Papers(write(tmp_path))
    assert papers.context() is papers.context()


def test_files_that_change_are_read_anew(tmp_path: Path) -> None:
    papers = Papers(write(tmp_path))
    before = papers.context()
    write(tmp_path)
    assert papers.context() is not before
    assert papers.context() is papers.context()


@pytest.mark.parametrize("name", ["web.pem", "web.key", "ca.pem"])
def test_a_file_that_is_spoilt_or_gone_closes_and_a_good_one_opens_again(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    papers = Papers(write(tmp_path))
    good = (tmp_path / name).read_bytes()
    for spoil in (lambda: (tmp_path / name).write_text("x"), (tmp_path / name).unlink):
        caplog.clear()
        spoil()
        for _ in range(3):
            with pytest.raises(ConfigInvalid, match=r"web|tls"):
                papers.context()
        assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1
    (tmp_path / name).write_bytes(good)
    assert papers.context() is not None


def test_what_cannot_be_used_from_the_start_names_its_setting(tmp_path: Path) -> None:
    files = write(tmp_path)
    files[2].write_text("no CA")
    with pytest.raises(ConfigInvalid, match=r"web\.client_ca: .*ca\.pem"):
        Papers(files)
