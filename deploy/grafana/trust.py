"""Dashboard *Trust*: which hosts are attested, until when, and who has been told of revocations."""

from deploy.grafana.panels import (
    ANY_IS_BAD,
    COUNTED,
    PLAIN,
    Page,
    Row,
    counted,
    lines,
    listing,
    number,
)
from deploy.grafana.sync import VARIABLES, A

FAILURES = "fabric_authority_attestation_failures_total"
TRIES = "fabric_attestation_attempts_total"
R = "[$__rate_interval]"
HOST = "by (agency, instance)"
DAYS = ((None, "red"), (86400, "orange"), (7 * 86400, "green"))
ALIVE = ((None, "red"), (2, "green"))

_STATE = (
    number(
        "Hosts attested",
        'sum(fabric_authority_agents{state="attested"})',
        steps=((None, "red"), (1, "green")),
    ),
    number(
        "Suspended or expired",
        'sum(fabric_authority_agents{state=~"suspended|expired"})',
        steps=ANY_IS_BAD,
    ),
    number("Revoked", 'sum(fabric_authority_agents{state="revoked"})', steps=PLAIN),
    number(
        "Soonest end of a result",
        f"min(fabric_attestation_expiry_timestamp_seconds{{{A}}} - time())",
        unit="s",
        steps=ALIVE,
        text="Results are short on purpose and are renewed at half their life.",
    ),
    number(
        "Policy ends in",
        "min(fabric_policy_expiry_timestamp_seconds) - time()",
        unit="s",
        steps=((None, "red"), (3600, "orange"), (3 * 86400, "green")),
    ),
    number(
        "Oldest heartbeat",
        "max(time() - fabric_revocation_list_timestamp_seconds)",
        unit="s",
        steps=((None, "green"), (10, "orange"), (30, "red")),
        text="How long ago the slowest process heard the authority.",
    ),
)
_ATTESTATION = (
    lines(
        "Life left of each host's result",
        [
            (
                f"max {HOST} (fabric_attestation_expiry_timestamp_seconds{{{A}}} - time())",
                "{{instance}}",
            )
        ],
        unit="s",
        text="A saw: down with time, up with each renewal.",
    ),
    lines(
        "Attestations tried by hosts",
        [
            (
                f"round(sum by (instance, result) (increase({TRIES}{{{A}}}[5m]))) > 0",
                "{{instance}} {{result}}",
            )
        ],
        text="In five minutes.",
    ),
    listing(
        "Hosts",
        [
            ("Host level", f"max {HOST} (fabric_attestation_host_level{{{A}}})", "short"),
            (
                "Age",
                f"max {HOST} (fabric_attestation_lifetime_seconds{{{A}}}"
                f" - (fabric_attestation_expiry_timestamp_seconds{{{A}}} - time()))",
                "s",
            ),
            (
                "Ends in",
                f"max {HOST} (fabric_attestation_expiry_timestamp_seconds{{{A}}} - time())",
                "s",
            ),
            (
                "Approval ends in",
                f"max {HOST} (fabric_approval_expiry_timestamp_seconds{{{A}}} - time())",
                "s",
            ),
            (
                "Policy",
                f'max {HOST} (fabric_policy_version{{{A},role="agent"}})',
                "none",
            ),
            (
                "Last notice",
                f'max {HOST} (fabric_revocation_list_number{{{A},role="agent"}})',
                "none",
            ),
        ],
        labels={"agency": "Agency", "instance": "Host"},
        steps={"Ends in": ALIVE, "Approval ends in": DAYS},
        height=6,
    ),
)
_AUTHORITY = (
    lines(
        "Requests to the authority",
        [
            (
                f"sum by (operation, result) (rate(fabric_authority_requests_total{R})) > 0",
                "{{operation}} {{result}}",
            )
        ],
        unit="reqps",
    ),
    lines(
        "Time to answer, p99",
        [
            (
                "histogram_quantile(0.99, sum by (operation, le) (rate("
                f'fabric_authority_request_duration_seconds_bucket{{operation=~"challenge|attest"}}{R})))',
                "{{operation}}",
            )
        ],
        unit="s",
    ),
    lines(
        "Attestations refused, by reason",
        [
            (
                counted(FAILURES, "", by="role", why="reason", span="30m"),
                "{{role}} {{reason}}",
            )
        ],
        calcs=COUNTED,
        text="In thirty minutes.",
    ),
    lines(
        "Hosts by state",
        [("sum by (state) (fabric_authority_agents)", "{{state}}")],
    ),
)
_SPREAD = (
    lines(
        "Last notice known, by process",
        [("max by (instance) (fabric_revocation_list_number)", "{{instance}}")],
        text="Suspensions, revocations, reinstatements; a line below the others lags.",
    ),
    lines(
        "Notices published",
        [("sum by (kind) (fabric_authority_notices_total)", "{{kind}}")],
    ),
    lines(
        "Age of the last heartbeat, by process",
        [("max by (instance) (time() - fabric_revocation_list_timestamp_seconds)", "{{instance}}")],
        unit="s",
    ),
    lines(
        "Platform certificates end in",
        [
            (
                "min by (instance) (fabric_certificate_expiry_timestamp_seconds - time())",
                "{{instance}}",
            )
        ],
        unit="s",
    ),
)

PAGE = Page(
    name="trust",
    title="Fabric / Trust",
    description="Attestation by host, expiries, the authority, revocations.",
    variables=VARIABLES,
    rows=(
        Row(title="State", panels=_STATE),
        Row(title="Attestation", panels=_ATTESTATION),
        Row(title="The authority", panels=_AUTHORITY),
        Row(title="Revocations and expiries", panels=_SPREAD),
    ),
)
