"""Who may write to a topic at all: asked before a byte of a record is looked at.

What a stranger sends must cost a gateway next to nothing, so the question that needs
no parsing comes first. Whether the records may stand there is door.py's to say.
Spec: design section 9.
"""

from datetime import datetime

from fabric.admit.door import is_authoritys, is_control, refuse
from fabric.admit.view import Place, View
from fabric.attest.result import standing
from fabric.model.errors import DeniedError, PeerError, Reason
from fabric.model.names import AUDIT, AUTHORITY, GRANTS_PREFIX, RECEIPTS, HostId
from fabric.policy import decide


def check_writer(
    place: Place, view: View, *, identity: str, host: HostId | None, now: datetime
) -> None:
    """Hold a connection's identity against a partition that it writes to.

    Args:
        identity: `agency/system/host`, or the name of a platform part.
        host: None for a platform part.

    Raises:
        PeerError: IDENTITY_MISMATCH, PARTITION_MISMATCH.
        DeniedError: TOPIC_UNKNOWN, NOT_A_PRODUCER, or what `Members.current` says.
    """
    if is_control(place.topic):
        _check_control(place, view, identity=identity, host=host)
    elif host is None:
        raise PeerError(Reason.IDENTITY_MISMATCH, "a platform part writes no data")
    else:
        _check_data(place, view, host)
    if host is not None:
        view.members.current(host, now)


def check_again(
    place: Place, view: View, *, identity: str, host: HostId | None, now: datetime
) -> None:
    """Ask again, between verdict and sending, what may have changed meanwhile.

    Costs no signature and looks at no record: whether the writer may still write here,
    and a host still publish at its current standing.

    Raises:
        PeerError: as `check_writer`.
        DeniedError: as `check_writer`, or what `decide.publish` says.
    """
    check_writer(place, view, identity=identity, host=host, now=now)
    if host is None or is_control(place.topic):
        return
    dataset = decide.dataset_of(view.policy, place.topic)
    current = standing(view.members.current(host, now))
    refuse(decide.publish(view.policy, dataset, current, suite=dataset.suite, now=now))


def _check_control(place: Place, view: View, *, identity: str, host: HostId | None) -> None:
    topic = place.topic
    if place.partition != 0:
        raise PeerError(Reason.PARTITION_MISMATCH, "control topics have one partition")
    if is_authoritys(topic):
        if identity != AUTHORITY:
            raise PeerError(Reason.IDENTITY_MISMATCH, "topic is the authority's alone")
    elif topic == AUDIT:
        return  # every component has a log
    elif host is None:
        raise PeerError(Reason.IDENTITY_MISMATCH, "topic is not this identity's to write")
    elif topic != RECEIPTS:
        decide.dataset_of(view.policy, topic.removeprefix(GRANTS_PREFIX))


def _check_data(place: Place, view: View, host: HostId) -> None:
    dataset = decide.dataset_of(view.policy, place.topic)
    if place.partition >= dataset.partitions:
        raise PeerError(Reason.PARTITION_MISMATCH, "dataset has fewer partitions")
    if not decide.origins_of(dataset, host):
        raise DeniedError(Reason.NOT_A_PRODUCER, "host's system has no origin in this dataset")
