"""Settings of audit and receipts: defaults that are safe, bounds that hold."""

import pytest
from pydantic import ValidationError

from fabric.config_audit import AuditConfig, ReceiptsConfig


def test_receipts_are_on_and_at_most_one_a_second() -> None:
    assert ReceiptsConfig().enabled
    assert ReceiptsConfig().interval_s == 1
    with pytest.raises(ValidationError):
        ReceiptsConfig(interval_s=0.5)


@pytest.mark.parametrize(
    "wrong", [{"file_bytes_max": 1_000}, {"files_max": 1}, {"head_interval_s": 0}, {"other": 1}]
)
def test_a_log_that_could_not_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        AuditConfig(**wrong)  # type: ignore[arg-type]
