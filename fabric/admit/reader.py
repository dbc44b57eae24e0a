"""What a reader takes from the log: the gateway's questions again, for the time of sealing.

A reader trusts neither the broker nor the gateway. It knows no identity of a
connection and asks no freshness of its own clock; in their place stand the result
that the header names and the log's append time. Spec: design sections 3 and 8.
"""

from datetime import datetime, timedelta

from fabric.admit.door import check_place, check_rules, parse_sealed
from fabric.admit.view import Place, View
from fabric.attest.result import standing
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import CLOCK_SKEW_S_MAX
from fabric.policy import decide
from fabric.seal.envelope import Header
from fabric.seal.verify import VerifiedEnvelope, verify

_SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)
_NOT_OF_BLOCKS = frozenset({Reason.POLICY_NEWER, Reason.POLICY_EXPIRED, Reason.TOPIC_UNKNOWN})
"""What a policy says of itself or of the whole topic, not of the block."""


class RuledOut(DeniedError):
    """A host of the origin's own system sealed it while it was trusted; the policy refuses it now.

    TOO_OLD may be the broker's doing as well: the log's time says when it was stored.
    So nobody else can make a reader say that its stream is refused.
    """

    def __init__(self, cause: DeniedError, header: Header) -> None:
        super().__init__(cause.reason, *cause.args)
        self.header = header


def admit_read(value: bytes, place: Place, view: View, *, appended: datetime) -> VerifiedEnvelope:
    """Admit one record that a reader found in a sealed topic.

    Args:
        appended: when the log says it was appended. The broker may lie, so this bounds
            only what an honest log shows: an envelope that waited longer than its
            level's delivery time before it was stored.

    Raises:
        PeerError: NOT_SEALED, MALFORMED, TOPIC_MISMATCH, PARTITION_MISMATCH,
            IDENTITY_MISMATCH, BAD_SIGNATURE.
        DeniedError: RESULT_UNKNOWN, POLICY_NEWER (wait); RESULT_EXPIRED, NOT_ATTESTED,
            HOST_SUSPENDED, HOST_REVOKED at the time of sealing; FROM_THE_FUTURE.
        RuledOut: TOO_OLD, or as `door.check_rules`; a DeniedError of another system's host.
    """
    envelope = parse_sealed(value)
    check_place(envelope, place)
    header = envelope.header
    result = view.members.result(header.result_id)
    verified = verify(envelope, result, view.policy.trust.trust_domain)
    why = view.members.was_trusted(result, header.sealed_at)
    if why is not None:
        raise DeniedError(why, f"sender was not trusted when it sealed: {why}")
    try:
        _check_policy(verified, view, appended=appended)
    except DeniedError as exc:
        origin, host = header.origin, result.host
        is_own = (origin.agency, origin.system) == (host.agency, host.system)
        if not is_own or exc.reason in _NOT_OF_BLOCKS:
            raise
        raise RuledOut(exc, header) from exc
    if header.sealed_at - appended > _SKEW:
        raise DeniedError(Reason.FROM_THE_FUTURE, "envelope was sealed after it was stored")
    return verified


def _check_policy(verified: VerifiedEnvelope, view: View, *, appended: datetime) -> None:
    """Hold an envelope against the policy in force; the time of sealing counts for suites."""
    header = verified.envelope.header
    check_rules(verified, view, ask=decide.accept, at=header.sealed_at)
    rule = decide.rule_of(view.policy, decide.dataset_of(view.policy, str(header.topic)))
    if appended - header.sealed_at > timedelta(seconds=rule.delivery_s) + _SKEW:
        raise DeniedError(Reason.TOO_OLD, "envelope was stored too long after it was sealed")


def is_trusted_still(verified: VerifiedEnvelope, view: View, now: datetime) -> bool:
    """Whether the sender of an admitted envelope could seal it now as well as then.

    What comes from another, whose result has ended, against whom a notice stands, or whom
    the policy does not approve for the dataset any more, may have been made up since.
    """
    dataset = decide.dataset_of(view.policy, str(verified.envelope.header.topic))
    why = view.members.was_trusted(verified.result, now)
    sender = standing(verified.result)
    return (why or decide.why_not_approved(view.policy, dataset, sender, now)) is None
