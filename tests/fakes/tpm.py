"""A TPM 2.0 in software: the port's second implementation, with every lie on request.

It keeps the forms of TPM 2.0 Library part 2 byte for byte, so that the verifier's own
parsers read it. Its credential activation is written from the specification, apart
from the code it tests. What a real TPM would never sign, `sign` signs.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier

from fabric.attest import evidence, tally
from fabric.attest.ek import ek_name, qualified_name
from fabric.attest.evidence import sized
from fabric.attest.resident import RESIDENT_ATTRIBUTES
from fabric.model import canonical
from fabric.model.errors import DeniedError, Malformed, Reason, UnavailableError, UsageError
from fabric.ports import Quote, ResidentKey, Tpm

EKU_EK = ObjectIdentifier("2.23.133.8.1")
_PCRS = range(24)
_SEALED_BYTES_MAX = 128
_QUALIFYING_BYTES_MAX = 64


class FakeTpmCa:
    """A manufacturer: a root that certifies endorsement keys."""

    def __init__(self, name: str = "fake TPM manufacturer") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.pem = self.issue()
        """What a policy trusts."""

    def issue(self, since: datetime | None = None) -> bytes:
        """A certificate of the root, PEM; another time one of the same name and key."""
        builder = _builder(self._name, self._name, self._key.public_key(), since=since)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        builder = builder.add_extension(_key_usage(ca=True), True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def certify(
        self,
        public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
        *,
        purposes: Sequence[ObjectIdentifier] = (EKU_EK,),
        ca: bool = False,
        until: datetime | None = None,
    ) -> bytes:
        """DER of an endorsement certificate; empty subject, as the TCG profile has it."""
        builder = _builder(self._name, x509.Name([]), public, until)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
        builder = builder.add_extension(_key_usage(ca=False), True)
        identity = x509.Name([x509.NameAttribute(ObjectIdentifier("2.23.133.2.1"), "id:46414B45")])
        names = x509.SubjectAlternativeName([x509.DirectoryName(identity)])
        builder = builder.add_extension(names, True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True, kw_only=True)
class Words:
    """Everything a quote says; `replace` a field to make the TPM lie."""

    magic: int = evidence.MAGIC
    type: int = evidence.TYPE_QUOTE
    signer: bytes
    extra: bytes
    clock: int
    resets: int
    restarts: int
    safe: int
    selection: tuple[tuple[int, frozenset[int]], ...]
    digest: bytes

    def marshal(self) -> bytes:
        """TPMS_ATTEST."""
        head = self.magic.to_bytes(4) + self.type.to_bytes(2) + sized(self.signer)
        counts = self.resets.to_bytes(4) + self.restarts.to_bytes(4) + self.safe.to_bytes(1)
        clock = self.clock.to_bytes(8) + counts + (0x20191023).to_bytes(8)
        banks = len(self.selection).to_bytes(4) + b"".join(
            algorithm.to_bytes(2) + b"\x03" + sum(1 << pcr for pcr in pcrs).to_bytes(3, "little")
            for algorithm, pcrs in self.selection
        )
        return head + sized(self.extra) + clock + banks + sized(self.digest)


@dataclass(frozen=True, kw_only=True)
class TallyWords:
    """Everything a certified NV index says; `replace` a field to make the TPM lie."""

    magic: int = evidence.MAGIC
    type: int = evidence.TYPE_NV
    signer: bytes
    extra: bytes
    index: bytes = tally.NAME
    offset: int = 0
    contents: bytes

    def marshal(self) -> bytes:
        """TPMS_ATTEST."""
        head = self.magic.to_bytes(4) + self.type.to_bytes(2) + sized(self.signer)
        clock = bytes(8) + bytes(4) + bytes(4) + b"\x01" + (0x20191023).to_bytes(8)
        body = sized(self.index) + self.offset.to_bytes(2) + sized(self.contents)
        return head + sized(self.extra) + clock + body


@dataclass(frozen=True, kw_only=True)
class KeyWords:
    """Everything a certified key says; `replace` a field to make the TPM lie."""

    magic: int = evidence.MAGIC
    type: int = evidence.TYPE_CERTIFY
    signer: bytes
    extra: bytes
    name: bytes

    def marshal(self) -> bytes:
        """TPMS_ATTEST."""
        head = self.magic.to_bytes(4) + self.type.to_bytes(2) + sized(self.signer)
        clock = bytes(8) + bytes(4) + bytes(4) + b"\x01" + (0x20191023).to_bytes(8)
        return head + sized(self.extra) + clock + sized(self.name) + sized(self.name)


class FakeTpm:
    """ports.Tpm in memory, with hands on what a real one guards.

    Attributes:
        clock, resets, restarts, safe: as the next quote shows them.
        pcrs: values of the SHA-256 bank.
        available: set to False and every call raises TPM_UNAVAILABLE.
    """

    def __init__(self, ca: FakeTpmCa | None = None, *, elliptic: bool = False) -> None:
        self.ca = ca or FakeTpmCa()
        self.ek: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = (
            ec.generate_private_key(ec.SECP384R1())
            if elliptic
            else rsa.generate_private_key(65537, 2048)
        )
        self._certificate = self.ca.certify(self.ek.public_key())
        self.clock = 10_000
        self.resets = 3
        self.restarts = 0
        self.safe = True
        self.available = True
        self.pcrs = {pcr: bytes(32) for pcr in _PCRS}
        self.tally_value = tally.START
        self._renew()

    def copy(self) -> "FakeTpm":
        """A clone of the whole TPM, as of a virtual machine's snapshot."""
        other = FakeTpm.__new__(FakeTpm)
        other.__dict__.update(self.__dict__, pcrs=dict(self.pcrs))
        return other

    def ek_certificate(self) -> bytes:
        """The certificate that the manufacturer gave."""
        self._check()
        return self._certificate

    def ak_public(self) -> bytes:
        """TPM2B_PUBLIC of the attestation key."""
        self._check()
        return public_area(self.ak.public_key())

    def activate(self, credential: bytes, secret: bytes) -> bytes:
        """TPM2_ActivateCredential, from the specification."""
        self._check()
        try:
            whole = evidence.Reader(credential, "credential").sized(1024)
            mac = evidence.Reader(whole, "credential").sized(64)
            identity = whole[2 + len(mac) :]
            seed, algorithm, aes_bytes = self._seed(secret)
            name = evidence.parse_ak(self.ak_public()).name
            key = kdfa(algorithm, seed, b"INTEGRITY", b"", hashlib.new(algorithm).digest_size)
            if not hmac.compare_digest(mac, hmac.digest(key, identity + name, algorithm)):
                raise ValueError("integrity check failed")
            key = kdfa(algorithm, seed, b"STORAGE", name, aes_bytes)
            plain = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor().update(identity)
            return evidence.Reader(plain, "secret").sized(64)
        except (ValueError, Malformed) as exc:
            raise DeniedError(Reason.ACTIVATION_FAILED, "credential is not for this TPM") from exc

    def quote(self, pcrs: Sequence[int], qualifying: bytes) -> Quote:
        """An honest quote."""
        self._check()
        if len(qualifying) > _QUALIFYING_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "qualifying data must be at most 64 bytes")
        attest = self.words(pcrs, qualifying).marshal()
        return Quote(attest=attest, signature=self.sign(attest))

    def pcr_digest(self, pcrs: Sequence[int]) -> bytes:
        """SHA-256 over the values of `pcrs`."""
        self._check()
        return hashlib.sha256(b"".join(self.pcrs[pcr] for pcr in sorted(pcrs))).digest()

    def tally(self) -> bytes:
        """The tally's value."""
        self._check()
        return self.tally_value

    def extend_tally(self, step: bytes) -> None:
        """TPM2_NV_Extend, from the specification."""
        self._check()
        self.tally_value = hashlib.sha256(self.tally_value + step).digest()

    def certify_tally(self, qualifying: bytes) -> Quote:
        """An honest certificate of the tally."""
        self._check()
        if len(qualifying) > _QUALIFYING_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "qualifying data must be at most 64 bytes")
        attest = self.tally_words(qualifying).marshal()
        return Quote(attest=attest, signature=self.sign(attest))

    def tally_words(self, qualifying: bytes) -> TallyWords:
        """What an honest certificate would say now."""
        name = evidence.parse_ak(public_area(self.ak.public_key())).name
        signer = qualified_name(ek_name(self.ek.public_key()), name)
        return TallyWords(signer=signer, extra=qualifying, contents=self.tally_value)

    def make_key(self) -> ResidentKey:
        """A key of which only the wrapped form leaves."""
        self._check()
        key = ec.generate_private_key(ec.SECP256R1())
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        nonce = secrets.token_bytes(12)
        wrapped = nonce + AESGCM(self._storage).encrypt(nonce, der, b"key")
        return ResidentKey(
            public=public_area(key.public_key(), RESIDENT_ATTRIBUTES), private=wrapped
        )

    def sign_with(self, key: ResidentKey, digest: bytes) -> bytes:
        """ECDSA over a digest."""
        self._check()
        der = self._unwrapped(key).sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
        r, s = decode_dss_signature(der)
        return r.to_bytes(32) + s.to_bytes(32)

    def certify_key(self, key: ResidentKey, qualifying: bytes) -> Quote:
        """An honest certificate of a key."""
        self._check()
        if len(qualifying) > _QUALIFYING_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "qualifying data must be at most 64 bytes")
        self._unwrapped(key)
        attest = self.key_words(key, qualifying).marshal()
        return Quote(attest=attest, signature=self.sign(attest))

    def key_words(self, key: ResidentKey, qualifying: bytes) -> KeyWords:
        """What an honest certificate would say now."""
        signer = self.tally_words(qualifying).signer
        return KeyWords(signer=signer, extra=qualifying, name=evidence.parse_ak(key.public).name)

    def _unwrapped(self, key: ResidentKey) -> ec.EllipticCurvePrivateKey:
        try:
            der = AESGCM(self._storage).decrypt(key.private[:12], key.private[12:], b"key")
            private = load_der_private_key(der, None)
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            if public_area(private.public_key(), RESIDENT_ATTRIBUTES) != key.public:
                raise ValueError("halves do not fit")
        except (InvalidTag, ValueError) as exc:
            raise DeniedError(Reason.SEALED_STATE_LOST, "key is not of this TPM") from exc
        return private

    def seal(self, data: bytes, pcrs: Sequence[int], digest: bytes | None = None) -> bytes:
        """Encrypt under a key that only this TPM has, bound to the PCRs."""
        self._check()
        if not 1 <= len(data) <= _SEALED_BYTES_MAX:
            raise UsageError(Reason.INTERNAL, "sealed data must be 1 to 128 bytes")
        nonce = secrets.token_bytes(12)
        sealed = AESGCM(self._storage).encrypt(
            nonce, data, bytes(sorted(pcrs)) + (digest or self.pcr_digest(pcrs))
        )
        return canonical.encode([sorted(pcrs), nonce, sealed])

    def unseal(self, blob: bytes) -> bytes:
        """Undo `seal`."""
        self._check()
        try:
            match canonical.decode(blob):
                case [list() as pcrs, bytes() as nonce, bytes() as sealed]:
                    state = self._state([int(str(pcr)) for pcr in pcrs])
                    return AESGCM(self._storage).decrypt(nonce, sealed, state)
        except (InvalidTag, ValueError, KeyError, Malformed) as exc:
            raise DeniedError(Reason.SEALED_STATE_LOST, "blob does not open") from exc
        raise DeniedError(Reason.SEALED_STATE_LOST, "blob does not open")

    def unsafe_extend(self, pcr: int, digest: bytes) -> None:
        """Extend a PCR, as TpmDevice names it."""
        self._check()
        self.pcrs[pcr] = hashlib.sha256(self.pcrs[pcr] + digest).digest()

    extend = unsafe_extend

    def reboot(self, *, clean: bool = True) -> None:
        """Power cycle; an unclean one forgets some of the clock, and says so."""
        self.pcrs = {pcr: bytes(32) for pcr in _PCRS}
        self.resets += 1
        self.restarts = 0
        self.safe = clean
        if not clean:
            self.clock = max(0, self.clock - 5_000)

    def clear(self) -> None:
        """TPM2_Clear: new attestation key and storage, counters from zero."""
        self.clock = self.resets = self.restarts = 0
        self.tally_value = tally.START
        self._renew()

    def words(self, pcrs: Sequence[int], qualifying: bytes) -> Words:
        """What an honest quote would say now."""
        self.clock += 1
        name = evidence.parse_ak(public_area(self.ak.public_key())).name
        return Words(
            signer=qualified_name(ek_name(self.ek.public_key()), name),
            extra=qualifying,
            clock=self.clock,
            resets=self.resets,
            restarts=self.restarts,
            safe=int(self.safe),
            selection=((evidence.ALG_SHA256, frozenset(pcrs)),),
            digest=self.pcr_digest(pcrs),
        )

    def lie(self, pcrs: Sequence[int], qualifying: bytes, **changes: object) -> Quote:
        """A quote signed by the attestation key that says something else."""
        attest = replace(self.words(pcrs, qualifying), **changes).marshal()  # type: ignore[arg-type]
        return Quote(attest=attest, signature=self.sign(attest))

    def sign(self, data: bytes) -> bytes:
        """TPMT_SIGNATURE by the attestation key over anything."""
        return signature(self.ak, data)

    def _state(self, pcrs: Sequence[int]) -> bytes:
        """Selection and values, as PolicyPCR covers both."""
        return bytes(pcrs) + self.pcr_digest(pcrs)

    def _renew(self) -> None:
        self.ak = ec.generate_private_key(ec.SECP256R1())
        self._storage = secrets.token_bytes(32)

    def _check(self) -> None:
        if not self.available:
            raise UnavailableError(Reason.TPM_UNAVAILABLE, "TPM does not answer")

    def _seed(self, secret: bytes) -> tuple[bytes, str, int]:
        encrypted = evidence.Reader(secret, "secret").sized(512)
        if isinstance(self.ek, rsa.RSAPrivateKey):
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
            return self.ek.decrypt(encrypted, oaep), "sha256", 16
        point = evidence.Reader(encrypted, "point")
        x, y = point.sized(48), point.sized(48)
        numbers = ec.EllipticCurvePublicNumbers(
            int.from_bytes(x), int.from_bytes(y), ec.SECP384R1()
        )
        shared = self.ek.exchange(ec.ECDH(), numbers.public_key())
        own = self.ek.public_key().public_numbers().x.to_bytes(48)
        kdfe = (1).to_bytes(4) + shared + b"IDENTITY\0" + x + own
        return hashlib.sha384(kdfe).digest(), "sha384", 32


def await_tpm(tpm: Tpm, wait_s: float = 10) -> None:
    """Wait until a TPM that was just started answers: its socket exists before it listens."""
    end = time.monotonic() + wait_s
    while True:
        try:
            tpm.pcr_digest((0,))
        except UnavailableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def public_area(
    public: ec.EllipticCurvePublicKey, attributes: int = evidence.AK_ATTRIBUTES
) -> bytes:
    """TPM2B_PUBLIC of an ECDSA P-256 key, with whatever attributes it claims."""
    numbers = public.public_numbers()
    fields = (evidence.ALG_NULL, evidence.ALG_ECDSA, evidence.ALG_SHA256)
    fields += (evidence.CURVE_P256, evidence.ALG_NULL)
    return sized(
        evidence.ALG_ECC.to_bytes(2)
        + evidence.ALG_SHA256.to_bytes(2)
        + attributes.to_bytes(4)
        + sized(b"")
        + b"".join(number.to_bytes(2) for number in fields)
        + sized(numbers.x.to_bytes(32))
        + sized(numbers.y.to_bytes(32))
    )


def signature(
    key: ec.EllipticCurvePrivateKey, data: bytes, algorithm: int = evidence.ALG_SHA256
) -> bytes:
    """TPMT_SIGNATURE, ECDSA; SHA-1 where `algorithm` says so."""
    digest = hashes.SHA256() if algorithm == evidence.ALG_SHA256 else hashes.SHA1()
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(digest)))
    head = evidence.ALG_ECDSA.to_bytes(2) + algorithm.to_bytes(2)
    return head + sized(r.to_bytes(32)) + sized(s.to_bytes(32))


def kdfa(algorithm: str, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa of TPM 2.0 Library part 1, section 11.4.10.2; one turn is enough here."""
    block = (1).to_bytes(4) + label + b"\0" + context + (size * 8).to_bytes(4)
    return hmac.digest(key, block, algorithm)[:size]


def _builder(
    issuer: x509.Name,
    subject: x509.Name,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    until: datetime | None = None,
    since: datetime | None = None,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since or datetime.now(UTC) - timedelta(days=400))
        .not_valid_after(until or datetime(9999, 12, 31, tzinfo=UTC))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )
