import pytest

from fabric.gateway.apis import TABLE, Api, intersect, is_flexible, served
from fabric.model.errors import PeerError, Reason

SERVED = (
    {(0, version) for version in range(3, 13)}
    | {(3, version) for version in range(13)}
    | {(22, version) for version in range(6)}
)


def is_served(api: int, version: int) -> bool:
    try:
        served(api, version)
    except PeerError as exc:
        return exc.reason is not Reason.API_REFUSED
    return True


def test_exactly_these_versions_are_served_and_their_complement_is_not() -> None:
    found = {
        (api, version)
        for api in range(-1, 100)
        for version in range(-2, 30)
        if api != 18 and is_served(api, version)
    }
    assert found == SERVED


def test_api_versions_is_served_in_every_version() -> None:
    assert all(served(18, version) is Api.API_VERSIONS for version in range(30))


def test_produce_is_offered_from_0_and_fetch_only_offered() -> None:
    assert TABLE[Api.PRODUCE].offered == (0, 12)
    assert TABLE[Api.FETCH].lowest is None


def test_only_what_the_broker_has_too_is_offered() -> None:
    brokers = {0: (3, 11), 1: (4, 17), 3: (0, 13), 18: (9, 9), 24: (0, 5), 36: (0, 2)}
    assert intersect(brokers) == {
        Api.PRODUCE: (3, 11),
        Api.FETCH: (4, 10),
        Api.METADATA: (0, 12),
        Api.API_VERSIONS: (0, 4),
    }


@pytest.mark.parametrize(("api", "first"), [(0, 9), (3, 9), (18, 3), (22, 2)])
def test_flexible_versions_begin_where_kafka_says(api: int, first: int) -> None:
    assert [is_flexible(Api(api), v) for v in (first - 1, first)] == [False, True]
