"""Settings of audit logs and receipts: tables `[audit]` and `[receipts]` of the processes' files.

`fabric.config` reads the files; these are sections of them.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fabric.model.limits import (
    AUDIT_FILE_BYTES_DEFAULT,
    AUDIT_FILES_DEFAULT,
    AUDIT_HEAD_S_DEFAULT,
    AUDIT_LINE_BYTES_MAX,
    RECEIPT_INTERVAL_S_DEFAULT,
)

_TOPICS_MAX = 1_000
_Text = Annotated[str, Field(min_length=1, max_length=4096)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AuditConfig(_Section):
    """How large the audit log grows, and how often its head is signed.

    Attributes:
        file_bytes_max: size at which a new file begins, bytes.
        files_max: files that are kept; the oldest is deleted, and the log says so.
        head_interval_s: time between two signed heads, when lines were written, seconds.
    """

    file_bytes_max: int = Field(default=AUDIT_FILE_BYTES_DEFAULT, ge=2 * AUDIT_LINE_BYTES_MAX)
    files_max: int = Field(default=AUDIT_FILES_DEFAULT, ge=2, le=100_000)
    head_interval_s: float = Field(default=AUDIT_HEAD_S_DEFAULT, ge=0.5, le=3600)


class ReceiptsConfig(_Section):
    """Delivery receipts for sealed datasets that this agent applies.

    Attributes:
        enabled: issue them at all.
        interval_s: time between two receipts of one stream, seconds.
        without: topics for which none are issued.
    """

    enabled: bool = True
    interval_s: float = Field(default=RECEIPT_INTERVAL_S_DEFAULT, ge=1.0, le=3600)
    without: tuple[_Text, ...] = Field(default=(), max_length=_TOPICS_MAX)
