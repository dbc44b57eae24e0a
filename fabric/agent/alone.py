"""Whether a change can be sent at all: alone in a block, or as one record of an open dataset.

What no block holds stops its stream for ever, so it is refused before it is stored.
"""

from collections.abc import Callable
from typing import TypeVar

from fabric.agent.open_form import encode
from fabric.model.block import Block, pack
from fabric.model.change import Change, Run
from fabric.model.errors import DeniedError, Reason
from fabric.model.limits import OPEN_RECORD_BYTES_MAX
from fabric.model.names import Origin, Stream
from fabric.policy import decide
from fabric.policy.types import Policy
from fabric.seal import plaintext

T = TypeVar("T")


def demand_room(policy: Policy, origin: Origin, change: Change) -> None:
    """Make what the dataset's lane would make of the change when it stands alone.

    Args:
        origin: under which the change is sent; its own is not looked at.

    Raises:
        DeniedError: TOO_LARGE, nothing holds it; the text goes on from the change's name.
            TOPIC_UNKNOWN, the policy does not say how it would be sent.
        Malformed: its row does not fit the schema.
    """
    dataset = decide.dataset_of(policy, str(change.topic))
    rule = decide.rule_of(policy, dataset)
    block = _block(change, origin)
    if not rule.sealed:
        _demand(
            lambda: encode(block, dataset),
            f"is larger than one open record may be, {OPEN_RECORD_BYTES_MAX} bytes, or has more"
            " values in its arrays",
        )
        return
    plain = _demand(
        lambda: pack(block, dataset.schema),
        "has more values in its arrays than one block holds",
    )
    _demand(
        lambda: plaintext.encode(plain, rule.coding, padding=False),
        f"is {len(plain)} bytes, more than one block holds",
    )


def _demand(work: Callable[[], T], words: str) -> T:
    try:
        return work()
    except DeniedError as exc:
        if exc.reason is not Reason.TOO_LARGE:
            raise
        raise DeniedError(Reason.TOO_LARGE, words) from None


def _block(change: Change, origin: Origin) -> Block:
    sequence = change.sequence
    rows = [] if change.row is None else [change.row]
    run = Run(
        op=change.op,
        position=sequence.position,
        ordinal=sequence.ordinal,
        commit_us=change.commit_us,
        rows=rows,
        absent=change.absent,
    )
    return Block(
        stream=Stream(origin, change.topic, 0),
        after=sequence._replace(ordinal=sequence.ordinal - 1),
        upto=sequence,
        runs=(run,),
    )
