"""From an agent's pages and its configuration to what a person wants to know of each dataset.

Pure: a page of fabric.cli.samples comes in, rows go out. The names of parts are the
agent's status board's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fabric.cli.measuring import Measured, of_all, of_capture, of_partition
from fabric.cli.remedies import remedy_of
from fabric.cli.samples import Page, Samples
from fabric.config import AgentConfig
from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.names import HostId, Topic
from fabric.policy.types import Dataset, Policy

BEHIND_S = 60.0
"""Lag from which a dataset counts as unhealthy, seconds."""
_STARTING = f"{Reason.NOT_READY}: starting"
_REASONS = frozenset(reason.value for reason in Reason)
_HOST_PARTS = ("attestation", "policy", "view", "start")


class Way(StrEnum):
    """What this host does with a dataset."""

    SENDS = "sends"
    APPLIES = "applies"


class State(StrEnum):
    """How a dataset fares on this host, best first."""

    IN_STEP = "in_step"
    CATCHING_UP = "catching_up"
    COPYING = "copying"
    STARTING = "starting"
    BEHIND = "behind"
    UNMEASURED = "unmeasured"
    INCOMPLETE = "incomplete"
    QUARANTINE = "quarantine"
    SILENT = "silent"
    WAITING = "waiting"
    HELD = "held"
    STOPPED = "stopped"


HEALTHY = frozenset({State.IN_STEP, State.CATCHING_UP, State.COPYING})
_BY_CLASS = {
    ReasonClass.WAIT: State.WAITING,
    ReasonClass.RESEAL: State.WAITING,
    ReasonClass.HOLD: State.HELD,
    ReasonClass.NEVER: State.STOPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One dataset that this host sends or applies, as configuration and policy say.

    Attributes:
        source: name of the capture; empty for applies.
        number: of the `[[apply]]`, from 0; 0 for captures.
        table: in the local database.
        sealed: None while the policy does not say.
        peers: names of the other agencies: who may have it, or who sends it.
        from_join: a consumer gets what was sent since it was named, and nothing older.
    """

    topic: Topic
    way: Way
    source: str
    number: int
    table: str
    sealed: bool | None
    suite: str
    partitions: int
    peers: tuple[str, ...]
    from_join: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with one part, in words, and what to do."""

    part: str
    reason: str
    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One dataset's figures at one moment.

    Attributes:
        rows: acknowledged by the platform, or applied here, since the agent started.
        last_change: when the last change that was moved was committed at its source.
    """

    flow: Flow
    state: State
    rows: int
    lag: Measured
    last_change: datetime | None
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """How far behind one partition is; `partition` is None for a capture, which has none."""

    row: Row
    partition: int | None
    lag: Measured


# What is configured


def flows(config: AgentConfig, policy: Policy | None) -> tuple[Flow, ...]:
    """Every dataset of agent.toml, captures first; a policy that does not load says nothing."""
    found = [
        _flow(Way.SENDS, topic, config.agent.host, policy, source=item.source, table=table)
        for item in config.capture
        for table, topic in item.tables.items()
    ]
    found += [
        _flow(Way.SENDS, topic, config.agent.host, policy, source=config.outbox.source)
        for topic in config.outbox.topics
    ]
    found += [
        _flow(Way.APPLIES, topic, config.agent.host, policy, number=number, table=table)
        for number, item in enumerate(config.apply)
        for topic, table in item.tables.items()
    ]
    return tuple(found)


def _flow(
    way: Way,
    topic: Topic,
    me: HostId,
    policy: Policy | None,
    *,
    source: str = "",
    number: int = 0,
    table: str = "outbox",
) -> Flow:
    dataset = None if policy is None else policy.datasets.get(str(topic))
    rule = None if policy is None else policy.rules.get(topic.level)
    names = {} if policy is None else policy.agencies
    peers = _agencies(way, dataset) if dataset else (topic.agency,)
    return Flow(
        topic=topic,
        way=way,
        source=source,
        number=number,
        table=table,
        sealed=rule.sealed if rule else None,
        suite=dataset.suite if dataset else "",
        partitions=dataset.partitions if dataset else 1,
        peers=tuple(names.get(code, code) for code in peers if code != me.agency),
        from_join=dataset is not None and dataset.history == "from_join",
    )


def _agencies(way: Way, dataset: Dataset) -> tuple[str, ...]:
    """Codes of the agencies at the other end, each once, in the policy's order."""
    if way is Way.SENDS:
        codes = [consumer.partition("/")[0] for consumer in dataset.consumers]
    else:
        codes = [origin.agency for origin in dataset.producers]
    return tuple(dict.fromkeys(codes))


# How it fares

_OF_STREAMS = ("stream ", "anchor ")


def row_of(flow: Flow, page: Page, config: str) -> Row:
    """One dataset's figures.

    Args:
        config: path of agent.toml, for the commands in remedies.
    """
    samples, topic = page.samples, str(flow.topic)
    lag = _lag(flow, page)
    parts = _of_parts(flow, page)
    found = [*parts, *_of_samples(flow, page, lag.seconds, config)]
    if not lag.is_known and not parts:  # a part that says what is wrong knows better
        found.append(_unmeasured(flow, page, lag))
    return Row(
        flow=flow,
        state=_state(found, lag),
        rows=int(_moved(flow, samples)),
        lag=lag,
        last_change=samples.time("last_change_timestamp_seconds", topic=topic, way=flow.way.value),
        problems=tuple(problem for _, problem in found),
    )


def _lag(flow: Flow, page: Page) -> Measured:
    if flow.way is Way.SENDS:
        return of_capture(page, flow.source)
    return of_all(_by_partition(flow, page))


def _moved(flow: Flow, samples: Samples) -> float:
    topic = str(flow.topic)
    if flow.way is Way.SENDS:
        return samples.total("sealed_records_total", topic=topic) or 0
    return samples.total("applied_records_total", topic=topic, outcome="applied") or 0


def lags_of(row: Row, page: Page) -> list[Lag]:
    """A dataset's lag by partition: one for a capture, whose source is one queue."""
    if row.flow.way is Way.SENDS:
        return [Lag(row=row, partition=None, lag=row.lag)]
    lags = enumerate(_by_partition(row.flow, page))
    return [Lag(row=row, partition=number, lag=lag) for number, lag in lags]


def _by_partition(flow: Flow, page: Page) -> list[Measured]:
    """Where a stream stands still, records behind its end are passed over: no figure tells it."""
    return [
        of_partition(page, str(flow.topic), number, is_whole=not _stands_still(flow, page, number))
        for number in range(flow.partitions)
    ]


def _stands_still(flow: Flow, page: Page, number: int) -> bool:
    place = f"@{flow.topic}:{number}"
    return any(
        wrong and part.startswith(_OF_STREAMS) and part.endswith(place)
        for part, wrong in page.parts.items()
    )


def _state(found: Sequence[tuple[State, Problem]], lag: Measured) -> State:
    if found:
        return max((state for state, _ in found), key=[*State].index)
    if lag.rows_left:
        return State.COPYING
    waits = lag.seconds if lag.records is None else lag.records
    return State.IN_STEP if waits == 0 else State.CATCHING_UP


def _of_parts(flow: Flow, page: Page) -> list[tuple[State, Problem]]:
    """What the dataset's own parts say; where one has not begun, what it waits for."""
    mine = _parts(flow, page.parts)
    waits = [part for part, wrong in mine.items() if wrong == _STARTING]
    found = [problem_of(part, wrong) for part, wrong in mine.items() if wrong and part not in waits]
    states = [(_BY_CLASS[class_of(Reason(item.reason))], item) for item in found]
    return states + ([_starting(waits[0], page.parts)] if waits and not found else [])


def _parts(flow: Flow, parts: Mapping[str, str | None]) -> dict[str, str | None]:
    topic = flow.topic
    if flow.way is Way.SENDS:
        must = [f"capture {flow.source}"]
        may = [f"publish {topic}"]
    else:
        tail = f" ({flow.number})" if flow.number else ""
        must = [f"apply {topic}:{number}{tail}" for number in range(flow.partitions)]
        may = [f"grants {topic}", f"quarantine {flow.number}"]
        may += [part for part in parts if part.startswith(_OF_STREAMS) and f"@{topic}:" in part]
    found = {part: parts.get(part, _STARTING) for part in must}
    return found | {part: parts[part] for part in may if part in parts}


def _starting(part: str, parts: Mapping[str, str | None]) -> tuple[State, Problem]:
    for before in _HOST_PARTS:
        wrong = parts.get(before)
        if wrong and wrong != _STARTING:
            cause = problem_of(before, wrong)
            words = f"waits for {before}: {wrong}"
            reason = cause.reason
            return State.STARTING, Problem(
                part=part, reason=reason, wrong=words, remedy=cause.remedy
            )
    return State.STARTING, problem_of(part, _STARTING)


def _of_samples(
    flow: Flow, page: Page, lag_seconds: float | None, config: str
) -> list[tuple[State, Problem]]:
    """What only figures tell: lag, silence, quarantine, rows that may lack."""
    samples, topic, found = page.samples, str(flow.topic), []
    part = f"{'capture' if flow.way is Way.SENDS else 'apply'} {topic}"

    def add(state: State, wrong: str, remedy: str) -> None:
        problem = Problem(part=part, reason=state.value, wrong=wrong, remedy=remedy)
        found.append((state, problem))

    if lag_seconds is not None and lag_seconds >= BEHIND_S:
        remedy = "if it does not shrink, see whether database, network or this host is too slow"
        add(State.BEHIND, f"{lag_seconds:.0f} s behind", remedy)
    if flow.way is Way.SENDS:
        return found
    if parked := int(samples.value("quarantine_records", topic=topic) or 0):
        remedy = f"fabric quarantine list --config {config}, then show, retry or drop"
        add(State.QUARANTINE, f"{parked} changes wait in quarantine", remedy)
    if samples.value("dataset_incomplete", topic=topic):
        wrong = "rows may lack here"
        remedy = "wait for the first copy's end; if a change was dropped, read the dataset anew"
        if flow.from_join:
            wrong += ": nothing from before this host was named is given to it (from_join)"
            remedy = "have the sender send the dataset anew; until then only what came since counts"
        remedy = f"{remedy}; {_PUBLISHED}"
        add(State.INCOMPLETE, wrong, remedy)
    if _is_silent(flow, page):
        who = ", ".join(flow.peers) or "the sender"
        remedy = f"ask {who} whether its agent runs; nobody can tell what was changed since"
        add(State.SILENT, f"{who} has gone silent", remedy)
    return found


_PUBLISHED = (
    "what an application publishes is sent anew by it alone, between SNAPSHOT_BEGIN and"
    " SNAPSHOT_END (docs/api.md)"
)


def _is_silent(flow: Flow, page: Page) -> bool:
    """Whether a stream is silent, as somebody heard who listens still."""
    topic = str(flow.topic)
    return any(
        of_partition(page, topic, number).is_known
        and page.samples.value("stream_silent", topic=topic, partition=str(number))
        for number in range(flow.partitions)
    )


def _unmeasured(flow: Flow, page: Page, lag: Measured) -> tuple[State, Problem]:
    """Nobody knows how far behind a dataset is; that its gauges stand at zero says nothing."""
    sends = flow.way is Way.SENDS
    who = "the source's database does not answer" if sends else "the broker does not answer"
    wrong, remedy = "its lag was not measured yet", f"see fabric doctor: it does not run, or {who}"
    if lag.at is not None:
        age_s = (page.at - lag.at).total_seconds()
        wrong = f"its lag was not measured for {age_s:.0f} s"
        if age_s < 0:
            wrong = (
                f"its lag was measured {-age_s:.0f} s ahead of this machine's clock, which was"
                " ahead then or is behind now"
            )
            remedy = f"set this machine's clock right and wait 10 s; if it stays, {remedy}"
    return State.UNMEASURED, Problem(
        part=f"{'capture' if sends else 'apply'} {flow.topic}",
        reason=State.UNMEASURED.value,
        wrong=wrong,
        remedy=remedy,
    )


# What is wrong with the whole


def problem_of(part: str, wrong: str) -> Problem:
    """A part's condition as /readyz words it, with its remedy."""
    word = wrong.partition(":")[0]
    reason = Reason(word) if word in _REASONS else Reason.INTERNAL
    remedy = remedy_of(reason, wrong)
    return Problem(part=part, reason=reason.value, wrong=wrong, remedy=remedy)


def problems(page: Page, rows: Sequence[Row], now: datetime) -> list[Problem]:
    """Everything that is wrong, host first, each thing once."""
    own = {problem.part for row in rows for problem in row.problems}
    found = [] if page.parts.get("attestation") else _expired(page.samples, now)
    own |= _told_by_samples(rows)
    host = {part: wrong for part, wrong in page.parts.items() if wrong and part not in own}
    found += [problem_of(part, wrong) for part, wrong in host.items() if wrong != _STARTING]
    found += [problem for row in rows for problem in row.problems]
    starting = [problem_of(part, _STARTING) for part in host]
    return [*dict.fromkeys(found or starting)]


def _told_by_samples(rows: Sequence[Row]) -> set[str]:
    """Parts whose dataset says the same by name, after what is wrong on this host."""
    applied = [row.flow for row in rows if row.flow.way is Way.APPLIES]
    return {f"silence {flow.topic}:{n}" for flow in applied for n in range(flow.partitions)}


def _expired(samples: Samples, now: datetime) -> list[Problem]:
    expires = samples.time("attestation_expiry_timestamp_seconds")
    if expires is None or expires > now:
        return []
    return [problem_of("attestation", f"{Reason.RESULT_EXPIRED}: ended at {expires.isoformat()}")]
