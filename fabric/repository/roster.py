"""Who holds which key, and which keys each role needs: the file `roles.yaml` of a workspace.

It is not published. Signing turns it into root metadata and delegations, which are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, model_validator
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Role, Root

from fabric.model.errors import PeerError
from fabric.model.limits import POLICY_ROLES_MAX
from fabric.policy import roles
from fabric.policy.documents import Document, invalid, read_document
from fabric.policy.material import material
from fabric.repository.keys import public_fields, public_key

FILE = "roles.yaml"
_TOP = (roles.ROOT, roles.TARGETS, roles.SNAPSHOT, roles.TIMESTAMP)
_DAYS = {roles.TIMESTAMP: 1}
_DAYS_DEFAULT = 365


class RoleDocument(Document):
    """One role: names of its keys, how many must sign, how long a signature holds."""

    keys: Annotated[list[str], Field(min_length=1, max_length=16)]
    threshold: Annotated[int, Field(ge=1, le=16)]
    valid_days: Annotated[int, Field(ge=1, le=3_660)]


class RosterDocument(Document):
    """roles.yaml"""

    keys: Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=POLICY_ROLES_MAX)]
    roles: Annotated[dict[str, RoleDocument], Field(max_length=POLICY_ROLES_MAX)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in (*_TOP, roles.APPROVALS, roles.RELEASES):
            if name not in self.roles:
                raise ValueError(f"roles: {name} is missing; add it")
        for name, role in self.roles.items():
            unknown = sorted(set(role.keys) - set(self.keys))
            if unknown:
                raise ValueError(f"roles.{name}.keys: nobody is called {unknown[0]}; add the key")
            if len(set(role.keys)) != len(role.keys) or role.threshold > len(role.keys):
                raise ValueError(f"roles.{name}: asks for more signatures than it has keys")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """Keys by their owners' names, and roles."""

    keys: Mapping[str, SSlibKey]
    roles: Mapping[str, RoleDocument]

    @classmethod
    def parse(cls, data: bytes) -> "Roster":
        """Read roles.yaml; raises UsageError POLICY_INVALID with key and remedy."""
        document = read_document(FILE, data, RosterDocument)
        keys = {}
        for name, fields in document.keys.items():
            try:
                keys[name] = public_key(fields)
            except PeerError as exc:
                raise invalid(FILE, f"keys.{name}", f"{exc.args[0]}; copy it from a .pub") from exc
        if len({key.keyid for key in keys.values()}) != len(keys):
            raise invalid(FILE, "keys", "one key stands under two names; keep one of them")
        roster = cls(keys=keys, roles=document.roles)
        try:
            for name, role in document.roles.items():
                if name not in _TOP:
                    roles.paths_of(name)
                publics = {key: material(roster.keys[key]) for key in role.keys}
                roles.check_persons(name, role.threshold, publics)
        except PeerError as exc:
            raise invalid(FILE, "roles", str(exc.args[0])) from exc
        return roster

    def name_of(self, keyid: str) -> str:
        """Whose key that is; its id when nobody's."""
        return next((name for name, key in self.keys.items() if key.keyid == keyid), keyid[:16])

    def valid(self, role: str) -> timedelta:
        """How long a role's signature holds."""
        return timedelta(days=self.roles[role].valid_days)

    def fill(self, root: Root) -> None:
        """Put keys and thresholds of the top-level roles into root metadata."""
        root.keys = {}
        root.roles = {}
        for name in _TOP:
            rule = self.roles[name]
            keys = [self.keys[key] for key in rule.keys]
            root.keys.update({key.keyid: key for key in keys})
            root.roles[name] = Role([key.keyid for key in keys], rule.threshold)

    def delegations(self) -> Delegations:
        """Keys and thresholds of every delegated role."""
        found: dict[str, DelegatedRole] = {}
        keys: dict[str, Any] = {}
        for name in sorted(set(self.roles) - set(_TOP)):
            rule = self.roles[name]
            ids = [self.keys[key].keyid for key in rule.keys]
            keys.update({self.keys[key].keyid: self.keys[key] for key in rule.keys})
            found[name] = DelegatedRole(
                name, ids, rule.threshold, terminating=True, paths=[*roles.paths_of(name)]
            )
        return Delegations(keys, roles=found)


def first_roster(
    persons: Mapping[str, SSlibKey],
    agencies: Mapping[str, SSlibKey],
    *,
    snapshot: SSlibKey,
    timestamp: SSlibKey,
) -> bytes:
    """A roles.yaml to begin with: the persons hold every two-person role together.

    Args:
        persons: at least two, by name.
        agencies: each agency's own key by code.
        snapshot: of whoever publishes.
        timestamp: of the authority's machine, and of nothing else.
    """

    def role(names: Iterable[str], threshold: int, days: int = _DAYS_DEFAULT) -> dict[str, Any]:
        return {"keys": [*names], "threshold": threshold, "valid_days": days}

    both = {name: role(persons, 2) for name in sorted(roles.TWO_PERSONS)}
    lone = {
        name: role([name], 1, _DAYS.get(name, _DAYS_DEFAULT))
        for name in (roles.SNAPSHOT, roles.TIMESTAMP)
    }
    own = {roles.agency_role(code): role([roles.agency_role(code)], 1) for code in agencies}
    keys = {**persons, roles.SNAPSHOT: snapshot, roles.TIMESTAMP: timestamp}
    keys |= {roles.agency_role(code): key for code, key in agencies.items()}
    document = {
        "keys": {name: public_fields(key) for name, key in keys.items()},
        "roles": {**both, **lone, **own},
    }
    return yaml.safe_dump(document, sort_keys=False).encode()
