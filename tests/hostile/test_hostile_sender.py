"""The log that a sender writes to is put back to an old copy: the sender notices by itself.

It stops by name, seals nothing more on the old chain, has it in its audit log, and reads its
source anew, so that the reader ends with the sender's rows and with none twice.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric.agent import lag_meter, parts, reading, supervisor
from fabric.model.change import ZERO
from fabric.seal import envelope as form
from tests.fakes.platform import SECRET
from tests.fakes.running import table, until
from tests.hostile.site import Site, notes
from tests.support.hostile_log import Place

P0: Place = (str(SECRET), 0)
Do = Callable[[Site], None]
EDITS: dict[str, Do] = {}


def edit(do: Do) -> Do:
    """Add a row: what is done to the log while the sender is away, or running."""
    EDITS[do.__name__] = do
    return do


@edit
def the_last_block_is_gone(site: Site) -> None:
    site.log.cut(P0, site.stored() - 1)


@edit
def an_old_copy_of_the_log_is_put_back(site: Site) -> None:
    site.log.cut(P0, 1)


@edit
def the_log_is_empty(site: Site) -> None:
    site.log.cut(P0, 0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked at every few seconds is looked at at once."""
    monkeypatch.setattr(lag_meter, "_LAG_S", 0.02)
    monkeypatch.setattr(reading, "_PAUSE_S", 0.02)


@pytest.fixture
def _anew_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender begins again at once; nobody here gives the new result that it asks for."""
    monkeypatch.setattr(supervisor, "_HOLD_S", 0.05)
    monkeypatch.setattr(parts, "_ATTEST_S_MAX", 0.05)


@pytest.mark.parametrize("name", EDITS)
async def test_a_running_sender_stops_by_name_and_seals_nothing_more(name: str, site: Site) -> None:
    async with site.running():
        site.database.upsert(table(), notes(100, 5))
        await site.until_applied()
        EDITS[name](site)
        kept = site.stored()
        site.database.upsert(table(), notes(200, 5))
        await site.until_said("block_refused", "log_went_back", "sender")
        await until(lambda: "log_went_back" in site.a.board.problems.get("capture main", ""))
        for number in range(5):
            site.database.upsert(table(), notes(300 + number, 1))
        await asyncio.sleep(0.3)
        assert site.stored() == kept + 1


@pytest.mark.usefixtures("_anew_soon")
@pytest.mark.parametrize("name", EDITS)
async def test_a_sender_that_starts_reads_its_source_anew(name: str, site: Site) -> None:
    async with site.running():
        site.database.upsert(table(), notes(100, 5))
        await site.until_applied()
    EDITS[name](site)
    kept = site.stored()
    site.database.upsert(table(), notes(200, 5))
    site.database.delete(table(), [{"id": 3}])
    site.again()
    async with site.running():
        pass
    assert ("log_went_back", "") in site.said("sender")
    first = form.parse(site.log.values(str(SECRET))[kept]).header
    assert (first.after, first.counter) == (ZERO, 0)


@pytest.mark.usefixtures("_anew_soon")
@pytest.mark.parametrize("name", EDITS)
async def test_a_running_sender_reads_its_source_anew_and_the_reader_loses_nothing(
    name: str, site: Site
) -> None:
    async with site.running():
        site.database.upsert(table(), notes(100, 5))
        await site.until_applied()
        EDITS[name](site)
        site.database.upsert(table(), notes(200, 5))
        site.database.delete(table(), [{"id": 3}])
        await site.until_said("log_went_back", "", "sender")
        await site.until_applied()
