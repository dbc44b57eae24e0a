"""Dashboard *Sync*: whether what changes here arrives there, how fast, and what is in the way."""

from deploy.grafana.panels import (
    ANY_IS_BAD,
    COUNTED,
    NEVER_S,
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
PARKED = f"fabric_quarantine_oldest_timestamp_seconds{{{F}}}"
UP = f'up{{job=~"fabric-.+",{A}}}'
NAMED = "{{topic}} at {{agency}}"
MEASURED_S = 60
"""Agents measure every ten seconds. What is older than this, or as far ahead, says nothing."""


def _known(figure: str, age: str) -> str:
    """PromQL: `figure` where its measurement is `age` seconds old and that is not too old."""
    return f"{figure} and {age} <= {MEASURED_S}"


def _worst_age(by: str, timestamp: str) -> str:
    """PromQL: how far the worst measurement is from now.

    One partition that is not measured makes its dataset unknown: the oldest change may be there.
    """
    return f"max {by} (abs(time() - {timestamp}))"


LAG_AGE = _worst_age(DATASET, f"fabric_consumer_lag_timestamp_seconds{{{F}}}")
LAG_S = _known(f"max {DATASET} (fabric_consumer_lag_seconds{{{F}}})", LAG_AGE)
LAG_RECORDS = _known(f"sum {DATASET} (fabric_consumer_lag_records{{{F}}})", LAG_AGE)
SILENT = _known(f"max {DATASET} (fabric_stream_silent{{{F}}})", LAG_AGE)
LIFE_AGE = _worst_age(SOURCES, f"fabric_capture_heartbeat_timestamp_seconds{{{A}}}")
CAPTURE_S = _known(f"max {SOURCES} (fabric_capture_lag_seconds{{{A}}})", LIFE_AGE)
CAPTURE_BYTES = _known(f"max {SOURCES} (fabric_capture_lag_bytes{{{A}}})", LIFE_AGE)
ROWS_LEFT = _known(f"max {SOURCES} (fabric_snapshot_rows_remaining{{{A}}})", LIFE_AGE)


def _or_unknown(known: str, age: str) -> str:
    """PromQL: `known`, and above every age where it is not: a table puts that first."""
    return f"{known} or 0 * ({age} > {MEASURED_S}) + {NEVER_S:.0f}"


VARIABLES = (
    ("agency", "Agency", 'label_values(up{job=~"fabric-.+"}, agency)'),
    ("level", "Level", 'label_values({__name__=~"fabric_(consumer_lag|sealed)_.*"}, level)'),
    ("topic", "Dataset", 'label_values({__name__=~"fabric_(consumer_lag|sealed)_.*"}, topic)'),
)

_STATE = (
    number(
        "Processes down",
        f"sum(1 - {UP})",
        steps=ANY_IS_BAD,
        width=3,
        none="no targets",
        text="Agents, gateways and authority whose page cannot be scraped.",
        alerts=("ProcessDown",),
    ),
    number(
        "Parts that wait",
        f"sum({PARTS}{{{A}}})",
        steps=ANY_IS_BAD,
        width=3,
        text="Sources, targets, datasets and views that cannot go on; /readyz says why.",
        alerts=("PartWaiting", "StreamStopped", "StreamUnanchored"),
    ),
    number(
        "Worst lag",
        f"max({LAG_S})",
        unit="s",
        steps=LAG,
        none="not measured",
        text="Age of the oldest change that is not applied, of the datasets that are measured.",
        alerts=("LagGrowing", "ConsumerStalled"),
    ),
    number(
        "Lag not measured",
        f"sum({LAG_AGE} > bool {MEASURED_S})",
        steps=ANY_IS_BAD,
        width=3,
        none="no readers",
        text="Datasets at their readers whose lag nobody has measured for a minute, or ever.",
        alerts=("LagNotMeasured",),
    ),
    number(
        "Records not applied",
        f"sum({LAG_RECORDS})",
        steps=((None, "green"), (1000, "orange")),
        none="not measured",
        text="In the log; of the datasets that are measured.",
        alerts=("ConsumerStalled",),
    ),
    number(
        "Rows applied per second",
        f'sum(rate(fabric_applied_records_total{{{F},outcome="applied"}}[$__rate_interval]))',
        unit="rowsps",
        steps=PLAIN,
        none="no readers",
    ),
    number(
        "In quarantine",
        f"sum(fabric_quarantine_records{{{F}}})",
        steps=ANY_IS_BAD,
        width=3,
        none="not counted",
        text="Changes that a target refused and that wait for a person.",
        alerts=("QuarantineNotEmpty",),
    ),
)


def _parts(kinds: str) -> str:
    return f"sum {PROCESS} ({PARTS}{{{A},part{kinds}}})"


_NOW = (
    listing(
        "Datasets at their readers",
        [
            ("Lag", _or_unknown(LAG_S, LAG_AGE), "s"),
            ("Waiting", LAG_RECORDS, "short"),
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
            ("Oldest there", f"max {DATASET} ((time() - {PARKED}) * ({PARKED} > bool 0))", "s"),
            ("Incomplete", f"max {DATASET} (fabric_dataset_incomplete{{{F}}})", "bool_yes_no"),
            ("Silent", SILENT, "bool_yes_no"),
        ],
        labels={"agency": "Agency", "topic": "Dataset"},
        steps={
            "Lag": LAG,
            "Measured": LAG,
            "Quarantine": ANY_IS_BAD,
            "Incomplete": ANY_IS_BAD,
            "Silent": ANY_IS_BAD,
        },
        never={"Lag": "not measured", "Measured": "never"},
        worst="Lag",
        text="Measured: how long ago. After a minute nobody knows lag, records and silence.",
        alerts=(
            "LagNotMeasured",
            "LagGrowing",
            "ConsumerStalled",
            "StreamSilent",
            "QuarantineNotEmpty",
            "DatasetIncomplete",
        ),
    ),
    listing(
        "Sources",
        [
            ("Lag", _or_unknown(CAPTURE_S, LIFE_AGE), "s"),
            ("Log kept", CAPTURE_BYTES, "bytes"),
            (
                "Sign of life",
                f"time() - min {SOURCES} (fabric_capture_heartbeat_timestamp_seconds{{{A}}})",
                "s",
            ),
            ("Not acknowledged", f"max {SOURCES} (fabric_outbox_records{{{A}}})", "short"),
            ("Snapshot rows left", ROWS_LEFT, "short"),
            ("Acknowledged", f"sum {SOURCES} (fabric_capture_changes_total{{{A}}})", "short"),
        ],
        labels={"agency": "Agency", "source": "Source"},
        steps={"Lag": LAG, "Sign of life": LAG},
        never={"Lag": "not known", "Sign of life": "never"},
        worst="Lag",
        height=5,
        text="Sign of life: how long ago. After a minute nobody knows what else the source has.",
        alerts=("CaptureSilent", "CaptureBehind"),
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
            ("Databases", f"sum {PROCESS} (fabric_database_up{{{A}}} == bool 0)", "short"),
            ("Others", _parts('!~"stream|anchor|silence|ticks"'), "short"),
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
        text="/readyz names part and reason. A process that does not answer counts as one."
        " Databases: those that do not answer.",
        alerts=(
            *("ProcessDown", "PartWaiting", "DatabaseAway"),
            *("StreamStopped", "StreamUnanchored", "StreamSilent"),
        ),
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
        none="no readers",
        alerts=("IntegrityRefusal", "PlaintextOnSealedTopic"),
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
        none="no senders",
        alerts=("LogWentBack",),
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
        [(LAG_S, NAMED)],
        unit="s",
        text="By the commit at its source; 0 when caught up. A gap: nobody measured.",
        none="not measured",
        alerts=("LagGrowing", "LagNotMeasured"),
    ),
    lines(
        "Records in the log that are not applied",
        [(LAG_RECORDS, NAMED)],
        text="Sealed blocks and open rows. A gap: nobody measured.",
        none="not measured",
        alerts=("ConsumerStalled",),
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
        text="Per block; resolution is that of the histogram's buckets. A gap: nothing came.",
        none="nothing came",
        alerts=("LatencySloBurn",),
    ),
    lines(
        "Age of the oldest change that the platform has not acknowledged",
        [(CAPTURE_S, "{{source}} of {{agency}}")],
        unit="s",
        text="A gap: the source gives no sign of life.",
        none="no sign of life",
        alerts=("CaptureBehind", "CaptureSilent"),
    ),
)
_TIMES = (
    lines(
        "Time of one block to its acknowledgement, and of one transaction of a target, p99",
        [
            (
                f"histogram_quantile(0.99, sum by (topic, le) (rate("
                f"fabric_{way}_duration_seconds_bucket{{{F}}}[$__rate_interval])))",
                f"{way} {{{{topic}}}}",
            )
            for way in ("produce", "apply")
        ],
        unit="s",
        text="Per block. If one is slow and the other is not, it says at which end to look.",
        none="nothing came",
    ),
    lines(
        "How late event loops are, p99",
        [
            (
                "histogram_quantile(0.99, sum by (role, instance, le) (rate("
                f"fabric_event_loop_lag_seconds_bucket{{{A}}}[$__rate_interval])))",
                "{{role}} {{instance}}",
            )
        ],
        unit="s",
        text="Late by more than a tenth of a second: the process has too much to do.",
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
        [(CAPTURE_BYTES, "{{source}} of {{agency}}")],
        unit="bytes",
        text="The disk of that database must hold it. A gap: the source gives no sign of life.",
        none="no sign of life",
        alerts=("CaptureBehind",),
    ),
    lines(
        "Snapshot rows still to be read",
        [(ROWS_LEFT, "{{source}} of {{agency}}")],
        text="As far as the source can tell; 0 when the first copy is read.",
        none="no sign of life",
        alerts=("DatasetIncomplete",),
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
        Row(title="Where the time goes", panels=_TIMES),
        Row(title="Throughput", panels=_FLOW),
    ),
)
