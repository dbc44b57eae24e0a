"""The closed table of APIs: what the gateway offers and serves; absent means refused.

Produce is advertised from 0, because librdkafka looks for 0..2 to know a broker's
features, and capped at 12, because 13 names topics by id. Fetch is advertised and
never served: without it librdkafka takes us for a broker of before 2017 and sends
message sets of magic 0. Transactions, groups, reading and administration are not
here and so do not exist.
Spec: design section 9; notes on ApiVersions (KIP-511).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from types import MappingProxyType

from fabric.model.errors import PeerError, Reason


@unique
class Api(IntEnum):
    """Kafka's API keys that the gateway names in ApiVersions answers."""

    PRODUCE = 0
    FETCH = 1
    METADATA = 3
    API_VERSIONS = 18
    INIT_PRODUCER_ID = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Versions of one API.

    Attributes:
        offered: lowest and highest version in ApiVersions answers.
        lowest: least version that is really served; None: not one is.
        flexible: first version with tagged fields (KIP-482).
    """

    offered: tuple[int, int]
    lowest: int | None
    flexible: int


TABLE: Mapping[Api, Span] = MappingProxyType(
    {
        Api.PRODUCE: Span(offered=(0, 12), lowest=3, flexible=9),
        Api.FETCH: Span(offered=(4, 10), lowest=None, flexible=12),
        Api.METADATA: Span(offered=(0, 12), lowest=0, flexible=9),
        Api.API_VERSIONS: Span(offered=(0, 4), lowest=0, flexible=3),
        Api.INIT_PRODUCER_ID: Span(offered=(0, 5), lowest=0, flexible=2),
    }
)


def served(api: int, version: int) -> Api:
    """The API, if this version of it is served.

    ApiVersions is always served: a version beyond the table is answered in version 0
    with UNSUPPORTED_VERSION.

    Raises:
        PeerError: API_REFUSED.
    """
    try:
        known = Api(api)
    except ValueError as exc:
        raise PeerError(Reason.API_REFUSED, f"API {api} is not served here") from exc
    span = TABLE[known]
    if known is Api.API_VERSIONS:
        return known
    if span.lowest is None or not span.lowest <= version <= span.offered[1]:
        raise PeerError(Reason.API_REFUSED, f"version {version} of {known.name} is not served here")
    return known


def is_flexible(api: Api, version: int) -> bool:
    """Whether this version has tagged fields and compact lengths."""
    return version >= TABLE[api].flexible


def intersect(offered: Mapping[int, tuple[int, int]]) -> dict[Api, tuple[int, int]]:
    """What to advertise in front of a broker that offers `offered` (by API key).

    An API the broker lacks is left out, ApiVersions excepted, which is ours to answer.
    """
    spans: dict[Api, tuple[int, int]] = {}
    for api, span in TABLE.items():
        low, high = (0, span.offered[1]) if api is Api.API_VERSIONS else offered.get(api, (0, -1))
        common = max(low, span.offered[0]), min(high, span.offered[1])
        if common[0] <= common[1]:
            spans[api] = common
    return spans
