"""fabric.database.finding"""

from dataclasses import replace

from fabric.database.finding import failed, ill, parked, well, whole
from fabric.model.change import ZERO
from fabric.model.errors import ConfigInvalid, Reason
from fabric.ports import StreamState
from tests.fakes.sealing import TOPIC


def test_what_is_well_has_no_reason_and_what_failed_has_the_errors() -> None:
    assert well("server", "PostgreSQL 15").reason is None
    assert ill("server", Reason.SOURCE_UNFIT, "too old", "a newer one").remedy == "a newer one"
    found = failed("server", ConfigInvalid("url: no"))
    assert (found.part, found.seen, found.reason) == ("server", "url: no", Reason.CONFIG_INVALID)


def test_what_waits_in_quarantine_waits_for_a_person() -> None:
    assert parked(0).reason is None
    found = parked(3)
    assert found.reason is Reason.APPLY_FAILED
    assert "3 changes" in found.seen
    assert "fabric quarantine" in found.remedy


LACKING = StreamState(
    high=ZERO, chain=b"", offset=0, cluster="", topic_id="", incomplete=True, in_snapshot=False
)


def test_a_dataset_that_may_lack_rows_is_said_with_cause_and_remedy() -> None:
    complete, copying = replace(LACKING, incomplete=False), replace(LACKING, in_snapshot=True)
    assert whole(TOPIC, ()).reason is None
    assert whole(TOPIC, [complete]).reason is None
    waits, stays = whole(TOPIC, [complete, copying]), whole(TOPIC, [copying, LACKING])
    assert (waits.part, waits.reason) == (f"dataset {TOPIC}", Reason.NOT_READY)
    assert "its end has not come" in waits.seen
    assert waits.remedy.startswith("wait")
    assert stays.reason is Reason.NOT_READY
    assert "no snapshot runs" in stays.seen
    assert "DatasetIncomplete" in stays.remedy
