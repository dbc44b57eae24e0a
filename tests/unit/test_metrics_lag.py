"""Figures of sources and targets: there while somebody reads them, and told from never."""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from fabric.metrics_lag import WAYS, LagFamilies
from fabric.model.names import Topic

TOPIC = Topic.parse("secret.G01.notes")
OTHER = Topic.parse("secret.G01.wards")


def shown(registry: CollectorRegistry) -> dict[str, float]:
    """Gauges of datasets by name, topic and partition."""
    return {
        f"{sample.name} {sample.labels['topic']}:{sample.labels.get('partition', '')}": sample.value
        for family in registry.collect()
        if family.type == "gauge"
        for sample in family.samples
        if "topic" in sample.labels
    }


def test_a_stream_that_was_never_measured_has_the_time_zero_and_no_figures() -> None:
    metrics = LagFamilies()
    metrics.reads_stream(TOPIC, 0)
    assert shown(metrics.registry) == {f"fabric_consumer_lag_timestamp_seconds {TOPIC}:0": 0}
    metrics.lag(TOPIC, 0, records=1, seconds=1.0, measured=5.0)
    metrics.reads_stream(TOPIC, 0)
    assert shown(metrics.registry)[f"fabric_consumer_lag_timestamp_seconds {TOPIC}:0"] == 5


def test_a_source_that_gave_no_sign_of_life_has_the_time_zero() -> None:
    metrics, source = LagFamilies(), {"source": "registry"}
    metrics.captures("registry")
    name = "fabric_capture_heartbeat_timestamp_seconds"
    assert metrics.registry.get_sample_value(name, source) == 0
    assert metrics.registry.get_sample_value("fabric_capture_lag_seconds", source) is None


def test_a_source_without_a_log_has_no_place_in_it() -> None:
    metrics, source = LagFamilies(), {"source": "registry"}
    name, at = "fabric_capture_released_bytes", datetime.now(UTC)
    metrics.capture_figures("registry", {"lag_seconds": 0.0}, at)
    assert metrics.registry.get_sample_value(name, source) is None
    metrics.capture_figures("registry", {"log_released": 77.0}, at)
    assert metrics.registry.get_sample_value(name, source) == 77


def test_what_is_forgotten_of_a_dataset_leaves_its_other_streams_and_other_datasets() -> None:
    metrics = LagFamilies()
    for topic, partition in ((TOPIC, 0), (TOPIC, 1), (OTHER, 0)):
        metrics.lag(topic, partition, records=1, seconds=1.0, measured=5.0)
        metrics.silent(topic, partition, False)
        metrics.quarantine(topic, 3)
        metrics.incomplete(topic, True)
        metrics.moved(topic, WAYS[1], 5.0)
    metrics.forget_stream(TOPIC, 0)
    left = shown(metrics.registry)
    assert not [name for name in left if name.endswith(f"{TOPIC}:0")]
    assert len([name for name in left if name.endswith(f"{TOPIC}:1")]) == 4
    metrics.forget_stream(TOPIC, 1)
    metrics.forget_applied(TOPIC)
    left = shown(metrics.registry)
    assert len(left) == 8
    assert all(str(OTHER) in name for name in left)


def test_forgetting_what_was_never_shown_is_no_fault() -> None:
    metrics = LagFamilies()
    metrics.forget_stream(TOPIC, 0)
    metrics.forget_applied(TOPIC)
    assert shown(metrics.registry) == {}
