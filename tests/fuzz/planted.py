"""`python -m tests.fuzz.planted FOLDER`: targets with a planted fault each, to try the fuzzer on.

A process of its own: an uncaught error ends a fork of it as it would end the whole run.
"""

import json
import sys
from pathlib import Path

from tests.fuzz.engine import Folders, fuzz
from tests.fuzz.target import Target


def _raises(data: bytes) -> None:
    if data[:2] == b"ok":
        raise ZeroDivisionError("planted")


def _differs(data: bytes) -> None:
    assert data != b"ok", "written back as other bytes"


PLANTED = [
    Target(name="raises", parse=_raises, seeds=lambda: [b"oj"]),
    Target(name="differs", parse=_differs, seeds=lambda: [b"ok"]),
    Target(name="grows", parse=lambda data: bytearray(2**31), seeds=lambda: [b"ok"]),
    Target(name="good", parse=len, seeds=lambda: [b"ok"]),
]


def main(folder: Path) -> None:
    """Print what the fuzzer says of each, as JSON: the finding, and inputs it left."""
    folders = Folders(corpus=folder / "c", findings=folder / "f", logs=folder / "l")
    said = {}
    for target in PLANTED:
        outcome = fuzz(target, folders, 1.0)
        left = [path.name for path in (folders.findings / target.name).iterdir()]
        said[target.name] = (outcome.finding, len(left))
    print(json.dumps(said))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
