"""What a quote is over: the nonce, the session, the verifier, the host and its keys.

One hash binds them, so no part of the answer can be swapped: another session's
quote, another host's name, another signing, HPKE or TLS key all give another hash.
"""

from collections.abc import Sequence
from hashlib import sha256

from fabric.attest.keys import PublicKey
from fabric.model import canonical

_DOMAIN = "fabric-quote-v1"


def qualifying(
    nonce: bytes, session: bytes, *, verifier: str, spiffe: str, keys: Sequence[PublicKey]
) -> bytes:
    """The quote's qualifying data, 32 bytes.

    Args:
        nonce: the verifier's challenge, 32 bytes, used once.
        session: id of the challenge, 16 bytes.
        verifier: name of the verifier that the host answers.
        spiffe: SPIFFE id of the host.
        keys: every bound key, in the order of the request; use, algorithm and bytes count.
    """
    bound = [[key.use.value, int(key.alg), key.data] for key in keys]
    return sha256(canonical.encode([_DOMAIN, nonce, session, verifier, spiffe, bound])).digest()
