from dataclasses import replace

import cbor2
import pytest

from fabric.attest.binding import qualifying
from fabric.attest.keys import Alg, SigningKey, Use
from tests.fakes.verifier import HostKeys

KEYS = HostKeys().public
NONCE, SESSION = bytes(32), bytes(16)
SPIFFE = "spiffe://fabric.example/G01/registry/a1"
BOUND = qualifying(NONCE, SESSION, verifier="verifier", spiffe=SPIFFE, keys=KEYS)


def test_binding_is_one_hash_over_everything() -> None:
    import hashlib

    keys = [[str(key.use), int(key.alg), key.data] for key in KEYS]
    content = ["fabric-quote-v1", NONCE, SESSION, "verifier", SPIFFE, keys]
    assert hashlib.sha256(cbor2.dumps(content)).digest() == BOUND


OTHER_SIGN = SigningKey.generate(Alg.ED25519).public
OTHER_TLS = SigningKey.generate(Alg.ESP256, Use.TLS).public
OTHER_HPKE = replace(KEYS[2], data=bytes(1216))


@pytest.mark.parametrize(
    "other",
    [
        qualifying(b"\1" + bytes(31), SESSION, verifier="verifier", spiffe=SPIFFE, keys=KEYS),
        qualifying(NONCE, b"\1" + bytes(15), verifier="verifier", spiffe=SPIFFE, keys=KEYS),
        qualifying(NONCE, SESSION, verifier="verifier2", spiffe=SPIFFE, keys=KEYS),
        qualifying(NONCE, SESSION, verifier="verifier", spiffe=SPIFFE + "0", keys=KEYS),
        qualifying(
            NONCE, SESSION, verifier="verifier", spiffe=SPIFFE, keys=(OTHER_SIGN, *KEYS[1:])
        ),
        qualifying(NONCE, SESSION, verifier="verifier", spiffe=SPIFFE, keys=(*KEYS[:3], OTHER_TLS)),
        qualifying(
            NONCE,
            SESSION,
            verifier="verifier",
            spiffe=SPIFFE,
            keys=(*KEYS[:2], OTHER_HPKE, KEYS[3]),
        ),
        qualifying(NONCE, SESSION, verifier="verifier", spiffe=SPIFFE, keys=KEYS[::-1]),
        qualifying(NONCE, SESSION, verifier="verifier", spiffe=SPIFFE, keys=KEYS[:3]),
        qualifying(
            NONCE,
            SESSION,
            verifier="verifier",
            spiffe=SPIFFE,
            keys=(replace(KEYS[0], use=Use.TLS), *KEYS[1:]),
        ),
    ],
    ids=[
        *("nonce", "session", "verifier", "host", "signing key", "TLS key", "HPKE key"),
        *("order", "fewer", "use"),
    ],
)
def test_any_change_gives_another_binding(other: bytes) -> None:
    assert other != BOUND
    assert len(other) == 32
