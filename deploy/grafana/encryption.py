"""Dashboard *Encryption and admission*: what is sealed, what the doors refuse, how old keys are."""

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
    named,
    number,
)
from deploy.grafana.sync import VARIABLES, A, F

L = 'level=~"$level"'
S = f'{F},suite!=""'
EPOCH = "fabric_key_epoch_start_timestamp_seconds"
CUT = "fabric_gateway_cut_connections_total"
HOSTILE = (
    'reason=~"not_sealed|malformed|bad_signature|identity_mismatch|topic_mismatch'
    '|partition_mismatch|replayed|api_refused"'
)
R = "[$__rate_interval]"
LIFE = ((None, "green"), (1, "orange"), (1.1, "red"))

_STATE = (
    number(
        "Sealed where demanded",
        f'sum(fabric_sealed_records_total{{{F},suite!="",level!~"public|internal"}})'
        f' / sum(fabric_sealed_records_total{{{F},level!~"public|internal"}})',
        unit="percentunit",
        steps=NOT_ALL_IS_BAD,
        text="Rows above `internal` that were sent sealed. Anything but 100 % is an incident.",
        none="nothing sent",
        alerts=("PlaintextOnSealedTopic",),
    ),
    number(
        "Share of rows sealed",
        f'sum(fabric_sealed_records_total{{{F},suite!=""}})'
        f" / sum(fabric_sealed_records_total{{{F}}})",
        unit="percentunit",
        text="Of all rows sent, open levels included.",
        none="nothing sent",
    ),
    number(
        "Plaintext seen, 1 h",
        f'round(sum(increase(fabric_rejected_records_total{{{F},reason="not_sealed"}}[1h])))',
        steps=ANY_IS_BAD,
        text="In sealed datasets, by readers: each one went round the gateway.",
        none="no readers",
        alerts=("PlaintextOnSealedTopic",),
    ),
    number(
        "Hostile at the gateway, 1 h",
        f"round(sum(increase(fabric_gateway_denied_total{{{L},{HOSTILE}}}[1h])))",
        steps=ANY_IS_BAD,
        text="Records that no sound agent sends: open, forged, moved or repeated.",
        none="no gateway",
        alerts=("GatewayRefusals",),
    ),
    number(
        "Refused at the gateway, 1 h",
        f"round(sum(increase(fabric_gateway_denied_total{{{L}}}[1h])))",
        text="For any reason. Much of it only asks a sender to wait.",
        none="no gateway",
    ),
    number(
        "Records admitted per second",
        f"sum(rate(fabric_gateway_admitted_records_total{{{L}}}{R}))",
        unit="recps",
        steps=PLAIN,
        none="no gateway",
    ),
)
_SEALING = (
    lines(
        "Rows sealed per second, by level and suite",
        [
            (
                f"sum by (level, suite) (rate(fabric_sealed_records_total{{{F}}}{R}))",
                "{{level}} {{suite}}",
            )
        ],
        unit="none",
        stacked=True,
        text="A level without a suite is sent in the open form.",
    ),
    lines(
        "Rows opened per second, by level and suite",
        [
            (
                f"sum by (level, suite) (rate(fabric_opened_records_total{{{F}}}{R}))",
                "{{level}} {{suite}}",
            )
        ],
        unit="none",
        stacked=True,
    ),
    lines(
        "Bytes on the wire per byte of rows",
        [
            (
                f"sum by (level, suite) (fabric_sealed_bytes_total{{{S}}})"
                f" / (sum by (level, suite) (fabric_sealed_plaintext_bytes_total{{{S}}}) > 0)",
                "{{level}} {{suite}}",
            )
        ],
        unit="percentunit",
        text="Signatures and padding weigh on small blocks; compression wins on large ones.",
    ),
    lines(
        "Time to seal and to open one block, p99",
        [
            (
                f"histogram_quantile(0.99, sum by (suite, le) (rate("
                f'fabric_{way}_duration_seconds_bucket{{{A},{L},suite!=""}}{R}))) > 0',
                f"{way} {{{{suite}}}}",
            )
            for way in ("seal", "open")
        ],
        unit="s",
    ),
)
_ADMISSION = (
    lines(
        "Records admitted per second, by level",
        [
            (
                named(
                    f"sum by (level) (rate(fabric_gateway_admitted_records_total{{{L}}}{R}))",
                    "level",
                    "control topics",
                ),
                "{{level}}",
            )
        ],
        unit="none",
        stacked=True,
        text="Kafka records: a sealed block is one, an open row is one.",
    ),
    lines(
        "Refused by gateways, by level and reason",
        [
            (
                counted("fabric_gateway_denied_total", L, by="instance", why="level, reason"),
                "{{instance}} {{level}} {{reason}}",
            )
        ],
        legend=COUNTED,
        text="In five minutes. Without a level: the topic is in no policy; without a reason:"
        " nothing was refused.",
        none="no gateway",
        alerts=("GatewayRefusals",),
    ),
    lines(
        "Refused by readers, by reason",
        [
            (
                counted("fabric_rejected_records_total", F, by="agency", why="reason"),
                "{{agency}} {{reason}}",
            )
        ],
        legend=COUNTED,
        text="What a reader refuses, no gateway admitted. In five minutes.",
        none="no readers",
        alerts=("IntegrityRefusal", "PlaintextOnSealedTopic"),
    ),
    lines(
        "Connections of producers",
        [
            ("sum by (instance) (fabric_gateway_connections)", "open at {{instance}}"),
            (counted(CUT, "", by="instance", why="limit"), "cut at {{instance}} {{limit}}"),
        ],
        text="Those cut in five minutes, by the limit that they passed.",
        none="no gateway",
    ),
    lines(
        "Produce requests at the gateway, time to answer",
        [
            (
                f"histogram_quantile({q}, sum by (le) (rate("
                f'fabric_gateway_request_duration_seconds_bucket{{api="produce"}}{R})))',
                f"p{int(q * 100)}",
            )
            for q in (0.5, 0.99)
        ],
        unit="s",
        none="no requests",
        alerts=("GatewaySlow",),
    ),
    lines(
        "Requests to the gateways, per second",
        [
            (
                f"sum by (api, outcome) (rate(fabric_gateway_requests_total{R})) > 0",
                "{{api}} {{outcome}}",
            )
        ],
        unit="none",
    ),
)
_KEYS = (
    lines(
        "Age of the epoch",
        [
            (
                f"time() - max by (agency, topic) ({EPOCH}{{{F}}})",
                "{{topic}} of {{agency}}",
            )
        ],
        unit="s",
        text="Replaced after a day, after a million blocks, and when a reader is lost.",
        none="no epochs",
        alerts=("KeyEpochOverdue",),
    ),
    lines(
        "Hosts that hold a grant of the epoch",
        [
            (
                f"max by (agency, topic) (fabric_key_epoch_recipients{{{F}}})",
                "{{topic}} of {{agency}}",
            )
        ],
        text="The sender grants to itself, too.",
        none="no epochs",
    ),
    listing(
        "Epochs in use",
        [
            ("Number", f"max by (agency, topic, level) (fabric_key_epoch{{{F}}})", "none"),
            (
                "Age",
                f"time() - max by (agency, topic, level) ({EPOCH}{{{F}}})",
                "s",
            ),
            (
                "Of its life",
                f"max by (agency, topic, level) ((time() - {EPOCH}{{{F}}})"
                " / on (instance) group_left () fabric_key_epoch_max_age_seconds)",
                "percentunit",
            ),
            (
                "Granted to",
                f"max by (agency, topic, level) (fabric_key_epoch_recipients{{{F}}})",
                "short",
            ),
            (
                "Grants given",
                f"sum by (agency, topic, level) (fabric_grants_given_total{{{F}}})",
                "short",
            ),
        ],
        labels={"agency": "Agency", "topic": "Dataset", "level": "Level"},
        steps={"Of its life": LIFE},
        worst="Of its life",
        height=5,
        alerts=("KeyEpochOverdue",),
    ),
)

PAGE = Page(
    name="encryption",
    title="Fabric / Encryption and admission",
    description="Sealed share, suites, refusals by reason, epochs and grants.",
    variables=VARIABLES,
    rows=(
        Row(title="State", panels=_STATE),
        Row(title="Sealing", panels=_SEALING),
        Row(title="Admission", panels=_ADMISSION),
        Row(title="Epochs and grants", panels=_KEYS),
    ),
)
