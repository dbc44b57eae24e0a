"""The shell of the gateway's audit; its heads on a broker are in the integration tests."""

import json
from pathlib import Path

import pytest

from fabric.config import GatewayConfig
from fabric.gateway.auditing import Auditing
from fabric.metrics import GatewayMetrics
from fabric.model.errors import ConfigInvalid, Reason
from tests.fakes.clock import ManualClock
from tests.fakes.gateway_doors import Pki
from tests.unit.gateway.test_run import config


@pytest.fixture
def settings(tmp_path: Path) -> GatewayConfig:
    return config(tmp_path, Pki(tmp_path))


def test_a_gateway_writes_beside_its_file_that_it_started_and_stopped(
    tmp_path: Path, settings: GatewayConfig
) -> None:
    auditing = Auditing(settings, GatewayMetrics(()), ManualClock())
    auditing.refusals.refused("G01/a/b", "t", 0, digest=None, reason=Reason.NOT_SEALED)
    auditing.refusals.refused("G01/a/b", "t", 0, digest=None, reason=Reason.NOT_SEALED)
    auditing.close()
    lines = (tmp_path / "state" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "log_began",
        "gateway_started",
        "record_refused",
        "records_refused",
        "gateway_stopped",
    ]


def test_two_gateways_need_two_folders(settings: GatewayConfig) -> None:
    first = Auditing(settings, GatewayMetrics(()), ManualClock())
    with pytest.raises(ConfigInvalid, match="own folder"):
        Auditing(settings, GatewayMetrics(()), ManualClock())
    first.close()


def test_a_folder_that_cannot_be_made_names_the_setting(
    tmp_path: Path, settings: GatewayConfig
) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigInvalid, match=r"gateway\.folder"):
        Auditing(settings, GatewayMetrics(()), ManualClock())
