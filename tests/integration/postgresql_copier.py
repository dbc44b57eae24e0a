"""A small agent for tests: copies one table from one PostgreSQL to another until it is killed.

Usage: python postgresql_copier.py SOURCE_URL TARGET_URL STATE_FILE. Order of effects as in
the real one: rows and state in the target, then the token on disk, then the release.
"""

import asyncio
import sys
from pathlib import Path

from fabric.model.block import Block, trim
from fabric.model.change import ZERO, Run, end_of
from fabric.ports import Captured, StreamState
from tests.contract.postgresql_cases import STREAM, applying, new_source


async def copy(source_url: str, target_url: str, state_file: Path) -> None:
    resume = state_file.read_text() if state_file.exists() else None
    source = new_source(source_url, slot="fabric_copier", chunk_rows=200)
    async with applying(target_url) as writer:
        sink = writer.sink
        opened = await source.open(resume)
        state = await sink.state(STREAM)
        runs: list[Run] = []
        async for event in source.read():
            if isinstance(event, Captured):
                runs.append(event.run)
                continue
            upto = end_of(opened.generation, event.position)
            block = Block(stream=STREAM, after=ZERO, upto=upto, runs=tuple(runs))
            runs = []
            if state is None or upto > state.high:
                block = trim(block, state.high) if state else block
                new = StreamState(
                    high=upto, chain=b"", offset=1, cluster="", topic_id="", incomplete=False
                )
                state = (await sink.apply(block, state, new)).state
            part = state_file.with_suffix(".part")
            part.write_text(event.resume)
            part.rename(state_file)
            await source.release(event.position)


if __name__ == "__main__":
    asyncio.run(copy(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
