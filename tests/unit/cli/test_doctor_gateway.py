"""`fabric gateway doctor` where nothing runs: what is in place is well, what is not is told."""

from pathlib import Path

import pytest

from fabric.cli.doctor_gateway import of_topics
from fabric.kafka.metadata import TopicRights
from fabric.model.errors import Reason
from tests.fakes.platform_files import BROKER, PlatformFiles, write_platform

AWAY = {f"broker {BROKER}", "topics", "ticks"}
MAY = TopicRights(exists=True, may_read=True, may_write=True)


@pytest.fixture
def files(tmp_path: Path) -> PlatformFiles:
    return write_platform(tmp_path)


def test_with_every_file_in_place_only_peers_are_missing(fabric, files: PlatformFiles) -> None:
    done = fabric("gateway", "doctor", files.gateway, "-o", "json")
    assert done.code == 10
    found = {item["check"]: item for item in done.json}
    assert {name for name, item in found.items() if not item["ok"]} == AWAY
    assert "nobody listens" in found[f"broker {BROKER}"]["seen"]
    assert "does not run" in found["process"]["seen"]
    assert "free" in found["gateway.listen"]["seen"]
    assert not (files.gateway.parent / "state").exists()
    assert not (files.gateway.parent / "policy").exists()


@pytest.mark.parametrize(
    ("old", "new", "check", "words"),
    [
        ("gateway.pem", "admin.pem", "certificate", "correct `certificate` and `key`"),
        ("/gateway.", "/verifier.", "certificate", "must be CN=gateway,O=fabric-platform"),
        ("localhost:", "gateway-1.example:", "certificate", "Hostname mismatch"),
        (
            '[gateway]\nlisten = "127.0.0.1:',
            '[gateway]\nlisten = "192.0.2.1:',
            "gateway.listen",
            "cannot listen",
        ),
    ],
)
def test_a_wrong_setting_is_told_at_its_check(
    fabric, files: PlatformFiles, old: str, new: str, check: str, words: str
) -> None:
    done = fabric("gateway", "doctor", files.change(files.gateway, old, new), "-o", "json")
    (found,) = (item for item in done.json if item["check"] == check)
    assert not found["ok"]
    assert words in found["seen"]
    assert found["remedy"]


def test_a_policy_that_is_not_there_is_told(fabric, files: PlatformFiles) -> None:
    files.change(files.gateway, files.layout.repository, files.layout.repository / "no")
    done = fabric("gateway", "doctor", files.gateway, "-o", "json")
    (found,) = (item for item in done.json if item["check"] == "policy")
    assert not found["ok"]


def test_a_file_that_does_not_load_is_exit_2(fabric, files: PlatformFiles) -> None:
    done = fabric("gateway", "doctor", files.change(files.gateway, "[policy]", "[police]"))
    assert done.code == 2
    assert done.out.startswith("FAIL  config")


@pytest.mark.parametrize(
    ("rights", "reason", "words"),
    [
        (MAY, None, "2 topics"),
        (TopicRights(exists=False), Reason.TOPIC_DRIFT, "missing or hidden: b"),
        (TopicRights(exists=True, may_read=True), Reason.NOT_A_PRODUCER, "may not read and write"),
        (TopicRights(exists=True, may_write=True), Reason.NOT_A_PRODUCER, "may not read and write"),
        (
            TopicRights(exists=True, may_read=True, may_write=True, leaderless=1),
            Reason.BROKER_UNAVAILABLE,
            "without a leader: b",
        ),
    ],
)
def test_what_a_brokers_word_on_topics_means(
    rights: TopicRights, reason: Reason | None, words: str
) -> None:
    found = of_topics("of data", {"a": MAY, "b": rights})
    assert found.reason is reason
    assert words in found.seen


def test_of_many_topics_a_few_are_named() -> None:
    found = of_topics("of data", {str(n): TopicRights(exists=False) for n in range(9)})
    assert found.seen.endswith("0, 1, 2 and 6 more")
