"""A publisher's wrong clock is told by what stands in the repository, without a network."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from fabric.model.errors import Reason, UsageError
from fabric.model.limits import CLOCK_SKEW_S_MAX, TIMESTAMP_VALID_S_MAX
from fabric.policy import roles
from fabric.repository.publish_clock import check_not_ahead, check_not_behind
from fabric.repository.published import Published, read_published
from fabric.repository.publishing import publish
from fabric.repository.staging import Workspace, read_staged, sign
from fabric.repository.timestamp import Renewal
from tests.fakes.policy_repository import key
from tests.fakes.policy_workspace import ONLINE, SIGNERS, make_workspace, publish_all

NOW = datetime.now(UTC).replace(microsecond=0)
SKEW = timedelta(seconds=CLOCK_SKEW_S_MAX)
PAUSE = timedelta(seconds=TIMESTAMP_VALID_S_MAX)
DAY = timedelta(days=1)
"""What the timestamp of this workspace holds."""


@pytest.fixture(name="workspace")
def _workspace(tmp_path: Path) -> Workspace:
    return publish_all(make_workspace(tmp_path), NOW)


def refused(workspace: Workspace, now: datetime) -> UsageError:
    """The refusal, which changes nothing."""
    before = stands(workspace)
    with pytest.raises(UsageError) as caught:
        publish(workspace, ONLINE, now)
    assert stands(workspace) == before
    assert "publish with --clock-is-right when it is right" in str(caught.value)
    return caught.value


def stands(workspace: Workspace) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in workspace.folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def rename_agency(workspace: Workspace, name: str) -> None:
    (workspace.source / "agencies/G01.yaml").write_text(yaml.safe_dump({"name": name}))


def test_a_clock_behind_the_newest_timestamp_publishes_nothing(workspace: Workspace) -> None:
    error = refused(workspace, NOW - SKEW - timedelta(seconds=1))
    assert error.reason is Reason.CLOCK_WENT_BACK
    assert "system clock is 31 s behind the repository's timestamp" in str(error)


def test_a_clock_behind_by_the_allowed_skew_publishes(workspace: Workspace) -> None:
    assert publish(workspace, ONLINE, NOW - SKEW).expires == NOW - SKEW + DAY


def test_a_clock_behind_costs_nobody_a_signature(workspace: Workspace) -> None:
    """Staging by a clock that is days behind drops what others signed."""
    rename_agency(workspace, "Other")
    for name in ("an", "binh"):
        sign(workspace, key(name), NOW)
    refused(workspace, NOW - timedelta(days=400))
    assert len(read_staged(workspace)[roles.TARGETS].signatures) == 2
    assert publish(workspace, ONLINE, NOW).roles == (roles.TARGETS,)


def test_a_renewal_of_the_authority_counts_as_a_signed_time(workspace: Workspace) -> None:
    path = workspace.repository / "metadata" / "timestamp.json"
    renewal = Renewal(workspace.repository, key("timestamp"), valid_s=DAY.total_seconds())
    assert renewal.renew(NOW + timedelta(hours=20), path.read_bytes())
    assert refused(workspace, NOW + timedelta(hours=1)).reason is Reason.CLOCK_WENT_BACK


def test_a_word_of_the_publisher_lets_a_clock_count_that_is_behind(workspace: Workspace) -> None:
    """The last publication was the one with the wrong clock."""
    publish(workspace, ONLINE, NOW + timedelta(days=20))
    assert refused(workspace, NOW).reason is Reason.CLOCK_WENT_BACK
    assert publish(workspace, ONLINE, NOW, clock_is_right=True).expires == NOW + DAY


def test_a_clock_far_ahead_of_everything_signed_publishes_nothing(workspace: Workspace) -> None:
    now = NOW + DAY + PAUSE + timedelta(seconds=1)
    error = refused(workspace, now)
    assert error.reason is Reason.FROM_THE_FUTURE
    assert "system clock is 30 days ahead of the last signature" in str(error)
    assert publish(workspace, ONLINE, now, clock_is_right=True).expires == now + DAY


def test_a_publisher_who_comes_after_weeks_needs_no_word(workspace: Workspace) -> None:
    assert publish(workspace, ONLINE, NOW + DAY + PAUSE).expires == NOW + DAY + PAUSE + DAY


@pytest.mark.parametrize("later", [timedelta(days=200), timedelta(days=800)])
def test_a_publisher_with_fresh_signatures_needs_no_word_after_any_pause(
    workspace: Workspace, later: timedelta
) -> None:
    for name in SIGNERS:
        sign(workspace, key(name), NOW + later, renew=True)
    done = publish(workspace, ONLINE, NOW + later + timedelta(days=20))
    assert done.version == 2


def test_signatures_of_a_right_clock_tell_a_publishers_wrong_one(workspace: Workspace) -> None:
    rename_agency(workspace, "Other")
    for name in ("an", "binh"):
        sign(workspace, key(name), NOW)
    error = refused(workspace, NOW + timedelta(days=100))
    assert "system clock is 99 days ahead" in str(error)


def test_the_first_publication_has_the_persons_signatures_to_go_by(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path)
    for name in SIGNERS:
        sign(workspace, key(name), NOW)
    error = refused(workspace, NOW + timedelta(days=100))
    assert error.reason is Reason.FROM_THE_FUTURE
    assert publish(workspace, ONLINE, NOW).version == 1


def test_nothing_that_was_signed_gainsays_no_clock(workspace: Workspace) -> None:
    check_not_behind(Published(), NOW)
    check_not_ahead(Published(), {}, workspace.roster(), NOW)


def test_a_timestamp_whose_version_is_no_time_gainsays_no_clock(workspace: Workspace) -> None:
    """Other writers of such repositories count from 1; and none may be beyond the calendar."""
    before = read_published(workspace.repository)
    for version, is_behind in ((1, False), (2**62, True)):
        text = before.metadata[roles.TIMESTAMP].replace(
            f'"version":{int(NOW.timestamp())}'.encode(), f'"version":{version}'.encode()
        )
        assert text != before.metadata[roles.TIMESTAMP]
        changed = Published(roots=before.roots, metadata={roles.TIMESTAMP: text})
        if is_behind:
            with pytest.raises(UsageError):
                check_not_behind(changed, NOW)
        else:
            check_not_behind(changed, NOW)
