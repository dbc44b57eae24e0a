"""Write the vectors of the members topic: `python tests/vectors/members/generate.py` from the root.

Each is a view that reads `records` in their order, signed by the Ed25519 key
`verifier`, and then is asked at `now` whether it is whole. It has:

    comment   what is shown, in one sentence
    musts     the rules of docs/format.md that it is about
    verifier  public key, hexadecimal
    former    its key of before, if the policy names one
    now       milliseconds since 1970
    records   [key, value] each, hexadecimal
    number    the last notice that the view holds without a gap
    listed    the hash of its list up to that notice, hexadecimal
    whole     milliseconds of the newest heartbeat that it is whole for, or null
    refused   reason with which a record was refused, by its place
"""

import json
import sys
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))

from fabric.attest import cose, fields
from fabric.attest.keys import Alg, SigningKey
from fabric.attest.members import Heartbeat, Notice, NoticeKind, heartbeat_record, notice_record
from fabric.attest.notices import NO_NOTICES, listed_with
from fabric.model import canonical
from fabric.model.errors import Reason
from fabric.model.names import HostId
from tests.fakes.sealing import NOW, fixed

FOLDER = Path(__file__).parent
PEN = SigningKey.from_private_bytes(Alg.ED25519, fixed("verifier"))
FORMER_PEN = SigningKey.from_private_bytes(Alg.ED25519, fixed("verifier before"))
OTHER_PEN = SigningKey.from_private_bytes(Alg.ED25519, fixed("somebody"))
SECOND = timedelta(seconds=1)
Record = tuple[bytes, bytes]


def notice(number: int, name: str = "a1", heads: int = 0) -> Notice:
    """A revocation of a host of G01."""
    return Notice(
        number=number,
        host=HostId.parse(f"G01/registry/{name}"),
        kind=NoticeKind.REVOCATION,
        approval=1,
        why=Reason.HOST_REVOKED,
        at=fields.instant(fields.milliseconds(NOW + number * SECOND), "time"),
        heads=tuple(fixed(f"head {number} {at}") for at in range(heads)),
    )


NOTICES = (notice(1), notice(2, "a2", heads=2), notice(3, "a3"))


def listed(notices: Iterable[Notice]) -> bytes:
    """Hash of a list."""
    found = NO_NOTICES
    for item in notices:
        found = listed_with(found, item)
    return found


def told(item: Notice, *pens: SigningKey) -> Record:
    """A notice's record, by the verifier unless others sign it."""
    return notice_record(item, pens or [PEN])


def beat(number: int, seconds: int, of: bytes | None = None) -> Record:
    """A heartbeat's record; `of` another hash than the list's."""
    made = Heartbeat(
        number=number,
        listed=of or listed(NOTICES[:number]),
        at=fields.instant(fields.milliseconds(NOW + seconds * SECOND), "time"),
    )
    return heartbeat_record(made, [PEN])


def raw(kind: str, key: bytes, content: dict[int, canonical.Value]) -> Record:
    """A signed record of any content."""
    head = canonical.encode({16: kind})
    return key, cose.sign(kind, head, canonical.encode(content), [PEN])


def vector(
    comment: str,
    records: Iterable[Record],
    *,
    number: int,
    whole: int | None,
    musts: Iterable[str] = ("MUST-9.31", "MUST-9.32"),
    refused: dict[int, str] | None = None,
) -> dict[str, Any]:
    """One vector; `whole` in seconds."""
    return {
        "comment": comment,
        "musts": [*musts],
        "verifier": PEN.public.data.hex(),
        "records": [[key.hex(), value.hex()] for key, value in records],
        "number": number,
        "listed": listed(NOTICES[:number]).hex(),
        "whole": None if whole is None else fields.milliseconds(NOW + whole * SECOND),
        "refused": {str(at): why for at, why in (refused or {}).items()},
    }


def changing(*args: Any, **fields: Any) -> dict[str, Any]:
    """A vector under a policy that names the verifier's key of before, too."""
    made = vector(*args, musts=["MUST-9.41"], **fields)
    return {**made, "former": FORMER_PEN.public.data.hex()}


def vectors() -> dict[str, Callable[[], dict[str, Any]]]:
    """Makers by name."""
    one, two, three = (told(item) for item in NOTICES)
    key = b"verifier/heartbeat"
    short = {0: 0, 1: 0, 2: 1_795_507_200_000}
    signed_again = notice_record(NOTICES[0], [PEN])
    return {
        "none": lambda: vector("a view without any notice", [beat(0, 9)], number=0, whole=9),
        "good": lambda: vector(
            "three notices and their heartbeat", [one, two, three, beat(3, 9)], number=3, whole=9
        ),
        "any-order": lambda: vector(
            "the order of records does not matter",
            [beat(3, 9), three, one, two, signed_again],
            number=3,
            whole=9,
        ),
        "heartbeat-before": lambda: vector(
            "an older heartbeat holds, too", [one, two, three, beat(1, 5)], number=3, whole=5
        ),
        "hidden-last": lambda: vector(
            "the last notice is hidden", [one, two, beat(2, 4), beat(3, 9)], number=2, whole=4
        ),
        "hidden-first": lambda: vector(
            "a gap below", [two, three, beat(3, 9)], number=0, whole=None
        ),
        "hidden-middle": lambda: vector(
            "a gap between, and only an old heartbeat",
            [one, three, beat(1, 9)],
            number=1,
            whole=None,
        ),
        "other-list": lambda: vector(
            "the heartbeat is over another list",
            [one, two, beat(2, 9, listed([NOTICES[0], notice(2, "b2")]))],
            number=2,
            whole=None,
        ),
        "list-without-heads": lambda: vector(
            "the hash covers a notice's heads",
            [one, two, beat(2, 9, listed([NOTICES[0], notice(2, "a2")]))],
            number=2,
            whole=None,
        ),
        "two-of-one-number": lambda: vector(
            "two notices of one number leave no view whole",
            [one, told(notice(1, "b1")), beat(1, 9)],
            number=1,
            whole=None,
            refused={1: "fork"},
        ),
        "forged-notice": lambda: vector(
            "a notice by somebody else is no notice",
            [told(NOTICES[0], OTHER_PEN), beat(0, 9)],
            number=0,
            whole=9,
            refused={0: "bad_signature"},
        ),
        "former-key": lambda: changing(
            "a notice by the key of before counts while the policy names it",
            [told(NOTICES[0], FORMER_PEN), two, beat(2, 9)],
            number=2,
            whole=9,
        ),
        "former-key-gone": lambda: vector(
            "a notice by a key of before that the policy does not name says nothing",
            [told(NOTICES[0], FORMER_PEN), beat(0, 9)],
            number=0,
            whole=9,
            musts=["MUST-9.41"],
            refused={0: "bad_signature"},
        ),
        "former-key-mixed": lambda: changing(
            "keys of both lists together say nothing, in either order",
            [
                told(NOTICES[0], PEN, FORMER_PEN),
                told(NOTICES[0], FORMER_PEN, PEN),
                told(NOTICES[0], OTHER_PEN),
                beat(0, 9),
            ],
            number=0,
            whole=9,
            refused=dict.fromkeys(range(3), "bad_signature"),
        ),
        "without-list": lambda: vector(
            "a heartbeat without the hash of the list",
            [raw("heartbeat", key, {**short})],
            number=0,
            whole=None,
            refused={0: "malformed"},
        ),
        "short-list": lambda: vector(
            "a hash of 31 bytes",
            [raw("heartbeat", key, {**short, 3: bytes(31)})],
            number=0,
            whole=None,
            refused={0: "malformed"},
        ),
    }


def main() -> None:
    """Write every vector."""
    for name, make in vectors().items():
        (FOLDER / f"{name}.json").write_text(json.dumps(make(), indent=1) + "\n")


if __name__ == "__main__":
    main()
