"""What to do about each reason, in one sentence: the short form of docs/operations.md."""

from collections.abc import Mapping

from fabric.model.disk import IO_ERROR, NO_ROOM
from fabric.model.errors import Reason

_WRITTEN_BY_ANOTHER = (
    "stop trusting that record's sender until the audit log says who it was; keep the log as"
    " evidence"
)
_LOG_CHANGED = (
    "keep the topic as evidence and see the audit log; when the cause is found, read the dataset"
    " anew"
)
_RENEWS = "nothing, the agent seals anew by itself; if it stays, check this host's clock"

REMEDIES: Mapping[Reason, str] = {
    Reason.NOT_READY: "wait some seconds; if it stays, see the process's log and its /readyz",
    Reason.MEMBERS_STALE: (
        "check that the authority runs and reaches a gateway; if so, check this machine's clock"
    ),
    Reason.RESULT_UNKNOWN: "wait; if it stays, see the gateway's /readyz: it lags behind",
    Reason.POLICY_NEWER: "wait for the refresh; if it stays, see why no newer policy comes here",
    Reason.EPOCH_START_MISSING: (
        "check that the sender's agent runs and writes its grants topic; where the stream has"
        " stopped, have the source read anew: runbook StreamStopped"
    ),
    Reason.GRANT_MISSING: (
        "check that the sender's agent runs (it grants to late readers) and that the policy names"
        " this host with enough clearance"
    ),
    Reason.BROKER_UNAVAILABLE: "check [broker] bootstrap, the network and the broker's log",
    Reason.GATEWAY_UNAVAILABLE: "check [gateway] bootstrap, the network and the gateway's /readyz",
    Reason.AUTHORITY_UNAVAILABLE: (
        "check the authority's url, the network and the authority's /readyz"
    ),
    Reason.DATABASE_UNAVAILABLE: "check the database's url, that it runs, and its log",
    Reason.KEYS_UNAVAILABLE: "check [keys] in agent.toml and that the token is plugged in",
    Reason.TPM_UNAVAILABLE: "check [tpm] tcti and that this user may open the TPM device",
    Reason.OVERLOADED: "wait; if it stays, see which limit the process's metrics show",
    Reason.UNANCHORED: (
        "start the sender's agent again: its next result vouches for what it sent before; without"
        " it nobody can tell its last blocks from forged ones"
    ),
    Reason.SILENT: "check the sender's agent and its gateway: even an idle one speaks every 10 s",
    Reason.CONFIG_INVALID: "correct the file and run it again",
    Reason.POLICY_INVALID: "correct the named document, sign and publish it: fabric policy",
    Reason.POLICY_EXPIRED: "ask the competent authority for a policy that is still valid",
    Reason.TOPIC_UNKNOWN: "correct the topic in agent.toml, or have the policy declare its dataset",
    Reason.NOT_A_PRODUCER: "have the data owner name this system's source among the producers",
    Reason.NOT_A_CONSUMER: (
        "have the data owner name this host among the consumers, or its clearance raised; else"
        " remove the topic from agent.toml"
    ),
    Reason.NOT_A_CUSTODIAN: "have the data owner name this host among the dataset's custodians",
    Reason.HISTORY_REFUSED: (
        "have the sender's source read anew: runbook StreamStopped; the policy in force lets nobody"
        " read those blocks any more"
    ),
    Reason.LEVEL_TOO_LOW: "have the host approved for the level that the dataset demands",
    Reason.CLEARANCE_TOO_LOW: "have the host's clearance raised in its approval",
    Reason.SUITE_REFUSED: "have the dataset moved to a suite that the policy approves",
    Reason.SCHEMA_UNKNOWN: "make the table as the dataset's schema says, or change the schema",
    Reason.SCHEMA_MISMATCH: "make the table as the dataset's schema says, or change the schema",
    Reason.TOO_LARGE: "lower [block] bytes_max; a single row above the limit cannot be sent",
    Reason.NOT_ENROLLED: "start the agent once while the authority runs: it enrols by itself",
    Reason.NOT_APPROVED: "have the authority write or complete this host's approval",
    Reason.APPROVAL_EXPIRED: "have the authority renew this host's approval",
    Reason.EVIDENCE_REFUSED: "have the level allow this host's kind of evidence, or use a TPM 2.0",
    Reason.STATE_REFUSED: "boot the approved state, or have the authority approve this one",
    Reason.HOST_SUSPENDED: (
        "ask the authority why and put the host right; only an approval with a greater number,"
        " which the authority's two persons sign, lifts it"
    ),
    Reason.HOST_REVOKED: "this approval is over; the authority must give a new one",
    Reason.NOT_ATTESTED: (
        "start the agent if it is down; its log, and part attestation of its /readyz, say why it is"
        " refused; so does the authority's audit log"
    ),
    Reason.SEALED_STATE_LOST: (
        "boot the approved state; if the TPM was replaced or cleared, or the file is damaged, move"
        " the state file away"
    ),
    Reason.SOURCE_UNFIT: "give the source database what the message names",
    Reason.TARGET_UNFIT: "change the table as the message says, or let the agent make it",
    Reason.TOPIC_DRIFT: (
        "see that the authority runs: it makes topics and puts their settings back within a minute"
    ),
    Reason.CLOCK_WENT_BACK: (
        "set this machine's clock right; if it is right, the authority's was ahead: see"
        " docs/operations.md, The authority's clock"
    ),
    Reason.RESULT_EXPIRED: (
        "start the agent if it is down; its log, and part attestation of its /readyz, say why it"
        " cannot renew"
    ),
    Reason.TOO_OLD: _RENEWS,
    Reason.FROM_THE_FUTURE: _RENEWS,
    Reason.LABEL_MISMATCH: "nothing, the agent seals anew under the policy's label",
    Reason.NOT_SEALED: _WRITTEN_BY_ANOTHER,
    Reason.MALFORMED: _WRITTEN_BY_ANOTHER,
    Reason.BAD_SIGNATURE: _WRITTEN_BY_ANOTHER,
    Reason.IDENTITY_MISMATCH: _WRITTEN_BY_ANOTHER,
    Reason.TOPIC_MISMATCH: _WRITTEN_BY_ANOTHER,
    Reason.PARTITION_MISMATCH: _WRITTEN_BY_ANOTHER,
    Reason.REPLAYED: _WRITTEN_BY_ANOTHER,
    Reason.OPEN_FAILED: "keep the record as evidence; the sender must look at its audit log",
    Reason.NONCE_REFUSED: "start the agent again; if it stays, somebody replays attestations",
    Reason.BINDING_MISMATCH: "start the agent again; if it stays, somebody stands in between",
    Reason.COUNTERS_WENT_BACK: "find out who restored this machine or copied it, clear its TPM and"
    " enrol it anew",
    Reason.ACTIVATION_FAILED: "check that [tpm] tcti is the TPM of the approval's certificate",
    Reason.ENROLMENT_CONFLICT: "if the TPM was replaced: fabric authority forget, then enrol anew",
    Reason.FORK: _LOG_CHANGED,
    Reason.GAP: _LOG_CHANGED,
    Reason.HISTORY_LOST: "read the dataset anew: the log no longer holds what is missing here",
    Reason.LOG_WENT_BACK: (
        "nothing for tables, the agent reads them anew; have the application publish again what"
        " it had published; find out who restored the broker's log"
    ),
    Reason.SUPERSEDED: "nothing, blocks of an older epoch are dropped",
    Reason.API_REFUSED: "use a client that speaks the gateway's produce protocol only",
    Reason.APPLY_FAILED: "see the target database's log; correct the table, then start the agent",
    Reason.INTERNAL: "this is a bug: keep the agent's log and report it",
}


_BY_WORDS: Mapping[str, str] = {
    "ledger is damaged": (
        "stop the authority, put the newest backup of its ledger in its place and start it: see"
        " docs/operations.md, A copied or restored machine"
    ),
    NO_ROOM: (
        "make room on that disk: see what has grown there; what waits goes on by itself within"
        " seconds, nothing is to be started again"
    ),
    IO_ERROR: (
        "see the kernel's log: the disk fails, or a quota is used up; copy the folder away before"
        " it gets worse"
    ),
}
"""Of causes that share their reason with others and have a remedy of their own."""


def remedy_of(reason: Reason, said: str = "") -> str:
    """What to do about a reason, a sentence without its full stop.

    Args:
        said: the error's own words, which may tell one cause of the reason from others.
    """
    return next((text for words, text in _BY_WORDS.items() if words in said), REMEDIES[reason])
