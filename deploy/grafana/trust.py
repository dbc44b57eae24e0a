"""Dashboard *Trust*: which hosts are attested, who knows of revocations, what was audited."""

from deploy.grafana.panels import (
    ANY_IS_BAD,
    COUNTED,
    LEAST,
    NOT_ALL_IS_BAD,
    PLAIN,
    Page,
    Row,
    counted,
    lines,
    listing,
    number,
)
from deploy.grafana.sync import PROCESS, VARIABLES, A, F

FAILURES = "fabric_authority_attestation_failures_total"
TRIES = "fabric_attestation_attempts_total"
KNOWN = "fabric_revocation_list_number"
TICK = "fabric_revocation_list_timestamp_seconds"
UNWRITTEN = "fabric_audit_write_failures_total"
UNSIGNED = "fabric_audit_unsigned_lines"
UNUSED = "fabric_policy_refresh_failures_total"
RECEIPTS = "fabric_receipts_total"
LEFT = f"fabric_attestation_expiry_timestamp_seconds{{{A}}} - time()"
R = "[$__rate_interval]"
HOST = "by (agency, instance)"
DAYS = ((None, "red"), (86400, "orange"), (7 * 86400, "green"))
WEEKS = ((None, "red"), (7 * 86400, "orange"), (30 * 86400, "green"))
RENEWED = ((None, "red"), (3600, "orange"), (6 * 3600, "green"))
ALIVE = ((None, "red"), (2, "green"))
HEARD = ((None, "green"), (10, "orange"), (30, "red"))

_STATE = (
    number(
        "Hosts attested",
        'sum(fabric_authority_agents{state="attested"})',
        steps=NOT_ALL_IS_BAD,
        width=3,
        none="no authority",
        text="Under a result that is in the log and an approval that holds.",
    ),
    number(
        "Not trusted",
        'sum(fabric_authority_agents{state=~"unpublished|not_approved|suspended|expired"})',
        steps=ANY_IS_BAD,
        width=3,
        text="Suspended, expired, approved no more, or with a result that no gateway took.",
        none="no authority",
        alerts=("HostNotTrusted",),
    ),
    number(
        "Revoked",
        'sum(fabric_authority_agents{state="revoked"})',
        steps=PLAIN,
        width=3,
        none="no authority",
        text="Hosts that are out for good.",
    ),
    number(
        "A result ends in",
        f"min({LEFT})",
        unit="s",
        steps=ALIVE,
        width=3,
        text="The soonest. Results are short on purpose and are renewed at half their life.",
        none="no agents",
        alerts=("AttestationExpiring",),
    ),
    number(
        "Policy ends in",
        "min(fabric_policy_expiry_timestamp_seconds) - time()",
        unit="s",
        steps=RENEWED,
        width=3,
        text="The authority renews it while half a day is left.",
        alerts=("PolicyExpiring",),
    ),
    number(
        "Signatures end in",
        "min(fabric_policy_signatures_expiry_timestamp_seconds) - time()",
        unit="s",
        steps=WEEKS,
        width=3,
        text="The first signature under the policy that a person must renew.",
        none="no authority",
        alerts=("PolicySignaturesExpiring",),
    ),
    number(
        "Oldest tick",
        f"max(time() - {TICK})",
        unit="s",
        steps=HEARD,
        width=3,
        text="How long ago the slowest process heard the authority.",
        alerts=("RevocationListStale",),
    ),
    number(
        "Audit gaps, 1 h",
        f"round(sum(increase({UNWRITTEN}[1h])))",
        steps=ANY_IS_BAD,
        width=3,
        text="Audit events that happened and were not written.",
        alerts=("AuditGap",),
    ),
)
_NOW = (
    listing(
        "Processes",
        [
            ("Last tick", f"max {PROCESS} (time() - {TICK}{{{A}}})", "s"),
            ("Last notice", f"max {PROCESS} ({KNOWN}{{{A}}})", "none"),
            ("Notices missed", f"scalar(max({KNOWN})) - min {PROCESS} ({KNOWN}{{{A}}})", "none"),
            ("Policy", f"max {PROCESS} (fabric_policy_version{{{A}}})", "none"),
            (
                "Policies missed",
                "scalar(max(fabric_policy_version))"
                f" - min {PROCESS} (fabric_policy_version{{{A}}})",
                "none",
            ),
            (
                "Certificate",
                f"min {PROCESS} (fabric_certificate_expiry_timestamp_seconds{{{A}}} - time())",
                "s",
            ),
            ("Audit gaps, 1 h", f"round(sum {PROCESS} (increase({UNWRITTEN}{{{A}}}[1h])))", "none"),
            (
                "Unsigned lines",
                f"max {PROCESS} (min_over_time({UNSIGNED}{{{A}}}[15m]))",
                "none",
            ),
        ],
        labels={"agency": "Agency", "role": "Role", "instance": "Process"},
        steps={
            "Last tick": HEARD,
            "Notices missed": ANY_IS_BAD,
            "Policies missed": ANY_IS_BAD,
            "Certificate": DAYS,
            "Audit gaps, 1 h": ANY_IS_BAD,
            "Unsigned lines": ANY_IS_BAD,
        },
        worst="Last tick",
        height=8,
        text="Missed is what another process has and this one has not. Certificate: until it ends."
        " Unsigned lines of the audit log: the fewest in fifteen minutes.",
        alerts=(
            "RevocationListStale",
            "RevocationNotEverywhere",
            "PolicyNotEverywhere",
            "CertificateExpiring",
            "AuditGap",
            "AuditUnsigned",
        ),
    ),
    listing(
        "Hosts",
        [
            ("Ends in", f"max {HOST} ({LEFT})", "s"),
            ("Age", f"max {HOST} (fabric_attestation_lifetime_seconds{{{A}}} - ({LEFT}))", "s"),
            ("Host level", f"max {HOST} (fabric_attestation_host_level{{{A}}})", "short"),
            (
                "Approval ends in",
                f"max {HOST} (fabric_approval_expiry_timestamp_seconds{{{A}}} - time())",
                "s",
            ),
        ],
        labels={"agency": "Agency", "instance": "Host"},
        steps={"Ends in": ALIVE, "Approval ends in": DAYS},
        worst="Age",
        height=6,
        text="Of the attestation result. It is renewed at half its life.",
        alerts=("AttestationExpiring", "ApprovalExpiring"),
    ),
)
_ATTESTATION = (
    lines(
        "Life left of each host's result",
        [(f"max {HOST} ({LEFT})", "{{instance}}")],
        unit="s",
        legend=LEAST,
        text="A saw: down with time, up with each renewal.",
        none="no agents",
        alerts=("AttestationExpiring",),
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
        none="none tried",
    ),
    lines(
        "Attestations refused, by reason",
        [
            (
                counted(FAILURES, "", by="role", why="reason", span="30m"),
                "{{role}} {{reason}}",
            )
        ],
        legend=COUNTED,
        text="In thirty minutes.",
        none="no authority",
        alerts=("AttestationRefused",),
    ),
    lines(
        "Hosts by state",
        [("sum by (state) (fabric_authority_agents)", "{{state}}")],
        none="no authority",
        alerts=("HostNotTrusted",),
    ),
)
_SPREAD = (
    lines(
        "Age of the last tick, by process",
        [(f"max by (instance) (time() - ({TICK}{{{A}}} > 0))", "{{instance}}")],
        unit="s",
        text="One comes each second. A process that has heard none since its start has no line.",
        alerts=("RevocationListStale",),
    ),
    lines(
        "Last notice known, by process",
        [(f"max by (instance) ({KNOWN}{{{A}}})", "{{instance}}")],
        legend=LEAST,
        text="Suspensions, revocations, reinstatements; a line below the others lags.",
        alerts=("RevocationNotEverywhere",),
    ),
    lines(
        "Notices published",
        [("sum by (kind) (fabric_authority_notices_total)", "{{kind}}")],
        text="Since the authority started.",
        none="no authority",
    ),
    lines(
        "Policies that could not be used",
        [(f"round(sum by (instance) (increase({UNUSED}{{{A}}}[30m])))", "{{instance}}")],
        legend=COUNTED,
        text="In thirty minutes. The last good one stays in force.",
        alerts=("PolicyRefused",),
    ),
)
_AUDIT = (
    lines(
        "Audit events not written, by process",
        [(f"round(sum by (instance) (increase({UNWRITTEN}{{{A}}}[5m])))", "{{instance}}")],
        legend=COUNTED,
        text="In five minutes. Anything but zero is a hole in an audit log.",
        alerts=("AuditGap",),
    ),
    lines(
        "Audit lines that no published head covers",
        [(f"sum by (instance) ({UNSIGNED}{{{A}}})", "{{instance}}")],
        text="A few for some seconds; a line that stays up means that heads do not arrive.",
        alerts=("AuditUnsigned",),
    ),
    lines(
        "Receipts sent, by reader",
        [
            (
                f'round(sum by (agency, topic) (increase({RECEIPTS}{{{F},outcome="sent"}}[1m])))',
                "{{topic}} at {{agency}}",
            )
        ],
        text="In one minute. A reader that applies and sends none cannot show delivery.",
        none="no receipts are asked for",
    ),
    lines(
        "Receipts lost, by reader",
        [
            (
                f'round(sum by (agency, topic) (increase({RECEIPTS}{{{F},outcome="lost"}}[30m])))',
                "{{topic}} at {{agency}}",
            )
        ],
        legend=COUNTED,
        text="Given up after a minute, in thirty minutes. The next receipt covers them.",
        none="no receipts are asked for",
        alerts=("ReceiptsLost",),
    ),
)
_AUTHORITY = (
    lines(
        "Requests to the authority, per second",
        [
            (
                f"sum by (operation, result) (rate(fabric_authority_requests_total{R})) > 0",
                "{{operation}} {{result}}",
            )
        ],
        unit="none",
        none="no requests",
        alerts=("AuthorityUnavailable",),
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
        none="no requests",
        alerts=("AuthorityUnavailable",),
    ),
)

PAGE = Page(
    name="trust",
    title="Fabric / Trust",
    description="Attestation by host, revocations and expiries by process, audit and receipts.",
    variables=VARIABLES,
    rows=(
        Row(title="State", panels=_STATE),
        Row(title="Now", panels=_NOW),
        Row(title="Attestation", panels=_ATTESTATION),
        Row(title="Revocations and policy", panels=_SPREAD),
        Row(title="Audit and receipts", panels=_AUDIT),
        Row(title="The authority", panels=_AUTHORITY),
    ),
)
