"""Who and where: identifiers of agencies, hosts, origins, topics and streams.

Every name is parsed once, at the edge, and refused when it could be read two
ways; the separators `/`, `:` and `.` never occur inside a part.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from fabric.model.errors import Malformed
from fabric.model.limits import AGENCY_CHARS_MAX, NAME_CHARS_MAX, NAMES_REMEMBERED

_AGENCY = re.compile(r"[0-9A-Z]+(\.[0-9A-Z]+)*")
_PART = re.compile(r"[a-z0-9-]+")
_TRUST_DOMAIN = re.compile(r"[a-z0-9.-]+")

_SHOWN_CHARS_MAX = 2 * NAME_CHARS_MAX + AGENCY_CHARS_MAX + len("..")
"""As long as the longest topic."""

MEMBERS = "fabric.members"
RESULTS = "fabric.results"
GRANTS_PREFIX = "fabric.grants."
AUDIT = "fabric.audit"
RECEIPTS = "fabric.receipts"
AUTHORITY = "verifier"
"""Identity under which the authority writes its control records."""
GATEWAY = "gateway"
"""Identity under which gateways sign and the brokers know them."""


def agency_code(text: str) -> str:
    """Check an agency's identifier code (Decision 20/2020/QD-TTg: at most 35 characters)."""
    if len(text) > AGENCY_CHARS_MAX or not _AGENCY.fullmatch(text):
        raise Malformed("agency code must be groups of 0-9A-Z joined by dots")
    return text


def part(text: str) -> str:
    """Check one lower-case name part: system, host, source, level or dataset."""
    if len(text) > NAME_CHARS_MAX or not _PART.fullmatch(text):
        raise Malformed("name must be 1 to 63 characters of a-z, 0-9 and -")
    return text


def piece(text: str) -> str:
    """A name that nobody has checked as a message may show it: quoted, a bounded piece of it."""
    shown = text[:_SHOWN_CHARS_MAX]
    return repr(shown) if shown == text else f"{shown!r}..."


def _three(text: str) -> tuple[str, str, str]:
    parts = text.split("/")
    if len(parts) != 3:
        raise Malformed("identity must have the form agency/system/name")
    return agency_code(parts[0]), part(parts[1]), part(parts[2])


@dataclass(frozen=True, slots=True, order=True)
class HostId:
    """One machine of one approved system: `agency/system/host`."""

    agency: str
    system: str
    host: str

    @classmethod
    @lru_cache(NAMES_REMEMBERED)
    def parse(cls, text: str) -> Self:
        """Read `agency/system/host`; raises Malformed."""
        return cls(*_three(text))

    @classmethod
    def from_spiffe(cls, uri: str, trust_domain: str) -> Self:
        """Read `spiffe://<trust-domain>/agency/system/host`; raises Malformed."""
        prefix = f"spiffe://{trust_domain}/"
        if not _TRUST_DOMAIN.fullmatch(trust_domain) or not uri.startswith(prefix):
            raise Malformed("SPIFFE id is not of this trust domain")
        return cls.parse(uri[len(prefix) :])

    def __str__(self) -> str:
        return f"{self.agency}/{self.system}/{self.host}"

    def spiffe(self, trust_domain: str) -> str:
        """The SPIFFE id that certificates and headers carry."""
        return f"spiffe://{trust_domain}/{self}"

    @property
    def principal(self) -> str:
        """Kafka's principal name (without `User:`), as the broker maps the subject."""
        return f"{self.agency}:{self.system}:{self.host}"


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """One source of rows of one system: `agency/system/source`, never a host."""

    agency: str
    system: str
    source: str

    @classmethod
    @lru_cache(NAMES_REMEMBERED)
    def parse(cls, text: str) -> Self:
        """Read `agency/system/source`; raises Malformed."""
        return cls(*_three(text))

    def __str__(self) -> str:
        return f"{self.agency}/{self.system}/{self.source}"


@dataclass(frozen=True, slots=True, order=True)
class Topic:
    """The topic of a dataset: `<level>.<agency>.<dataset>`."""

    level: str
    agency: str
    dataset: str

    @classmethod
    @lru_cache(NAMES_REMEMBERED)
    def parse(cls, text: str) -> Self:
        """Level stands before the first dot, dataset after the last; raises Malformed."""
        level, _, rest = text.partition(".")
        agency, _, dataset = rest.rpartition(".")
        try:
            return cls(part(level), agency_code(agency), part(dataset))
        except Malformed as exc:
            raise Malformed(
                "a topic has the form LEVEL.AGENCY.DATASET, as secret.G01.residents: not"
                f" {piece(text)} ({exc.args[0]})"
            ) from None

    def __str__(self) -> str:
        return f"{self.level}.{self.agency}.{self.dataset}"


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """One partition of one dataset, as one origin fills it."""

    origin: Origin
    topic: Topic
    partition: int

    def __str__(self) -> str:
        return f"{self.origin}@{self.topic}:{self.partition}"


def grants_topic(topic: Topic) -> str:
    """The control topic that carries epoch starts and wraps of `topic`."""
    return f"{GRANTS_PREFIX}{topic}"
