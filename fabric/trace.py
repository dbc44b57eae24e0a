"""Where a fault of ours came about, for a log: types and places, never what it was about.

An exception's text may quote a row: `int` quotes what it cannot read, fastavro the whole datum.
"""

import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import PurePath

from fabric.model.errors import FabricError

_FRAMES_MAX = 20
"""Places of one exception, the innermost."""
_LINES_MAX = 80
_DEPTH_MAX = 8
"""Causes of causes, and groups in groups."""


def trace(exc: BaseException) -> str:
    """Lines of an exception, its causes and the members of groups; of bounded length."""
    return "\n".join(islice(_lines(exc, "", _DEPTH_MAX), _LINES_MAX))


def _lines(exc: BaseException, what: str, depth: int) -> Iterator[str]:
    # The text of an error of ours holds no value.
    text = f": {exc}" if isinstance(exc, FabricError) else ""
    yield f"{what}{type(exc).__name__}{text}"
    for frame in traceback.extract_tb(exc.__traceback__)[-_FRAMES_MAX:]:
        path = PurePath(frame.filename)
        own = path.parts[::-1].index("fabric") + 1 if "fabric" in path.parts else 1
        yield f"  {'/'.join(path.parts[-own:])}:{frame.lineno} {frame.name}"
    if depth == 0:
        return
    if isinstance(exc, BaseExceptionGroup):
        for member in exc.exceptions:
            yield from _lines(member, "member ", depth - 1)
    cause = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    if cause is not None:
        yield from _lines(cause, "from ", depth - 1)
