"""Which rows readers lack: noted when a sink of ours wrote them, forgotten when they go out whole.

The log may hold a part of such a row only, which is then to be made whole (postgresql_whole).
"""

import logging
from collections.abc import Mapping, Sequence, Set

from fabric.database.postgresql_token import PENDING, Token
from fabric.database.postgresql_window import Key
from fabric.model.change import Op
from fabric.ports import Captured

_LOG = logging.getLogger(__name__)


def noted(token: Token, foreign: Mapping[str, Set[Key]]) -> Token:
    """The token when sinks wrote these rows, by topic, in the transaction that it stands at.

    Of a dataset whose snapshot is yet to begin none is noted: that brings them.
    """
    for topic, keys in foreign.items():
        progress = token.snapshots[topic]
        if progress.state == PENDING:
            continue
        lacking = progress.with_foreign(keys, at=token.position)
        token = token.with_progress(topic, lacking)
        if lacking.lacks_any and not progress.lacks_any:
            _LOG.warning(
                "more rows were applied to table %s than are remembered: from now on the large"
                " values of every row that changes without them are read from the table, which is"
                " slower; see docs/operations.md, PostgreSQL",
                progress.table,
            )
    return token


def given(token: Token, captured: Captured, key: Sequence[str]) -> Token:
    """The token when readers are given a run: what it holds whole, or ends, they lack no more.

    The token that says so is of the end of the run's transaction at the earliest, like the run.
    Whatever makes a row anew comes whole, or is noted anew.
    """
    topic, run = str(captured.topic), captured.run
    progress = token.snapshots[topic]
    if progress.gone is None or run.absent:
        return token
    if run.op is Op.TRUNCATE:
        return token.with_progress(topic, progress.having(None))
    if progress.gone.keys is None:
        return token
    keys = {tuple(row[name] for name in key) for row in run.rows}
    if progress.gone.keys.isdisjoint(keys):
        return token
    return token.with_progress(topic, progress.having(keys))
