"""The cryptographic suites: which algorithms a suite id stands for.

A suite id travels in every header and manifest; whether a suite may be used is
policy's word, not this table's. Absent from the table means refused.
Spec: docs/format.md section 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fabric.attest.keys import Alg, Kem
from fabric.model.errors import DeniedError, PeerError, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """One suite; the content cipher is AES-256-GCM and the hash SHA-256 in all of them.

    Attributes:
        id: name in headers, manifests and policy.
        kem: how a wrap reaches its recipient's key.
        signatures: algorithms of the signatures, all of them needed, in this order.
    """

    id: str
    kem: Kem
    signatures: tuple[Alg, ...]


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        suite.id: suite
        for suite in (
            Suite(id="classic", kem=Kem.X25519, signatures=(Alg.ED25519,)),
            Suite(
                id="hybrid",
                kem=Kem.MLKEM768_X25519,
                signatures=(Alg.ED25519, Alg.ML_DSA_65),
            ),
        )
    }
)


def suite_of(suite_id: str) -> Suite:
    """Look a suite up; raises DeniedError SUITE_REFUSED when this build has none of that name."""
    suite = SUITES.get(suite_id)
    if suite is None:
        raise DeniedError(Reason.SUITE_REFUSED, "suite is not known here")
    return suite


def claimed_suite(suite_id: str) -> Suite:
    """The suite that foreign bytes claim before their signatures are checked.

    Raises:
        PeerError: SUITE_REFUSED; not a denial, since anyone may have written the name.
    """
    suite = SUITES.get(suite_id)
    if suite is None:
        raise PeerError(Reason.SUITE_REFUSED, "suite is not known here")
    return suite
