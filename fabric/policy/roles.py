"""Which role signs which file of a policy: one for each path, fixed by the format.

Signatures say who wrote a file; this table says who may. Nothing that is signed can
change it, so an agency's key is good for its own datasets whatever a delegation says.
"""

import re
from collections.abc import Iterable, Mapping

from fabric.model.errors import Malformed, PeerError, Reason
from fabric.model.names import agency_code

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = "root", "targets", "snapshot", "timestamp"
APPROVALS, RELEASES = "approvals", "releases"
TWO_PERSONS = frozenset({ROOT, TARGETS, APPROVALS, RELEASES})
"""Roles that no single key may speak for."""
SCHEMES = frozenset({"ed25519", "ml-dsa-65/1", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384"})
"""How a policy may be signed; the RSA, OpenPGP and others that TUF's library knows may not be."""
_AGENCY = "agency-"
_PATH = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9-][A-Za-z0-9._-]{0,127}){0,5}")


def agency_role(code: str) -> str:
    """The role of one agency's own keys."""
    return f"{_AGENCY}{code}"


def paths_of(role: str) -> tuple[str, ...]:
    """What is delegated to a role, as TUF path patterns.

    Raises:
        PeerError: POLICY_INVALID, the format knows no such delegated role.
    """
    if role in (APPROVALS, RELEASES):
        return (f"{role}/*/*/*",)
    code = role.removeprefix(_AGENCY)
    try:
        if role.startswith(_AGENCY):
            agency_code(code)
            return (f"datasets/{code}/*", f"schemas/{code}/*")
    except Malformed:
        pass
    raise PeerError(Reason.POLICY_INVALID, f"policy delegates to a role it may not: {role[:60]!r}")


def role_of(path: str) -> str:
    """The one role that may sign a file of the policy.

    Raises:
        PeerError: MALFORMED, the path is not one that a policy's file can have.
    """
    if not _PATH.fullmatch(path):
        raise PeerError(Reason.MALFORMED, f"policy has a file with an odd path: {path[:80]!r}")
    parts = path.split("/")
    if parts[0] in (APPROVALS, RELEASES) and len(parts) == 4:
        return parts[0]
    if parts[0] in ("datasets", "schemas") and len(parts) == 3:
        return agency_role(parts[1])
    if parts[0] in (APPROVALS, RELEASES, "datasets", "schemas"):
        raise PeerError(Reason.MALFORMED, f"policy has a file where none may be: {path!r}")
    return TARGETS


def check_signer(path: str, role: str) -> None:
    """Refuse a file that another role signed than the one it belongs to.

    Raises:
        PeerError: POLICY_INVALID, names the file and both roles.
    """
    owner = role_of(path)
    if owner != role:
        raise PeerError(
            Reason.POLICY_INVALID, f"{path} is signed by {role}; only {owner} may sign it"
        )


def check_persons(role: str, threshold: int, publics: Mapping[str, bytes]) -> None:
    """Refuse a two-person role that one person can speak for.

    Args:
        publics: `material` of the keys, by key id.

    Raises:
        PeerError: POLICY_INVALID.
    """
    if role not in TWO_PERSONS:
        return
    if threshold < 2:
        raise PeerError(Reason.POLICY_INVALID, f"role {role} must ask for two signatures or more")
    # Key ids are free text: one key under two of them would sign for two persons.
    if len(set(publics.values())) != len(publics):
        raise PeerError(Reason.POLICY_INVALID, f"role {role} lists one key under two names")


def split(paths: Iterable[str]) -> dict[str, list[str]]:
    """Files by the role that signs them, both sorted; raises as `role_of`."""
    found: dict[str, list[str]] = {}
    for path in sorted(paths):
        found.setdefault(role_of(path), []).append(path)
    return dict(sorted(found.items()))
