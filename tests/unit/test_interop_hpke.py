"""Two other implementations of HPKE open our grants: pyhpke for `classic`, Go's for every suite.

Info and key bytes are made here from docs/format.md, not by the code. Go is not part of
the set-up: where Go 1.26 or newer is not installed, its judgement is skipped.
"""

import hashlib
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey

from fabric.attest.keys import PublicKey, Use
from fabric.seal.epoch import start_epoch
from fabric.seal.suites import SUITES, Kdf
from tests.fakes.sealing import TOPIC, Party

HPKE = Path(__file__).parents[1] / "judges/hpke"
GO_S_MAX = 110
ENC_BYTES = 32
READER = "G02/health/b1"
KDF_IDS = {Kdf.HKDF_SHA256: 1, Kdf.HKDF_SHA384: 2}


def wrapped(suite: str, public: bytes) -> tuple[bytes, bytes, bytes]:
    """A wrap of a fresh epoch's secret for the reader's key: (info, wrap, secret)."""
    sender, reader = Party.make(suite=suite), Party.make(READER, suite)
    kem = int(SUITES[suite].kem)
    recipients = [
        (sender.host, sender.key.public),
        (reader.host, PublicKey(Use.HPKE, kem, public)),
    ]
    secret = sender.secret()
    made = start_epoch(sender.draft(), secret, recipients, signers=sender.signers)
    record = cbor2.loads(made.value)
    manifest = cbor2.loads(cbor2.loads(record[0]).value[2])
    thumbprint = hashlib.sha256(cbor2.dumps(["hpke", kem, public])).digest()
    names = [recipient[0] for recipient in manifest[11]]
    place = names.index(READER)
    assert manifest[11][place][1] == thumbprint
    wrap = record[-1][place]
    assert manifest[11][place][2] == hashlib.sha256(wrap).digest()
    granted = ["fabric-grant-v1", suite, str(TOPIC), manifest[6], manifest[1], manifest[1]]
    spiffe = f"spiffe://fabric.example/{READER}"
    info = cbor2.dumps([*granted, spiffe, thumbprint, manifest[3], manifest[8]])
    return info, wrap, secret.private_bytes()


def test_pyhpke_opens_a_grant_of_the_classic_suite() -> None:
    """MUST-6.11."""
    private = x25519.X25519PrivateKey.generate()
    info, wrap, secret = wrapped("classic", private.public_key().public_bytes_raw())
    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)
    key = KEMKey.from_pyca_cryptography_key(private)
    context = suite.create_recipient_context(wrap[:ENC_BYTES], key, info=info)
    assert context.open(wrap[ENC_BYTES:]) == secret


@cache
def go_judge() -> Path:
    """The program, built; Go keeps what it compiled, so only the first build takes long."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is not installed: its HPKE does not judge")
    version = subprocess.run(
        [go, "version"], capture_output=True, text=True, timeout=30, check=True
    )
    found = re.search(r"go1\.(\d+)", version.stdout)
    if found is None or int(found[1]) < 26:
        pytest.skip("Go is older than 1.26, which brings crypto/hpke: it does not judge")
    program = HPKE.parents[2] / ".cache/judges/hpke"
    program.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([go, "build", "-o", program, "."], cwd=HPKE, timeout=GO_S_MAX, check=True)
    return program


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_go_opens_a_grant_of_every_suite(suite: str) -> None:
    """MUST-6.11, MUST-1.2: KEM, KDF and raw keys are what the page says."""
    chosen = SUITES[suite]
    command = [str(go_judge()), str(int(chosen.kem)), str(KDF_IDS[chosen.kdf])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as judge:
        assert judge.stdin is not None
        assert judge.stdout is not None
        info, wrap, secret = wrapped(suite, bytes.fromhex(judge.stdout.readline()))
        judge.stdin.write(f"{info.hex()}\n{wrap.hex()}\n")
        judge.stdin.flush()
        opened = judge.stdout.readline().strip()
    assert judge.returncode == 0
    assert bytes.fromhex(opened) == secret
