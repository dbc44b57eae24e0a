"""What can go wrong, in four families, and why a thing was refused.

Here live the error families (one for each reaction a caller can have) and the
closed list of reasons with the class that tells a sender what to do. Nothing
here formats a key, a plaintext or a row value; messages name places, not data.
"""

from enum import StrEnum, unique


@unique
class ReasonClass(StrEnum):
    """What a sender does about a refusal."""

    WAIT = "wait"
    """The judge's view is stale: send the same bytes again later."""
    HOLD = "hold"
    """The dataset stops until a person or a policy changes something."""
    RESEAL = "reseal"
    """Open a new epoch and seal the same changes and sequences again."""
    NEVER = "never"
    """An attack or a bug: audit it, raise the alarm, never retry."""


@unique
class Reason(StrEnum):
    """Every cause for which something is refused. Closed; values are metric labels."""

    # wait: the same bytes may pass later
    NOT_READY = "not_ready"
    MEMBERS_STALE = "members_stale"
    RESULT_UNKNOWN = "result_unknown"
    POLICY_NEWER = "policy_newer"
    EPOCH_START_MISSING = "epoch_start_missing"
    GRANT_MISSING = "grant_missing"
    BROKER_UNAVAILABLE = "broker_unavailable"
    GATEWAY_UNAVAILABLE = "gateway_unavailable"
    AUTHORITY_UNAVAILABLE = "authority_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    TPM_UNAVAILABLE = "tpm_unavailable"
    KEYS_UNAVAILABLE = "keys_unavailable"
    OVERLOADED = "overloaded"
    UNANCHORED = "unanchored"
    SILENT = "silent"
    # hold: a person or the policy must act
    CONFIG_INVALID = "config_invalid"
    POLICY_INVALID = "policy_invalid"
    POLICY_EXPIRED = "policy_expired"
    TOPIC_UNKNOWN = "topic_unknown"
    NOT_A_PRODUCER = "not_a_producer"
    NOT_A_CONSUMER = "not_a_consumer"
    NOT_A_CUSTODIAN = "not_a_custodian"
    HISTORY_REFUSED = "history_refused"
    LEVEL_TOO_LOW = "level_too_low"
    CLEARANCE_TOO_LOW = "clearance_too_low"
    SUITE_REFUSED = "suite_refused"
    SCHEMA_UNKNOWN = "schema_unknown"
    SCHEMA_MISMATCH = "schema_mismatch"
    TOO_LARGE = "too_large"
    NOT_ENROLLED = "not_enrolled"
    NOT_APPROVED = "not_approved"
    APPROVAL_EXPIRED = "approval_expired"
    EVIDENCE_REFUSED = "evidence_refused"
    STATE_REFUSED = "state_refused"
    HOST_SUSPENDED = "host_suspended"
    HOST_REVOKED = "host_revoked"
    NOT_ATTESTED = "not_attested"
    SEALED_STATE_LOST = "sealed_state_lost"
    SOURCE_UNFIT = "source_unfit"
    TARGET_UNFIT = "target_unfit"
    TOPIC_DRIFT = "topic_drift"
    CLOCK_WENT_BACK = "clock_went_back"
    # reseal: the same changes in a new epoch
    RESULT_EXPIRED = "result_expired"
    TOO_OLD = "too_old"
    FROM_THE_FUTURE = "from_the_future"
    LABEL_MISMATCH = "label_mismatch"
    # never: an attack or a bug
    NOT_SEALED = "not_sealed"
    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    IDENTITY_MISMATCH = "identity_mismatch"
    TOPIC_MISMATCH = "topic_mismatch"
    PARTITION_MISMATCH = "partition_mismatch"
    REPLAYED = "replayed"
    OPEN_FAILED = "open_failed"
    NONCE_REFUSED = "nonce_refused"
    BINDING_MISMATCH = "binding_mismatch"
    COUNTERS_WENT_BACK = "counters_went_back"
    ACTIVATION_FAILED = "activation_failed"
    ENROLMENT_CONFLICT = "enrolment_conflict"
    FORK = "fork"
    GAP = "gap"
    HISTORY_LOST = "history_lost"
    LOG_WENT_BACK = "log_went_back"
    SUPERSEDED = "superseded"
    API_REFUSED = "api_refused"
    APPLY_FAILED = "apply_failed"
    INTERNAL = "internal"


_WAIT = frozenset(
    {
        Reason.NOT_READY,
        Reason.MEMBERS_STALE,
        Reason.RESULT_UNKNOWN,
        Reason.POLICY_NEWER,
        Reason.EPOCH_START_MISSING,
        Reason.GRANT_MISSING,
        Reason.BROKER_UNAVAILABLE,
        Reason.GATEWAY_UNAVAILABLE,
        Reason.AUTHORITY_UNAVAILABLE,
        Reason.DATABASE_UNAVAILABLE,
        Reason.TPM_UNAVAILABLE,
        Reason.KEYS_UNAVAILABLE,
        Reason.OVERLOADED,
        Reason.UNANCHORED,
        Reason.SILENT,
    }
)
_RESEAL = frozenset(
    {Reason.RESULT_EXPIRED, Reason.TOO_OLD, Reason.FROM_THE_FUTURE, Reason.LABEL_MISMATCH}
)
_HOLD = frozenset(
    {
        Reason.CONFIG_INVALID,
        Reason.POLICY_INVALID,
        Reason.POLICY_EXPIRED,
        Reason.TOPIC_UNKNOWN,
        Reason.NOT_A_PRODUCER,
        Reason.NOT_A_CONSUMER,
        Reason.NOT_A_CUSTODIAN,
        Reason.HISTORY_REFUSED,
        Reason.LEVEL_TOO_LOW,
        Reason.CLEARANCE_TOO_LOW,
        Reason.SUITE_REFUSED,
        Reason.SCHEMA_UNKNOWN,
        Reason.SCHEMA_MISMATCH,
        Reason.TOO_LARGE,
        Reason.NOT_ENROLLED,
        Reason.NOT_APPROVED,
        Reason.APPROVAL_EXPIRED,
        Reason.EVIDENCE_REFUSED,
        Reason.STATE_REFUSED,
        Reason.HOST_SUSPENDED,
        Reason.HOST_REVOKED,
        Reason.NOT_ATTESTED,
        Reason.SEALED_STATE_LOST,
        Reason.SOURCE_UNFIT,
        Reason.TARGET_UNFIT,
        Reason.TOPIC_DRIFT,
        Reason.CLOCK_WENT_BACK,
    }
)


def class_of(reason: Reason) -> ReasonClass:
    """The class of a reason; whatever is in no other class is `never` (deny by default)."""
    if reason in _WAIT:
        return ReasonClass.WAIT
    if reason in _HOLD:
        return ReasonClass.HOLD
    if reason in _RESEAL:
        return ReasonClass.RESEAL
    return ReasonClass.NEVER


def sqlite_name(exc: Exception) -> str:
    """What SQLite calls an error, for example `SQLITE_BUSY`, or else the error's class.

    The texts of errors are no texts of ours: one of Python's module quotes a row's value.
    """
    return getattr(exc, "sqlite_errorname", None) or type(exc).__name__


class FabricError(Exception):
    """Base of the four families; carries the reason that audits and metrics show.

    Args:
        reason: the cause, from the closed list.
        message: lower case, no final stop, no secret and no row value.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {self.args[0]}"


class UsageError(FabricError):
    """Our bug or our configuration. Reaction: stop, exit code 2."""


class PeerError(FabricError):
    """They sent something invalid. Reaction: never retry; count, audit, close."""


class DeniedError(FabricError):
    """Well-formed but not allowed. Reaction: as the reason's class says; audit."""


class UnavailableError(FabricError):
    """May work later. Reaction: retry with bounded back-off."""


class ConfigInvalid(UsageError):
    """A setting is wrong; the message names the key and the remedy."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.CONFIG_INVALID, message)


class Malformed(PeerError):
    """Foreign bytes do not have the shape their specification demands."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MALFORMED, message)
