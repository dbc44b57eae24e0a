import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fabric.attest import evidence
from fabric.attest.credential import make_credential
from fabric.model.errors import DeniedError, Reason, UsageError
from tests.fakes.tpm import FakeTpm, public_area

TPMS = {"rsa-2048": FakeTpm(), "p-384": FakeTpm(elliptic=True)}
SECRET = bytes(range(32))


def _public(tpm: FakeTpm) -> rsa.RSAPublicKey | ec.EllipticCurvePublicKey:
    return tpm.ek.public_key()


def _name(tpm: FakeTpm) -> bytes:
    return evidence.parse_ak(tpm.ak_public()).name


@pytest.mark.parametrize("tpm", TPMS.values(), ids=TPMS)
@pytest.mark.parametrize("secret", [b"s", SECRET], ids=["short", "full"])
def test_tpm_with_both_keys_activates(tpm: FakeTpm, secret: bytes) -> None:
    assert tpm.activate(*make_credential(_public(tpm), _name(tpm), secret)) == secret


@pytest.mark.parametrize("tpm", TPMS.values(), ids=TPMS)
def test_credential_for_another_attestation_key_does_not_activate(tpm: FakeTpm) -> None:
    software = public_area(ec.generate_private_key(ec.SECP256R1()).public_key())
    name = evidence.parse_ak(software).name
    with pytest.raises(DeniedError) as denied:
        tpm.activate(*make_credential(_public(tpm), name, SECRET))
    assert denied.value.reason is Reason.ACTIVATION_FAILED


@pytest.mark.parametrize("elliptic", [False, True])
def test_credential_for_another_endorsement_key_does_not_activate(elliptic: bool) -> None:
    tpm = TPMS["p-384" if elliptic else "rsa-2048"]
    other = FakeTpm(elliptic=elliptic)
    with pytest.raises(DeniedError):
        tpm.activate(*make_credential(_public(other), _name(tpm), SECRET))


@pytest.mark.parametrize("tpm", TPMS.values(), ids=TPMS)
def test_changed_credential_does_not_activate(tpm: FakeTpm) -> None:
    credential, secret = make_credential(_public(tpm), _name(tpm), SECRET)
    for at in range(len(credential)):
        changed = credential[:at] + bytes([credential[at] ^ 1]) + credential[at + 1 :]
        with pytest.raises(DeniedError):
            tpm.activate(changed, secret)


@pytest.mark.parametrize("tpm", TPMS.values(), ids=TPMS)
def test_two_credentials_share_nothing(tpm: FakeTpm) -> None:
    first = make_credential(_public(tpm), _name(tpm), SECRET)
    second = make_credential(_public(tpm), _name(tpm), SECRET)
    assert first[0] != second[0]
    assert first[1] != second[1]


@pytest.mark.parametrize("tpm", TPMS.values(), ids=TPMS)
def test_credential_does_not_show_the_secret(tpm: FakeTpm) -> None:
    assert SECRET not in b"".join(make_credential(_public(tpm), _name(tpm), SECRET))


@pytest.mark.parametrize("secret", [b"", bytes(33)])
def test_secret_of_a_wrong_length_is_our_mistake(secret: bytes) -> None:
    with pytest.raises(UsageError):
        make_credential(_public(TPMS["rsa-2048"]), bytes(34), secret)
