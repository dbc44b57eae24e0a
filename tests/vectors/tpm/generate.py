"""Write the vectors of evidence: run `python tests/vectors/tpm/generate.py` from the root.

One file, one failure, all from fixed bytes (signatures are deterministic ECDSA). Each has:

    comment   what is wrong, in one sentence
    musts     the rules of docs/format.md that it is about
    kind      tally | event-log | resident
    expect    `success`, or the Reason with which it is refused
    given     tally: ak_public, ek_name, qualifying, last (value before; empty before the first)
              event-log: pcrs, digest (as quoted), rules (as in an approval)
              resident: ak_public, ek_name, qualifying, bound (the P-256 signing key; or empty)
    value     tally: attest, signature, step; event-log: log; resident: attest, signature,
              public, or nothing (all hexadecimal)
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

sys.path.insert(0, str(Path(__file__).parents[3]))

from fabric.attest import evidence, tally
from fabric.attest.ek import qualified_name
from fabric.attest.evidence import sized
from fabric.attest.resident import RESIDENT_ATTRIBUTES, point_of
from tests.fakes import boot
from tests.fakes.tpm import KeyWords, TallyWords, public_area

FOLDER = Path(__file__).parent
Vector = dict[str, Any]
VECTORS: dict[str, Callable[[], Vector]] = {}
AK = ec.derive_private_key(int.from_bytes(sha256(b"vector ak").digest()), ec.SECP256R1())
AK_PUBLIC = public_area(AK.public_key())
EK_NAME = b"\x00\x0b" + sha256(b"vector ek").digest()
QUALIFYING = sha256(b"vector qualifying").digest()
LAST, STEP = sha256(b"vector last").digest(), sha256(b"vector step").digest()
WORDS = TallyWords(
    signer=qualified_name(EK_NAME, evidence.parse_ak(AK_PUBLIC).name),
    extra=QUALIFYING,
    contents=sha256(LAST + STEP).digest(),
)


KEY = ec.derive_private_key(int.from_bytes(sha256(b"vector key").digest()), ec.SECP256R1())
KEY_PUBLIC = public_area(KEY.public_key(), RESIDENT_ATTRIBUTES)
PROOF = KeyWords(signer=WORDS.signer, extra=QUALIFYING, name=evidence.parse_ak(KEY_PUBLIC).name)


def _register(name: str, vector: Vector) -> None:
    VECTORS[name] = lambda: vector


def signed(attest: bytes, key: ec.EllipticCurvePrivateKey = AK, algorithm: int = 0x000B) -> bytes:
    """TPMT_SIGNATURE, the same in every run."""
    digest = hashes.SHA256() if algorithm == 0x000B else hashes.SHA384()
    r, s = decode_dss_signature(key.sign(attest, ec.ECDSA(digest, deterministic_signing=True)))
    head = evidence.ALG_ECDSA.to_bytes(2) + algorithm.to_bytes(2)
    return head + sized(r.to_bytes(32)) + sized(s.to_bytes(32))


def tally_vector(name: str, *musts: str, expect: str, comment: str, **parts: Any) -> None:
    """Register a report; `parts` replace what a good one has."""
    attest = parts.get("attest", WORDS.marshal())
    value = {
        "attest": attest.hex(),
        "signature": parts.get("signature", signed(attest)).hex(),
        "step": parts.get("step", STEP).hex(),
    }
    given = {
        "ak_public": AK_PUBLIC.hex(),
        "ek_name": EK_NAME.hex(),
        "qualifying": QUALIFYING.hex(),
        "last": parts.get("last", LAST).hex(),
    }
    _register(f"tally-{name}", _vector("tally", musts, expect, comment, given, value))


def log_vector(name: str, *musts: str, expect: str, comment: str, **parts: Any) -> None:
    """Register a log; the quoted digest is the boot's own, the rules those of the good boot."""
    made = boot.Boot(entries=parts.get("entries", boot.GOOD))
    given = {
        "pcrs": list(boot.PCRS),
        "digest": parts.get("digest", made.digest(boot.PCRS)).hex(),
        "rules": boot.Boot(entries=parts.get("rules", boot.GOOD)).rules(boot.PCRS),
    }
    value = {"log": parts.get("log", made.log()).hex()}
    _register(f"event-log-{name}", _vector("event-log", musts, expect, comment, given, value))


def resident_vector(name: str, *musts: str, expect: str, comment: str, **parts: Any) -> None:
    """Register a proof; `parts` replace what a good one has, `changes` what the TPM says."""
    public = parts.get("public", KEY_PUBLIC)
    said = {"name": evidence.parse_ak(public).name, **parts.get("changes", {})}
    attest = parts.get("attest", replace(PROOF, **said).marshal())
    value = {
        "attest": attest.hex(),
        "signature": parts.get("signature", signed(attest)).hex(),
        "public": parts.get("shown", public).hex(),
    }
    given = {
        "ak_public": AK_PUBLIC.hex(),
        "ek_name": EK_NAME.hex(),
        "qualifying": QUALIFYING.hex(),
        "bound": parts.get("bound", point_of(public)).hex(),
    }
    value = value if parts.get("proof", True) else {}
    _register(f"resident-{name}", _vector("resident", musts, expect, comment, given, value))


def _vector(
    kind: str, musts: tuple[str, ...], expect: str, comment: str, given: Any, value: Any
) -> Vector:
    return {
        "comment": comment,
        "musts": [f"MUST-{number}" for number in musts],
        "kind": kind,
        "expect": expect,
        "given": given,
        "value": value,
    }


def _words(**changes: Any) -> bytes:
    return replace(WORDS, **changes).marshal()


def _tallies() -> None:
    add, refused = tally_vector, "evidence_refused"
    add("good", "9.3", "9.4", "9.6", expect="success", comment="one step further")
    add("first", "9.5", expect="success", comment="begins the chain where it stands", last=b"")
    add("two-steps", "9.6", expect="fork", comment="two steps further", step=bytes(32))
    add("copy", "9.6", expect="fork", comment="continues an older value", last=bytes(32))
    add("heard", "9.7", expect="nonce_refused", comment="is the last value", last=WORDS.contents)
    add("magic", "9.3", expect=refused, comment="no TPM made it", attest=_words(magic=0xFF544346))
    add("quote-type", "9.3", expect=refused, comment="type of a quote", attest=_words(type=0x8018))
    add("digest-type", "9.3", expect=refused, comment="of a digest", attest=_words(type=0x801C))
    add("trailing", "9.3", expect="malformed", comment="one byte more", attest=_words() + b"\0")
    add("cut", "9.3", expect="malformed", comment="one byte less", attest=_words()[:-1])
    at = _words().index(b"\x01" + (0x20191023).to_bytes(8))
    unsafe = _words()[:at] + b"\x02" + _words()[at + 1 :]
    add("safe-2", "9.3", expect="malformed", comment="safe is 2", attest=unsafe)
    add(
        "other-challenge",
        "9.3",
        expect="binding_mismatch",
        comment="answers another challenge",
        attest=_words(extra=bytes(32)),
    )
    other = ec.derive_private_key(7, ec.SECP256R1())
    add(
        "other-key",
        "9.3",
        expect="bad_signature",
        comment="signed by another key",
        signature=signed(_words(), other),
    )
    add(
        "sha384",
        "9.3",
        expect="bad_signature",
        comment="signed with another hash",
        signature=signed(_words(), AK, 0x000C),
    )
    plain = evidence.name_of(tally.public_area(tally.NV_WRITTEN & ~0xF0))
    add(
        "plain-index",
        "9.4",
        expect=refused,
        comment="an index that can be written",
        attest=_words(index=plain),
    )
    add("offset", "9.4", expect=refused, comment="begins at 1", attest=_words(offset=1))
    add("short", "9.4", expect=refused, comment="31 bytes", attest=_words(contents=bytes(31)))


def _residents() -> None:
    add, refused, other = resident_vector, "evidence_refused", "binding_mismatch"
    add("good", "9.21", "9.22", "9.23", expect="success", comment="a key that never leaves the TPM")
    add("none", "9.21", expect="success", comment="no such key, no proof", bound=b"", proof=False)
    add("unproved", "9.21", expect=refused, comment="such a key without a proof", proof=False)
    add("unasked", "9.21", expect=refused, comment="a proof without such a key", bound=b"")
    add("magic", "9.22", expect=refused, comment="no TPM made it", changes={"magic": 0xFF544346})
    add("quote-type", "9.22", expect=refused, comment="type of a quote", changes={"type": 0x8018})
    add("creation-type", "9.22", expect=refused, comment="of a birth", changes={"type": 0x801A})
    add("signer", "9.22", expect=refused, comment="another signer", changes={"signer": b"\0\x0b"})
    whole = PROOF.marshal()
    add("cut", "9.22", expect="malformed", comment="one byte less", attest=whole[:-1])
    add("trailing", "9.22", expect="malformed", comment="one byte more", attest=whole + b"\0")
    add(
        "other-challenge",
        "9.22",
        expect=other,
        comment="answers another challenge",
        changes={"extra": bytes(32)},
    )
    software = ec.derive_private_key(7, ec.SECP256R1())
    add(
        "other-signature",
        "9.22",
        expect="bad_signature",
        comment="the key certifies itself",
        signature=signed(whole, KEY),
    )
    theirs = public_area(software.public_key(), RESIDENT_ATTRIBUTES)
    add("other-name", "9.23", expect=other, comment="shows another key", shown=theirs)
    add("other-key", "9.23", expect=other, comment="binds another key", bound=point_of(theirs))
    for name, bit, comment in (
        ("movable", 1 << 1, "fixedTPM is clear: the key can be moved out"),
        ("imported", 1 << 5, "sensitiveDataOrigin is clear: the key came from outside"),
        ("restricted", 1 << 16, "restricted: it signs what a TPM says"),
        ("decrypts", 1 << 17, "it decrypts, too"),
    ):
        area = public_area(KEY.public_key(), RESIDENT_ATTRIBUTES ^ bit)
        add(name, "9.23", expect=refused, comment=comment, public=area)


def _logs() -> None:
    add, state, good = log_vector, "state_refused", boot.GOOD
    add("good", "9.9", "9.12", expect="success", comment="a boot that keeps its rules")
    add(
        "unknown-type",
        "9.10",
        expect=state,
        comment="an unknown type in PCR 7",
        entries=(*good, boot.Entry(pcr=7, type=0x99, data=b"?")),
    )
    lied = boot.Boot().with_entry(8, data=b"harmless", measured=good[8].data).entries
    add("lied-data", "9.10", expect=state, comment="data that was not measured", entries=lied)
    late = (*good, boot.entry(0, "EV_EFI_ACTION", b"late"))
    add(
        "after-separator",
        "9.11",
        expect=state,
        comment="firmware measures after its separator",
        entries=late,
        rules=late,
    )
    none = tuple(item for item in good if item.data != boot.SEPARATOR or item.pcr != 4)
    add("no-separator", "9.11", expect=state, comment="PCR 4 has none", entries=none, rules=none)
    loader = boot.Boot().with_entry(9, measured=b"another loader").entries
    add("other-loader", "9.12", expect=state, comment="an unapproved loader", entries=loader)
    add("missing-event", "9.12", expect=state, comment="no kernel", entries=good[:-1])
    add(
        "untrue",
        "9.13",
        expect="evidence_refused",
        comment="not the quoted values",
        entries=good,
        digest=boot.Boot(entries=loader).digest(boot.PCRS),
    )
    whole = boot.Boot().log()
    add("cut", "9.9", expect="malformed", comment="one byte less", log=whole[:-1])
    add(
        "sha1-only",
        "9.9",
        expect="malformed",
        comment="has no SHA-256",
        log=boot.spec_id(((boot.SHA1, 20),)),
    )
    add(
        "old-form",
        "9.9",
        expect="malformed",
        comment="the form of TPM 1.2",
        log=whole[len(boot.spec_id()) :],
    )
    add(
        "huge-event",
        "9.9",
        expect="malformed",
        comment="an event of 4 GiB",
        log=boot.spec_id() + good[1].marshal()[: -4 - len(good[1].data)] + b"\xff" * 4,
    )


_tallies()
_residents()
_logs()


def text_of(made: Vector) -> str:
    """The file's text."""
    return json.dumps(made, indent=1) + "\n"


def main() -> None:
    """Write every file."""
    for name, make in VECTORS.items():
        (FOLDER / f"{name}.json").write_text(text_of(make()))
    sys.stdout.write(f"{len(VECTORS)} vectors\n")


if __name__ == "__main__":
    main()
