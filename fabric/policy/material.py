"""What a policy's key is, whatever it is called: one key, one value. Pure.

Key ids are free text, and a key's text has many spellings that parse alike: hex in upper
case, a compressed point, one more line end. Two of them must not pass for two persons.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from securesystemslib.signer import Key, SSlibKey

from fabric.model.errors import Malformed


def material(key: Key) -> bytes:
    """The key itself: DER of its SubjectPublicKeyInfo, points uncompressed.

    Raises:
        PeerError: MALFORMED, it does not parse, or is not spelled as TUF's library spells
            it: `keyval` holds nothing but `public`, in that one form.
    """
    try:
        public = _parsed(key.keytype, key.keyval["public"])
        spelled = SSlibKey.from_crypto(public).keyval
        data = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, LookupError, TypeError, AttributeError, UnsupportedAlgorithm) as exc:
        raise Malformed("key of the policy does not parse") from exc
    if key.keyval != spelled:
        raise Malformed("key of the policy is not in its one canonical form")
    return data


def _parsed(kind: str, text: str) -> PublicKeyTypes:
    if kind == "ed25519":
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    return load_pem_public_key(text.encode())
