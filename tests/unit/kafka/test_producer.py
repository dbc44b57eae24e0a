"""What a failed append means, by what aiokafka raised and the gateway says."""

import ssl
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    PolicyViolationError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownError,
    UnknownTopicOrPartitionError,
)

from fabric.kafka import producer as producers
from fabric.kafka.producer import ReasonOf, TopicProducer, _stored, reason_of_failure, refusal
from fabric.model.errors import (
    DeniedError,
    FabricError,
    PeerError,
    Reason,
    ReasonClass,
    UnavailableError,
    class_of,
)
from fabric.ports import Stored

ITEMS = [(None, b"value"), (None, b"another")]
FAMILY: dict[ReasonClass, type[FabricError]] = {
    ReasonClass.WAIT: UnavailableError,
    ReasonClass.HOLD: DeniedError,
    ReasonClass.RESEAL: DeniedError,
    ReasonClass.NEVER: PeerError,
}


async def why(error: Exception, ask: ReasonOf | None = None) -> FabricError:
    return await reason_of_failure(error, "secret.G01.notes", 0, items=ITEMS, ask=ask)


def telling(reason: Reason | None) -> ReasonOf:
    async def ask(topic: str, partition: int, digest: bytes) -> Reason | None:
        assert (topic, partition, len(digest)) == ("secret.G01.notes", 0, 32)
        return reason

    return ask


@pytest.mark.parametrize("reason", list(Reason))
def test_the_reasons_class_chooses_the_family(reason: Reason) -> None:
    assert type(refusal(reason, "why")) is FAMILY[class_of(reason)]


@pytest.mark.parametrize("error", [PolicyViolationError(), UnknownError()])
async def test_a_refusal_has_the_gateways_reason(error: Exception) -> None:
    found = await why(error, telling(Reason.BAD_SIGNATURE))
    assert (type(found), found.reason) == (PeerError, Reason.BAD_SIGNATURE)


@pytest.mark.parametrize("error", [PolicyViolationError(), UnknownError()])
async def test_a_refusal_without_a_reason_is_tried_again(error: Exception) -> None:
    for ask in (None, telling(None)):
        found = await why(error, ask)
        assert (type(found), found.reason) == (UnavailableError, Reason.GATEWAY_UNAVAILABLE)


async def test_a_refusal_log_that_fails_is_no_reason() -> None:
    async def ask(topic: str, partition: int, digest: bytes) -> Reason | None:
        raise UnavailableError(Reason.AUTHORITY_UNAVAILABLE, "does not answer")

    assert (await why(PolicyViolationError(), ask)).reason is Reason.GATEWAY_UNAVAILABLE


async def test_waiting_gateways_are_asked_what_they_wait_for() -> None:
    found = await why(RequestTimedOutError(), telling(Reason.MEMBERS_STALE))
    assert (type(found), found.reason) == (UnavailableError, Reason.MEMBERS_STALE)


@pytest.mark.parametrize("error", [KafkaConnectionError(), KafkaTimeoutError(), TimeoutError()])
async def test_an_outage_leaves_the_outcome_unknown(error: Exception) -> None:
    found = await why(error, telling(Reason.BAD_SIGNATURE))
    assert (type(found), found.reason) == (UnavailableError, Reason.GATEWAY_UNAVAILABLE)


async def test_codes_that_say_enough_need_no_question() -> None:
    assert (await why(MessageSizeTooLargeError())).reason is Reason.TOO_LARGE
    assert (await why(TopicAuthorizationFailedError())).reason is Reason.NOT_A_PRODUCER
    missing = await why(UnknownTopicOrPartitionError())
    assert (type(missing), missing.reason) == (UnavailableError, Reason.NOT_READY)


def answer(
    code: int, topic: str = "t", partition: int = 0, *, appended: int = -1
) -> SimpleNamespace:
    return SimpleNamespace(topics=[(topic, [(partition, code, 41, appended, 0, [], None)])])


def test_an_answer_is_the_first_records_offset_or_the_error_that_it_names() -> None:
    assert _stored(answer(0), "t", 0) == Stored(offset=41, at=None)
    for code, error in {
        6: NotLeaderForPartitionError,
        7: RequestTimedOutError,
        29: TopicAuthorizationFailedError,
        44: PolicyViolationError,
        9999: UnknownError,
    }.items():
        with pytest.raises(error):
            _stored(answer(code), "t", 0)


@pytest.mark.parametrize(
    ("appended", "at"),
    [
        (1_500, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        (-1, None),
        (2**63 - 1, None),
    ],
)
def test_an_answer_says_when_by_the_brokers_clock(appended: int, at: datetime | None) -> None:
    assert _stored(answer(0, appended=appended), "t", 0).at == at


@pytest.mark.parametrize("found", [answer(0, "u"), answer(0, partition=1), answer(0)])
def test_an_answer_for_another_place_is_none(found: SimpleNamespace) -> None:
    with pytest.raises(KafkaError, match="another partition"):
        _stored(found, "t", 2)


class Client:
    """Stands for aiokafka's: a leader once it was asked for, and the answers in their order."""

    def __init__(self, *answers: object) -> None:
        self.answers = [*answers]
        self.asked = self.sent = 0
        self.unauthorized_topics: set[str] = set()
        self.cluster = self

    def leader_for_partition(self, place: object) -> int | None:
        return 7 if self.asked else None

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0}

    def add_topic(self, topic: str) -> None:
        """Its metadata are asked for anyway."""

    async def force_metadata_update(self) -> None:
        self.asked += 1

    async def send(self, leader: int, request: object) -> Any:
        assert leader == 7
        self.sent += 1
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(told, Exception):
            raise told
        return told


async def through(client: Client) -> Stored:
    context = ssl.create_default_context()
    made = TopicProducer("t", ["127.0.0.1:1"], context, client_id="test")
    made._client = client
    return await made.send(0, [(None, b"value")])


async def test_a_batch_that_met_no_leader_is_sent_to_the_next_one() -> None:
    """A topic is new, or its leader moves: nobody need hear of it."""
    client = Client(answer(6), answer(5), answer(3), answer(0))
    assert (await through(client)).offset == 41
    assert (client.sent, client.asked) == (4, 4)


async def test_no_leader_is_looked_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producers, "_ATTEMPT_S_MAX", 0.3)
    client = Client(answer(6))
    with pytest.raises(NotLeaderForPartitionError):
        await through(client)
    assert 2 <= client.sent <= 5


@pytest.mark.parametrize("code", [7, 44, 87])
async def test_every_other_error_is_the_callers_at_once(code: int) -> None:
    client = Client(answer(code), answer(0))
    with pytest.raises(KafkaError):
        await through(client)
    assert client.sent == 1


async def test_no_answer_is_told_apart_from_one_that_says_too_late() -> None:
    with pytest.raises(TimeoutError):
        await through(Client(RequestTimedOutError()))
