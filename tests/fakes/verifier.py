"""The authority's pen: verifier keys, the trust that names them, results and records."""

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from fabric.attest.keys import Alg, Kem, PublicKey, Signer, SigningKey, Use
from fabric.attest.members import Heartbeat, HostState, MemberState, Notice, NoticeKind
from fabric.attest.notices import NO_NOTICES, listed_with
from fabric.attest.result import Result
from fabric.model.errors import Reason
from fabric.model.label import Label
from fabric.model.names import HostId
from fabric.policy.types import Trust
from fabric.seal.hpke import HpkeKey

TRUST_DOMAIN = "fabric.example"
NOW = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
HOST = HostId.parse("G01/registry/a1")
OTHER = HostId.parse("G02/health/b1")


class Verifier:
    """Signing keys of one verifier, Ed25519 and ML-DSA-65, and what they sign."""

    def __init__(self) -> None:
        self.signers = (SigningKey.generate(Alg.ED25519), SigningKey.generate(Alg.ML_DSA_65))
        self.trust = Trust(
            trust_domain=TRUST_DOMAIN,
            verifier_name="verifier",
            verifier_keys=tuple((key.public.alg, key.public.data) for key in self.signers),
            ca_pem=b"",
            ek_ca_pem=b"",
        )


class CountedKey:
    """A signing key that remembers in which thread it signed what.

    Attributes:
        threads: of each signature, its thread's id.
        before: called before each signature.
    """

    def __init__(self) -> None:
        self._key = SigningKey.generate(Alg.ED25519)
        self.public = self._key.public
        self.threads: list[int] = []
        self.before: Callable[[], object] = lambda: None

    def sign(self, data: bytes) -> bytes:
        """As any key."""
        self.before()
        self.threads.append(threading.get_ident())
        return self._key.sign(data)


class HostKeys:
    """The keys a host binds: two to sign, one for HPKE, one for TLS."""

    def __init__(self) -> None:
        self.sign: tuple[Signer, ...] = (
            SigningKey.generate(Alg.ED25519),
            SigningKey.generate(Alg.ML_DSA_65),
        )
        self.tls = SigningKey.generate(Alg.ESP256, Use.TLS)
        self.hpke = HpkeKey.generate(Kem.MLKEM768_X25519).public

    @property
    def public(self) -> tuple[PublicKey, ...]:
        """In the order of a request."""
        return (*(key.public for key in self.sign), self.hpke, self.tls.public)

    @property
    def signers(self) -> tuple[Signer, ...]:
        """Whoever can sign, in that order."""
        return (*self.sign, self.tls)


UNFIT = {
    Kem.X25519: bytes(32),
    Kem.MLKEM768_X25519: b"\xff" * 1216,
    Kem.MLKEM1024_P384: b"\x04" * 1665,
}
"""Bytes of each KEM's length to which nothing can be wrapped."""


def unfit(bound: Sequence[PublicKey]) -> tuple[PublicKey, ...]:
    """The same keys, but nothing can be wrapped to those for HPKE."""
    return tuple(
        replace(key, data=UNFIT[Kem(key.alg)]) if key.use is Use.HPKE else key for key in bound
    )


_KEYS = HostKeys()


def a_result(**changes: object) -> Result:
    """A good result of HOST, ten minutes from NOW; change what the test is about."""
    result = Result(
        id=secrets.token_bytes(16),
        host=HOST,
        approval=1,
        level=4,
        clearance=Label.parse("secret+personal-data"),
        evidence="tpm2",
        keys=_KEYS.public,
        policy_version=7,
        revocation_number=0,
        heads=(bytes(32),),
        quote_digest=bytes(32),
        nonce=bytes(32),
        issued=NOW,
        expires=NOW + timedelta(minutes=10),
    )
    return replace(result, **changes)  # type: ignore[arg-type]


def a_state(result: Result, **changes: object) -> HostState:
    """The host state that goes with a result."""
    state = HostState(
        host=result.host,
        state=MemberState.ATTESTED,
        result_id=result.id,
        approval=result.approval,
        number=result.revocation_number,
        since=result.issued,
        expires=result.expires,
    )
    return replace(state, **changes)  # type: ignore[arg-type]


def a_notice(number: int, kind: str = NoticeKind.SUSPENSION, **changes: object) -> Notice:
    """A notice about HOST under approval 1, `number` seconds after NOW."""
    notice = Notice(
        number=number,
        host=HOST,
        kind=kind,
        approval=1,
        why=Reason.STATE_REFUSED,
        at=NOW + timedelta(seconds=number),
    )
    return replace(notice, **changes)  # type: ignore[arg-type]


def a_beat(
    number: int = 0, at: datetime = NOW, notices: Iterable[Notice] = (), **changes: object
) -> Heartbeat:
    """A heartbeat at NOW over these notices, of which it names the first `number`."""
    listed = NO_NOTICES
    for notice in sorted(notices, key=lambda found: found.number):
        if notice.number <= number:
            listed = listed_with(listed, notice)
    return replace(Heartbeat(number=number, listed=listed, at=at), **changes)  # type: ignore[arg-type]
