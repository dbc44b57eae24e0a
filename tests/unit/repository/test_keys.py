"""Keys are their owners' alone, of kinds that we know, and make signatures that hold."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from securesystemslib.signer import CryptoSigner, SSlibKey

from fabric.model.errors import ConfigInvalid, PeerError
from fabric.repository import keys


@pytest.mark.parametrize("kind", ["ed25519", "ml-dsa-65"])
def test_key_made_signs_and_its_public_half_verifies(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "an.pem"
    made = keys.make_key(path, kind)
    assert path.stat().st_mode & 0o777 == 0o600
    public = keys.read_public(tmp_path / "an.pem.pub")
    assert public == made
    signature = keys.open_signer(str(path)).sign(b"data")
    assert signature.keyid == public.keyid
    public.verify_signature(signature, b"data")


def test_key_is_never_written_over(tmp_path: Path) -> None:
    keys.make_key(tmp_path / "an.pem")
    before = (tmp_path / "an.pem").read_bytes()
    with pytest.raises(ConfigInvalid, match="choose a new name"):
        keys.make_key(tmp_path / "an.pem")
    assert (tmp_path / "an.pem").read_bytes() == before


def test_private_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    keys.make_key(tmp_path / "an.pem")
    (tmp_path / "an.pem").chmod(0o640)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        keys.open_signer(str(tmp_path / "an.pem"))


@pytest.mark.parametrize("data", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAA==\n"])
def test_file_that_is_no_private_key_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    (tmp_path / "x").chmod(0o600)
    with pytest.raises(ConfigInvalid, match="PEM"):
        keys.open_signer(str(tmp_path / "x"))
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        keys.open_signer(str(tmp_path / "none"))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"5", b'{"keyid": "a", "keytype": "x"}'])
def test_file_that_is_no_public_key_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ConfigInvalid, match="no public key"):
        keys.read_public(tmp_path / "x")


def test_key_of_another_kind_signs_no_policy() -> None:
    signer = CryptoSigner(rsa.generate_private_key(65537, 2048))
    with pytest.raises(PeerError, match="scheme"):
        keys.public_key(keys.public_fields(signer.public_key))


def test_public_key_is_written_as_it_is_read() -> None:
    public = CryptoSigner.generate_ed25519().public_key
    assert isinstance(public, SSlibKey)
    assert keys.public_key(json.loads(json.dumps(keys.public_fields(public)))) == public
