"""fabric.database.finding"""

from fabric.database.finding import failed, ill, parked, well
from fabric.model.errors import ConfigInvalid, Reason


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
