"""Every metric of the fabric: with metrics_audit.py and metrics_lag.py all that names one.

Each role has a class with a registry of its own. Labels come from closed sets.
Counters and histograms begin at zero as soon as their labels are known, so that a zero
is a zero and not an absence. No label holds a user, a record key or free text; `agency`,
`role` and `instance` are the scraper's to add. Counters of seconds and bytes are base units.
"""

from collections.abc import Collection
from contextlib import AbstractContextManager
from datetime import datetime
from itertools import product

from prometheus_client import CollectorRegistry

from fabric.families import Parts, Waiting, collecting, one_of, start
from fabric.metrics_audit import AuditFamilies
from fabric.metrics_lag import LagFamilies
from fabric.model.errors import Reason, ReasonClass, class_of
from fabric.model.limits import EPOCH_AGE_S_MAX
from fabric.model.names import Topic
from fabric.policy.types import LevelRule
from fabric.seal.suites import SUITES

OUTCOMES = ("applied", "duplicate", "quarantined")
"""What applying did with changes; `duplicate` counts whole blocks a reader dropped."""
BLOCK_OUTCOMES = OUTCOMES[:2]
OPERATIONS = ("enrol", "activate", "challenge", "attest", "notices")
RESULTS = ("ok", "refused", "unavailable")
ATTESTATIONS = ("attested", "refused", "unavailable")
NOTICES = ("suspension", "revocation", "reinstatement")
AGENT_STATES = ("attested", "not_approved", "unpublished", "suspended", "revoked", "expired")
GATEWAY_APIS = ("api_versions", "metadata", "produce", "init_producer_id", "other")
_DENIALS = "schema_unknown suite_refused level_too_low clearance_too_low not_a_producer"
RECORD_REASONS = tuple(
    reason
    for reason in Reason
    if class_of(reason) in (ReasonClass.NEVER, ReasonClass.RESEAL)
    or reason in (*_DENIALS.split(), "not_attested", "host_suspended", "host_revoked", "too_large")
)
"""Reasons whose counters exist from the start; others appear with their first case."""
CUTS = (
    *("connections", "handshakes", "handshake", "frame_time"),
    *(Reason.IDENTITY_MISMATCH, Reason.API_REFUSED, Reason.MALFORMED, Reason.OVERLOADED),
    *(Reason.BROKER_UNAVAILABLE, Reason.NOT_READY, Reason.INTERNAL),
)
"""Limits that end a connection, and reasons that do; another reason appears with its first case."""
PARTS = (
    *("policy", "members", "broker", "gateway", "attestation", "view", "ticks", "trust"),
    *("anchor", "silence", "ledger"),
    *("capture", "publish", "apply", "stream", "grants", "quarantine", "other"),
)
"""Kinds of parts that /readyz names; the kind is the first word of a part's name."""
_DATASET = ("topic", "level")
_BLOCK_S = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 1)
_STORE_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10)
_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_WAY_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)


class _Role(AuditFamilies):
    """What every process shows: its build, policy, revocations and audit log."""

    def __init__(self) -> None:
        super().__init__()
        self._info("build", "Build of this process.", suites=" ".join(SUITES))
        self._policy = self._gauge("policy_version", "Version of the policy in force.")
        self._policy_end = self._gauge("policy_expiry_timestamp_seconds", "End of the policy.")
        self._policy_failures = self._counter(
            "policy_refresh_failures_total", "Published policies that could not be used."
        )
        self._revocation = self._gauge("revocation_list_number", "Last notice known here.")
        self._heartbeat = self._gauge(
            "revocation_list_timestamp_seconds", "Last heartbeat of the authority seen here."
        )
        self._heartbeat.set_to_current_time()  # who has heard none yet has waited since its start

    def certificate(self, expires: datetime) -> None:
        """The platform's certificate of this process ends then; call once, hosts have none."""
        text = "End of this process's own certificate."
        self._gauge("certificate_expiry_timestamp_seconds", text).set(expires.timestamp())

    def policy(self, number: int, expires: datetime) -> None:
        """The policy in force."""
        self._policy.set(number)
        self._policy_end.set(expires.timestamp())

    def policy_refused(self) -> None:
        """A published policy could not be used."""
        self._policy_failures.inc()

    def revocations(self, number: int, heartbeat: datetime | None) -> None:
        """The view of the members: last contiguous notice, last heartbeat."""
        self._revocation.set(number)
        if heartbeat is not None:
            self._heartbeat.set(heartbeat.timestamp())


class AgentMetrics(_Role, LagFamilies):
    """The agent: capture, seal, open, apply, lag, trust.

    Args:
        rules: of the policy's levels. The label `suite` is empty for the open form.
    """

    def __init__(self, rules: Collection[LevelRule]) -> None:
        super().__init__()
        self._suites: dict[Topic, str] = {}
        self._make_seal_and_open()
        self._make_capture()
        self._make_apply()
        self._make_trust()
        pairs = [(rule.name, suite) for rule in rules for suite in rule.suites or ("",)]
        for family in (self._seal_s, self._open_s):
            start(family, pairs)
        start(self._attestations, [(result,) for result in ATTESTATIONS])

    def publishes(self, topic: Topic, suite: str, source: str) -> None:
        """This agent is to publish a dataset of a source: its counters begin at zero."""
        self._suites[topic] = suite
        place = (str(topic), topic.level)
        for family in self._sealed:
            start(family, [(*place, suite)])
        for family in self._refused:
            start(family, ((*place, suite, reason) for reason in RECORD_REASONS))
        start(self._captured, [(source, topic.level)])
        start(self._produce_s, (place,))
        if suite:
            start(self._epoch, (place,))
            start(self._served, (place,))
            self.may_grant(topic)

    def reads(self, topic: Topic, suite: str) -> None:
        """This agent is to read a dataset: its counters begin at zero."""
        self._suites[topic] = suite
        place = (str(topic), topic.level)
        for family in self._opened:
            start(family, [(*place, suite)])
        start(self._applied, ((*place, suite, outcome) for outcome in OUTCOMES))
        start(self._applied_blocks, ((*place, suite, outcome) for outcome in BLOCK_OUTCOMES))
        for family in self._rejected:
            start(family, ((*place, suite, reason) for reason in RECORD_REASONS))
        start(self._end_to_end, (place,))
        start(self._apply_s, (place,))

    def _make_seal_and_open(self) -> None:
        labels, refusal = (*_DATASET, "suite"), (*_DATASET, "suite", "reason")
        self._sealed = (
            self._counter("sealed_records_total", "Changes acknowledged in blocks.", labels),
            self._counter("sealed_blocks_total", "Blocks acknowledged.", labels),
            self._counter("sealed_plaintext_bytes_total", "Their plaintext.", labels),
            self._counter("sealed_bytes_total", "Their envelopes.", labels),
        )
        self._opened = (
            self._counter("opened_records_total", "Changes opened and verified.", labels),
            self._counter("opened_blocks_total", "Blocks opened and verified.", labels),
            self._counter("opened_bytes_total", "Envelopes opened and verified.", labels),
        )
        self._seal_s = self._histogram("seal_duration_seconds", "Per block.", labels[1:], _BLOCK_S)
        self._open_s = self._histogram("open_duration_seconds", "Per block.", labels[1:], _BLOCK_S)
        self._rejected = (
            self._counter("rejected_records_total", "Records read and not taken.", refusal),
            self._counter("rejected_rows_total", "Rows that verified ones name.", refusal),
        )
        self._refused = (
            self._counter("refused_blocks_total", "Own blocks that were refused.", refusal),
            self._counter("refused_rows_total", "Row changes in them.", refusal),
        )

    def _make_capture(self) -> None:
        self._captured = self._counter(
            "capture_changes_total", "Changes of a source acknowledged.", ("source", "level")
        )
        self._produce_s = self._histogram(
            "produce_duration_seconds", "Sent to acknowledged.", _DATASET, _STORE_S
        )

    def _make_apply(self) -> None:
        effect = (*_DATASET, "suite", "outcome")
        self._applied = self._counter("applied_records_total", "Effect on the target.", effect)
        self._applied_blocks = self._counter(
            "applied_blocks_total", "Blocks applied, and dropped as duplicates.", effect
        )
        self._apply_s = self._histogram(
            "apply_duration_seconds", "One transaction of the target.", _DATASET, _STORE_S
        )
        self._end_to_end = self._histogram(
            "end_to_end_latency_seconds", "Source commit to local commit.", _DATASET, _WAY_S
        )

    def _make_trust(self) -> None:
        self._expiry = self._gauge("attestation_expiry_timestamp_seconds", "End of the result.")
        self._lifetime = self._gauge("attestation_lifetime_seconds", "Its life; renewed at half.")
        self._level = self._gauge("attestation_host_level", "Effective level, 1 to 5; 0: none.")
        self._approval = self._gauge("approval_expiry_timestamp_seconds", "End of the approval.")
        self._attestations = self._counter("attestation_attempts_total", "Tries.", ("result",))
        self._epoch = self._gauge("key_epoch", "Number of the epoch.", _DATASET)
        self._epoch_start = self._gauge("key_epoch_start_timestamp_seconds", "Its begin.", _DATASET)
        self._served = self._gauge("key_epoch_recipients", "Hosts it is granted to.", _DATASET)
        age = self._gauge("key_epoch_max_age_seconds", "Age at which an epoch is replaced.")
        age.set(EPOCH_AGE_S_MAX)

    def sealed(
        self, topic: Topic, suite: str, *, changes: int, plaintext_bytes: int, sealed_bytes: int
    ) -> None:
        """One block was acknowledged; `suite` is empty for the open form."""
        amounts = (changes, 1, plaintext_bytes, sealed_bytes)
        for family, amount in zip(self._sealed, amounts, strict=True):
            family.labels(str(topic), topic.level, suite).inc(amount)

    def seal_took(self, level: str, suite: str, seconds: float) -> None:
        """Sealing one block took so long, whatever came of it."""
        self._seal_s.labels(level, suite).observe(seconds)

    def opened(
        self, topic: Topic, suite: str, *, changes: int, sealed_bytes: int, seconds: float
    ) -> None:
        """One block was verified and opened, and that took so long."""
        for family, amount in zip(self._opened, (changes, 1, sealed_bytes), strict=True):
            family.labels(str(topic), topic.level, suite).inc(amount)
        self._open_s.labels(topic.level, suite).observe(seconds)

    def rejected(self, topic: Topic, reason: Reason, rows: int = 0) -> None:
        """One record was read and not taken; it has so many rows, where that is known."""
        for family, amount in zip(self._rejected, (1, rows), strict=True):
            family.labels(*self._place(topic), reason.value).inc(amount)

    def refused(self, topic: Topic, reason: Reason, rows: int = 0) -> None:
        """One block of ours, of so many row changes, was refused."""
        for family, amount in zip(self._refused, (1, rows), strict=True):
            family.labels(*self._place(topic), reason.value).inc(amount)

    def applied(self, topic: Topic, outcome: str, count: int = 1) -> None:
        """Changes had an effect on the target; `outcome` is one of OUTCOMES."""
        known = one_of(outcome, OUTCOMES)
        self._applied.labels(*self._place(topic), known).inc(count)

    def applied_block(self, topic: Topic, outcome: str) -> None:
        """What became of a whole block; `outcome` is one of BLOCK_OUTCOMES."""
        known = one_of(outcome, BLOCK_OUTCOMES)
        self._applied_blocks.labels(*self._place(topic), known).inc()

    def _place(self, topic: Topic) -> tuple[str, str, str]:
        """Labels of a dataset; the suite is the policy's, which no record can choose."""
        return str(topic), topic.level, self._suites.get(topic, "")

    def produce_took(self, topic: Topic, seconds: float) -> None:
        """A block was sent and acknowledged, and that took so long."""
        self._produce_s.labels(str(topic), topic.level).observe(seconds)

    def apply_took(self, topic: Topic, seconds: float) -> None:
        """The target took a block, and that took so long."""
        self._apply_s.labels(str(topic), topic.level).observe(seconds)

    def captured(self, source: str, level: str, count: int) -> None:
        """Changes of a source were acknowledged."""
        self._captured.labels(source, level).inc(count)

    def end_to_end(self, topic: Topic, seconds: float) -> None:
        """A change took so long from source commit to local commit."""
        self._end_to_end.labels(str(topic), topic.level).observe(max(0.0, seconds))

    def attested(self, level: int, issued: datetime, expires: datetime) -> None:
        """The host's result: effective level, from when to when."""
        self._level.set(level)
        self._expiry.set(expires.timestamp())
        self._lifetime.set((expires - issued).total_seconds())

    def approved_until(self, expires: datetime) -> None:
        """The host's approval ends then."""
        self._approval.set(expires.timestamp())

    def attestation(self, result: str) -> None:
        """An attestation was tried; `result` is one of ATTESTATIONS."""
        self._attestations.labels(one_of(result, ATTESTATIONS)).inc()

    def epoch(self, topic: Topic, number: int, started: datetime) -> None:
        """Our current epoch of a topic."""
        self._epoch.labels(str(topic), topic.level).set(number)
        self._epoch_start.labels(str(topic), topic.level).set(started.timestamp())

    def epoch_serves(self, topic: Topic, hosts: int) -> None:
        """So many hosts have a grant of our current epoch."""
        self._served.labels(str(topic), topic.level).set(hosts)

    def forget_epoch(self, topic: Topic) -> None:
        """A topic has no current epoch of ours any more."""
        for family in (self._epoch, self._epoch_start, self._served):
            family.remove(str(topic), topic.level)


class GatewayMetrics(_Role):
    """The gateway: requests, verdicts, connections; `rules` are of the policy's levels."""

    def __init__(self, rules: Collection[LevelRule]) -> None:
        super().__init__()
        levels = [rule.name for rule in rules]
        self._requests = self._counter("gateway_requests_total", "Requests.", ("api", "outcome"))
        self._request_s = self._histogram(
            "gateway_request_duration_seconds", "Request to answer.", ("api",), _REQUEST_S
        )
        self._admitted = self._counter("gateway_admitted_records_total", "Forwarded.", ("level",))
        self._denied = self._counter(
            "gateway_denied_total", "Records refused.", ("level", "reason")
        )
        self._connections = self._gauge("gateway_connections", "Open connections.")
        self._cut = self._counter(
            "gateway_cut_connections_total", "Connections cut by a limit.", ("limit",)
        )
        start(self._requests, product(GATEWAY_APIS, ("ok", "refused")))
        start(self._request_s, ((api,) for api in GATEWAY_APIS))
        start(self._admitted, ((level,) for level in (*levels, "")))
        start(self._cut, ((limit,) for limit in CUTS))
        start(self._denied, product((*levels, ""), RECORD_REASONS))

    def request(self, api: str, *, is_ok: bool, seconds: float) -> None:
        """One request was answered; `api` outside GATEWAY_APIS counts as `other`."""
        known = api if api in GATEWAY_APIS else "other"
        self._requests.labels(known, "ok" if is_ok else "refused").inc()
        self._request_s.labels(known).observe(seconds)

    def admitted(self, level: str, records: int) -> None:
        """Records were forwarded."""
        self._admitted.labels(level).inc(records)

    def denied(self, level: str, reason: Reason) -> None:
        """One record was refused; `level` is empty when its topic is in no policy."""
        self._denied.labels(level, reason.value).inc()

    def connections(self, number: int) -> None:
        """Open connections now."""
        self._connections.set(number)

    def cut(self, limit: str) -> None:
        """A connection was cut by a limit, named by a fixed word of the gateway's code."""
        self._cut.labels(limit).inc()


class AuthorityMetrics(_Role):
    """The authority: requests, verdicts, the fleet."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = self._counter(
            "authority_requests_total", "Requests by operation.", ("operation", "result")
        )
        self._request_s = self._histogram(
            "authority_request_duration_seconds", "Request to answer.", ("operation",), _REQUEST_S
        )
        self._failures = self._counter(
            "authority_attestation_failures_total", "Attestations refused.", ("reason",)
        )
        self._agents = self._gauge("authority_agents", "Hosts by their state now.", ("state",))
        self.signatures = self._gauge(
            "policy_signatures_expiry_timestamp_seconds", "End of the first signature by a person."
        )
        self._notices = self._counter(
            "authority_notices_total", "Suspensions, revocations, reinstatements.", ("kind",)
        )
        start(self._requests, product(OPERATIONS, RESULTS))
        start(self._request_s, ((operation,) for operation in OPERATIONS))
        start(self._failures, ((reason,) for reason in Reason))
        start(self._agents, ((state,) for state in AGENT_STATES))
        start(self._notices, ((kind,) for kind in NOTICES))

    def request(self, operation: str, result: str, seconds: float) -> None:
        """One request was answered: `ok`, `refused` or `unavailable`."""
        known = one_of(operation, OPERATIONS)
        self._requests.labels(known, one_of(result, RESULTS)).inc()
        self._request_s.labels(known).observe(seconds)

    def attestation_refused(self, reason: Reason) -> None:
        """One attestation was refused."""
        self._failures.labels(reason.value).inc()

    def hosts(self, state: str, number: int) -> None:
        """Hosts in a state, one of AGENT_STATES; a notice counts as soon as it is kept."""
        self._agents.labels(one_of(state, AGENT_STATES)).set(number)

    def notice(self, kind: str) -> None:
        """A numbered notice was published."""
        self._notices.labels(one_of(kind, NOTICES)).inc()


def watching(registry: CollectorRegistry, parts: Parts) -> AbstractContextManager[None]:
    """Show how many parts of a process cannot go on, by kind, while the block runs."""
    text = "Parts that cannot go on; /readyz says why."
    return collecting(registry, Waiting("fabric_parts_waiting", text, PARTS, parts))
