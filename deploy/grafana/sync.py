"""Dashboard *Sync*: whether what changes here arrives there, how fast, and what is in the way."""

from deploy.grafana.panels import (
    ANY_IS_BAD,
    COUNTED,
    NOT_ALL_IS_BAD,
    PLAIN,
    Page,
    Row,
    counted,
    lines,
    listing,
    number,
)

F = 'agency=~"$agency",level=~"$level",topic=~"$topic"'
A = 'agency=~"$agency"'
LAG = ((None, "green"), (30, "orange"), (60, "red"))
DATASET = "by (agency, topic)"
SOURCES = "by (agency, source)"
PROCESS = "by (agency, role, instance)"
PARTS = "fabric_parts_waiting"
UP = f'up{{job=~"fabric-.+",{A}}}'
NAMED = "{{topic}} at {{agency}}"

VARIABLES = (
    ("agency", "Agency", 'label_values(up{job=~"fabric-.+"}, agency)'),
    ("level", "Level", "label_values(fabric_consumer_lag_records, level)"),
    ("topic", "Dataset", 'label_values({__name__=~"fabric_(consumer_lag|sealed)_.*"}, topic)'),
)

_STATE = (
    number(
        "Processes down",
        f"sum(1 - {UP})",
        steps=ANY_IS_BAD,
    ),
    number(
        "Parts that wait",
        f"sum({PARTS}{{{A}}})",
        steps=ANY_IS_BAD,
        text="Sources, targets, datasets and views that cannot go on; /readyz says why.",
    ),
    number("Worst lag", f"max(fabric_consumer_lag_seconds{{{F}}})", unit="s", steps=LAG),
    number(
        "Records not applied yet",
        f"sum(fabric_consumer_lag_records{{{F}}})",
        steps=((None, "green"), (1000, "orange")),
    ),
    number(
        "Rows applied",
        f'sum(rate(fabric_applied_records_total{{{F},outcome="applied"}}[$__rate_interval]))',
        unit="rowsps",
        steps=PLAIN,
    ),
    number("In quarantine", f"sum(fabric_quarantine_records{{{F}}})", steps=ANY_IS_BAD),
)


def _parts(kinds: str) -> str:
    return f"sum {PROCESS} ({PARTS}{{{A},part{kinds}}})"


_NOW = (
    listing(
        "Datasets at their readers",
        [
            ("Lag", f"max {DATASET} (fabric_consumer_lag_seconds{{{F}}})", "s"),
            ("Waiting", f"sum {DATASET} (fabric_consumer_lag_records{{{F}}})", "short"),
            (
                "Measured",
                f"time() - min {DATASET} (fabric_consumer_lag_timestamp_seconds{{{F}}})",
                "s",
            ),
            (
                "Last change",
                f"time() - max {DATASET} (fabric_last_change_timestamp_seconds"
                f'{{{F},way="applies"}})',
                "s",
            ),
            (
                "Applied",
                f'sum {DATASET} (fabric_applied_records_total{{{F},outcome="applied"}})',
                "short",
            ),
            ("Quarantine", f"sum {DATASET} (fabric_quarantine_records{{{F}}})", "short"),
            ("Incomplete", f"max {DATASET} (fabric_dataset_incomplete{{{F}}})", "bool_yes_no"),
            ("Silent", f"max {DATASET} (fabric_stream_silent{{{F}}})", "bool_yes_no"),
        ],
        labels={"agency": "Agency", "topic": "Dataset"},
        steps={
            "Lag": LAG,
            "Measured": LAG,
            "Quarantine": ANY_IS_BAD,
            "Incomplete": ANY_IS_BAD,
            "Silent": ANY_IS_BAD,
        },
        worst="Lag",
        text="Lag says nothing once it was measured long ago.",
    ),
    listing(
        "Sources",
        [
            ("Lag", f"max {SOURCES} (fabric_capture_lag_seconds{{{A}}})", "s"),
            ("Log kept", f"max {SOURCES} (fabric_capture_lag_bytes{{{A}}})", "bytes"),
            (
                "Sign of life",
                f"time() - min {SOURCES} (fabric_capture_heartbeat_timestamp_seconds{{{A}}})",
                "s",
            ),
            (
                "Snapshot rows left",
                f"max {SOURCES} (fabric_snapshot_rows_remaining{{{A}}})",
                "short",
            ),
            ("Acknowledged", f"sum {SOURCES} (fabric_capture_changes_total{{{A}}})", "short"),
        ],
        labels={"agency": "Agency", "source": "Source"},
        steps={"Lag": LAG, "Sign of life": LAG},
        worst="Lag",
        height=5,
    ),
    listing(
        "Parts that wait now",
        [
            ("Answers", f"min {PROCESS} ({UP})", "bool_yes_no"),
            (
                "In all",
                f"sum {PROCESS} ({PARTS}{{{A}}}) or sum {PROCESS} (1 - {UP})",
                "short",
            ),
            ("Streams ended", _parts('="stream"'), "short"),
            ("Not anchored", _parts('="anchor"'), "short"),
            ("Silent", _parts('="silence"'), "short"),
            ("No ticks", _parts('="ticks"'), "short"),
            ("Databases", _parts('=~"capture|apply"'), "short"),
            ("Others", _parts('!~"stream|anchor|silence|ticks|capture|apply"'), "short"),
        ],
        labels={"agency": "Agency", "role": "Role", "instance": "Process"},
        steps={
            "Answers": NOT_ALL_IS_BAD,
            **dict.fromkeys(
                (
                    "In all",
                    "Streams ended",
                    "Not anchored",
                    "Silent",
                    "No ticks",
                    "Databases",
                    "Others",
                ),
                ANY_IS_BAD,
            ),
        },
        worst="In all",
        height=8,
        text="/readyz names part and reason. A process that does not answer counts as one.",
    ),
)
_ERRORS = (
    lines(
        "Refused by readers, by dataset and reason",
        [
            (
                counted("fabric_rejected_records_total", F, by="agency, topic", why="reason"),
                "{{topic}} at {{agency}} {{reason}}",
            )
        ],
        legend=COUNTED,
        text="In five minutes; one line without a reason where nothing was refused.",
    ),
    lines(
        "Own blocks refused or put off by the gateway",
        [
            (
                counted("fabric_refused_blocks_total", F, by="agency, topic", why="reason"),
                "{{topic}} {{reason}}",
            )
        ],
        legend=COUNTED,
        text="In five minutes; one line without a reason where nothing was refused.",
    ),
    lines(
        "Parts that wait, by process and kind",
        [
            (
                f"sum by (role, instance, part) ({PARTS}{{{A}}}) > 0"
                f" or sum by (role) ({PARTS}{{{A}}}) == 0",
                "{{role}} {{instance}} {{part}}",
            )
        ],
        legend=COUNTED,
        text="One line of a role alone where nothing waits. /readyz names part and reason.",
    ),
    lines(
        "Dropped as duplicates",
        [
            (
                f"round(sum {DATASET} (increase(fabric_applied_records_total"
                f'{{{F},outcome="duplicate"}}[5m])))',
                NAMED,
            )
        ],
        legend=COUNTED,
        text="Sent twice or replayed; they change nothing. In five minutes.",
    ),
)
_LAG = (
    lines(
        "Age of the oldest change that is not applied",
        [(f"max {DATASET} (fabric_consumer_lag_seconds{{{F}}})", NAMED)],
        unit="s",
        text="By the commit at its source; 0 when caught up.",
    ),
    lines(
        "Records in the log that are not applied",
        [(f"sum {DATASET} (fabric_consumer_lag_records{{{F}}})", NAMED)],
    ),
    lines(
        "From source commit to target commit",
        [
            (
                f"histogram_quantile({q}, sum by (topic, le) (rate("
                f"fabric_end_to_end_latency_seconds_bucket{{{F}}}[$__rate_interval])))",
                f"p{int(q * 100)} {{{{topic}}}}",
            )
            for q in (0.5, 0.99)
        ],
        unit="s",
        text="Per block; resolution is that of the histogram's buckets.",
    ),
    lines(
        "Age of the oldest change that the platform has not acknowledged",
        [
            (
                f"max {SOURCES} (fabric_capture_lag_seconds{{{A}}})",
                "{{source}} of {{agency}}",
            )
        ],
        unit="s",
    ),
)
_FLOW = (
    lines(
        "Rows sent, per second",
        [
            (
                f"sum {DATASET} (rate(fabric_sealed_records_total{{{F}}}[$__rate_interval]))",
                "{{topic}}",
            )
        ],
        unit="none",
        stacked=True,
    ),
    lines(
        "Rows applied, per second",
        [
            (
                f"sum {DATASET} (rate(fabric_applied_records_total"
                f'{{{F},outcome="applied"}}[$__rate_interval]))',
                NAMED,
            )
        ],
        unit="none",
        stacked=True,
    ),
    lines(
        "Change log that a source's database keeps for us",
        [
            (
                f"max {SOURCES} (fabric_capture_lag_bytes{{{A}}})",
                "{{source}} of {{agency}}",
            )
        ],
        unit="bytes",
    ),
    lines(
        "Snapshot rows still to be read",
        [
            (
                f"max {SOURCES} (fabric_snapshot_rows_remaining{{{A}}})",
                "{{source}} of {{agency}}",
            )
        ],
    ),
)

PAGE = Page(
    name="sync",
    title="Fabric / Sync",
    description="Lag, throughput, errors and what waits, by dataset and process.",
    variables=VARIABLES,
    rows=(
        Row(title="State", panels=_STATE),
        Row(title="Now", panels=_NOW),
        Row(title="What is in the way", panels=_ERRORS),
        Row(title="Lag", panels=_LAG),
        Row(title="Throughput", panels=_FLOW),
    ),
)
