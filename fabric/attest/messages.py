"""Bodies of the authority's HTTP interface: canonical CBOR, exact fields, bounded sizes.

`POST /enrol` EnrolRequest -> EnrolChallenge; `/enrol/activate` ActivateRequest -> 204;
`/challenge` ChallengeRequest -> Challenge; `/attest` AttestRequest -> AttestAnswer;
`GET /notices/<number>` -> catchup.Catchup;
anything refused -> Refusal. Spec: design section 6.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from fabric.attest import cose, fields
from fabric.attest.keys import PublicKey, Signer, Use
from fabric.attest.resident import ResidentReport
from fabric.attest.tally import VALUE_BYTES, TallyReport
from fabric.model import canonical
from fabric.model.errors import Malformed, Reason
from fabric.model.limits import (
    CARRIER_ITEMS_MAX,
    CBOR_ITEMS_DEFAULT,
    EVENT_LOG_BYTES_MAX,
    NONCE_BYTES,
    REQUEST_BYTES_MAX,
    RESULT_BYTES_MAX,
)
from fabric.model.names import HostId, part

CONTENT_TYPE = "application/cbor"
KIND = "attest"
PCR_MAX = 23
_EMPTY_MAP = b"\xa0"
_CERTIFICATE_BYTES_MAX = 16 * 1024
_TPM_BYTES_MAX = 2 * 1024
"""Any one TPM structure: TPM2B_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE, credential."""
_SECRET_BYTES_MAX = 64
_PEM_BYTES_MAX = 64 * 1024
_NAME_CHARS_MAX = 256
_MESSAGE_CHARS_MAX = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolRequest:
    """A host shows its TPM: EK certificate (DER) and AK (marshalled TPM2B_PUBLIC)."""

    host: HostId
    ek_certificate: bytes
    ak_public: bytes

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: str(self.host), 1: self.ek_certificate, 2: self.ak_public})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 3)
        return cls(
            host=_host(value[0]),
            ek_certificate=fields.blob(value[1], "EK certificate", _CERTIFICATE_BYTES_MAX),
            ak_public=fields.blob(value[2], "AK", _TPM_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolChallenge:
    """What only the EK's TPM can answer, when it holds the AK.

    Attributes:
        enrolment: 16 bytes, names this try.
        credential: marshalled TPM2B_ID_OBJECT.
        secret: marshalled TPM2B_ENCRYPTED_SECRET.
    """

    enrolment: bytes
    credential: bytes
    secret: bytes

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: self.enrolment, 1: self.credential, 2: self.secret})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 3)
        return cls(
            enrolment=fields.octets(value[0], "enrolment", fields.ID_BYTES),
            credential=fields.blob(value[1], "credential", _TPM_BYTES_MAX),
            secret=fields.blob(value[2], "encrypted secret", _TPM_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateRequest:
    """The activated secret: proof that the AK lives in the EK's TPM."""

    enrolment: bytes
    secret: bytes

    def __repr__(self) -> str:  # the secret proves an identity until it is used
        return f"ActivateRequest(enrolment={self.enrolment.hex()}, secret=hidden)"

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: self.enrolment, 1: self.secret})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 2)
        return cls(
            enrolment=fields.octets(value[0], "enrolment", fields.ID_BYTES),
            secret=fields.blob(value[1], "secret", _SECRET_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeRequest:
    """A host wants to attest."""

    host: HostId

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: str(self.host)})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        return cls(host=_host(_body(data, 1)[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A session with its nonce, for one quote within seconds.

    Attributes:
        session: 16 bytes.
        nonce: 32 bytes, used once.
        verifier: the verifier's name, which the quote binds.
        pcrs: the exact selection to quote, rising, 0..23.
        expires_ms: milliseconds from now until the session ends.
        tally: the verifier's value of the host's tally, 32 bytes; empty before the first.
        step: what the host extends its tally by, 32 bytes, known to nobody else.
    """

    session: bytes
    nonce: bytes
    verifier: str
    pcrs: tuple[int, ...]
    expires_ms: int
    tally: bytes
    step: bytes

    def __repr__(self) -> str:  # whoever learns a step can follow the chain
        return f"Challenge(session={self.session.hex()}, step=hidden)"

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode(
            {
                0: self.session,
                1: self.nonce,
                2: self.verifier,
                3: self.pcrs,
                4: self.expires_ms,
                5: _optional(self.tally),
                6: self.step,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 7)
        return cls(
            session=fields.octets(value[0], "session", fields.ID_BYTES),
            nonce=fields.octets(value[1], "nonce", NONCE_BYTES),
            verifier=part(fields.text(value[2], "verifier", _NAME_CHARS_MAX)),
            pcrs=_pcrs(value[3]),
            expires_ms=fields.uint(value[4], "lifetime", 2**32),
            tally=_one_or_none(value[5], "tally", VALUE_BYTES),
            step=fields.octets(value[6], "step", VALUE_BYTES),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestRequest:
    """The evidence, signed by every key it binds that can sign.

    Attributes:
        quote_attest: marshalled TPMS_ATTEST.
        quote_signature: marshalled TPMT_SIGNATURE by the enrolled AK.
        keys: all bound keys, in the order the qualifying data has them.
        heads: hashes of this host's last acknowledged envelopes, 32 bytes each.
        tally: the tally, certified over the same qualifying data.
        event_log: TCG event log of this boot; empty when the host has none to show.
        resident: proof that the P-256 signing key lives in the TPM; None without such a key.
    """

    session: bytes
    host: HostId
    quote_attest: bytes
    quote_signature: bytes
    keys: tuple[PublicKey, ...]
    heads: tuple[bytes, ...]
    tally: TallyReport
    event_log: bytes = b""
    resident: ResidentReport | None = None

    def encode(self, signers: Sequence[Signer]) -> bytes:
        """The body, signed.

        Args:
            signers: the private halves of every SIGN and TLS key, in the order of `keys`.
        """
        payload = canonical.encode(
            {
                0: self.session,
                1: str(self.host),
                2: self.quote_attest,
                3: self.quote_signature,
                4: fields.write_keys(self.keys),
                5: self.heads,
                6: [self.tally.attest, self.tally.signature, self.tally.step],
                7: _optional(self.event_log),
                8: _write_resident(self.resident),
            }
        )
        return cose.sign(KIND, _EMPTY_MAP, payload, signers)

    @classmethod
    def decode(cls, data: bytes, admit: Callable[[bytes, HostId], None] | None = None) -> Self:
        """Read a body and check that the sender holds its signing and TLS keys.

        The keys are the request's own: only the quote says whose they are.

        Args:
            admit: raises when nobody waits for this session and host. It is asked before the
                signatures, which cost most.

        Raises:
            PeerError: MALFORMED, also without exactly one TLS key, one signing key or
                more and one HPKE key or more; BAD_SIGNATURE.
            FabricError: whatever `admit` raises.
        """
        _check_size(data)
        signed = cose.parse(data)
        if signed.protected_bytes != _EMPTY_MAP:
            raise Malformed("request has headers it must not have")
        value = _body(signed.payload, 9, CARRIER_ITEMS_MAX)
        request = cls(
            session=fields.octets(value[0], "session", fields.ID_BYTES),
            host=_host(value[1]),
            quote_attest=fields.blob(value[2], "quote", _TPM_BYTES_MAX),
            quote_signature=fields.blob(value[3], "quote's signature", _TPM_BYTES_MAX),
            keys=_bound_keys(value[4]),
            heads=fields.heads(value[5]),
            tally=_tally_report(value[6]),
            event_log=_one_or_none(value[7], "event log", EVENT_LOG_BYTES_MAX),
            resident=_resident_report(value[8]),
        )
        if admit is not None:
            admit(request.session, request.host)
        cose.check(signed, KIND, [key for key in request.keys if key.use is not Use.HPKE])
        return request


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestAnswer:
    """What an attested host gets: X.509-SVID with its chain (PEM) and the signed result."""

    svid_pem: bytes
    result: bytes

    def encode(self) -> bytes:
        """The body."""
        return canonical.encode({0: self.svid_pem, 1: self.result})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 2)
        return cls(
            svid_pem=fields.blob(value[0], "certificate", _PEM_BYTES_MAX),
            result=fields.blob(value[1], "result", RESULT_BYTES_MAX),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request was refused; the message is for people and holds no secret."""

    reason: Reason
    message: str

    def encode(self) -> bytes:
        """The body; a message that is too long is cut, what does not print is replaced."""
        cut = self.message[:_MESSAGE_CHARS_MAX]
        clean = "".join(char if char.isprintable() else " " for char in cut)
        return canonical.encode({0: str(self.reason), 1: clean})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Undo `encode`; raises Malformed."""
        value = _body(data, 2)
        reason = fields.text(value[0], "reason", _NAME_CHARS_MAX)
        if reason not in frozenset(Reason):
            raise Malformed("reason is unknown")
        message = fields.text(value[1], "message", _MESSAGE_CHARS_MAX)
        return cls(reason=Reason(reason), message=message)


def _check_size(data: bytes) -> None:
    if len(data) > REQUEST_BYTES_MAX:
        raise Malformed("message is too long")


def _body(
    data: bytes, size: int, items_max: int = CBOR_ITEMS_DEFAULT
) -> Mapping[int, canonical.Value]:
    _check_size(data)
    content = canonical.decode(data, items_max=items_max)
    return fields.exact_map(content, frozenset(range(size)), "message")


def _host(value: canonical.Value) -> HostId:
    return HostId.parse(fields.text(value, "host", _NAME_CHARS_MAX))


def _pcrs(value: canonical.Value) -> tuple[int, ...]:
    items = fields.array(value, PCR_MAX + 1, "PCR selection")
    pcrs = tuple(fields.uint(item, "PCR", PCR_MAX) for item in items)
    if not pcrs or any(left >= right for left, right in pairwise(pcrs)):
        raise Malformed("PCR selection is empty or does not rise")
    return pcrs


def _optional(data: bytes) -> list[canonical.Value]:
    """What may be missing stands in an array of one or none."""
    return [data] if data else []


def _one_or_none(value: canonical.Value, what: str, size_max: int) -> bytes:
    items = fields.array(value, 1, what)
    return fields.blob(items[0], what, size_max) if items else b""


def _tally_report(value: canonical.Value) -> TallyReport:
    items = fields.array(value, 3, "tally")
    if len(items) != 3:
        raise Malformed("tally is not three values")
    return TallyReport(
        attest=fields.blob(items[0], "tally", _TPM_BYTES_MAX),
        signature=fields.blob(items[1], "tally's signature", _TPM_BYTES_MAX),
        step=fields.octets(items[2], "step", VALUE_BYTES),
    )


def _bound_keys(value: canonical.Value) -> tuple[PublicKey, ...]:
    keys = fields.keys(value)
    uses = [key.use for key in keys]
    if uses.count(Use.TLS) != 1 or Use.SIGN not in uses or Use.HPKE not in uses:
        raise Malformed("keys must be one for TLS and at least one to sign and one for HPKE")
    return keys


def _write_resident(report: ResidentReport | None) -> list[canonical.Value]:
    return [] if report is None else [report.attest, report.signature, report.public]


def _resident_report(value: canonical.Value) -> ResidentReport | None:
    items = fields.array(value, 3, "key certificate")
    if not items:
        return None
    if len(items) != 3:
        raise Malformed("key certificate has a wrong shape")
    attest, signature, public = (
        fields.blob(item, "key certificate", _TPM_BYTES_MAX) for item in items
    )
    return ResidentReport(attest=attest, signature=signature, public=public)
