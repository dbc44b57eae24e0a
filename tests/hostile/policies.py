"""What whoever serves the policy may do, one function a row, and what everybody must say of it.

A row: the reason that stands in each machine's audit log. It may hold the timestamp's and the
snapshot's key, which lie on a server, and one agency's; never the keys of two persons. An
honest policy may be published first, so that there is something to hold back or mix.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fabric.model.limits import POLICY_TIMESTAMP_BYTES_MAX
from tests.hostile.site import DATASET, LEVELS, Site

Do = Callable[[Site], Awaitable[None]]
AGENCY = "agency-G01"


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One row: what is done, the reason that all three give, the version that stays."""

    do: Do
    reason: str
    version: int


EDITS: dict[str, Edit] = {}


def edit(reason: str, version: int = 7) -> Callable[[Do], Do]:
    """Add a row to the table."""

    def add(do: Do) -> Do:
        EDITS[do.__name__] = Edit(do=do, reason=reason, version=version)
        return do

    return add


def over() -> datetime:
    return datetime.now(UTC) - timedelta(seconds=1)


async def honest_change(site: Site) -> None:
    """Version 8, which everybody takes."""
    site.change(citation="another law")
    site.written.publish()
    site.serve()
    await site.until_taken(8)


# Rolled back


@edit("replayed", 8)
async def an_older_policy_is_served_again(site: Site) -> None:
    old = site.file("metadata/timestamp.json")
    await honest_change(site)
    site.written.put("metadata/timestamp.json", old)


@edit("replayed", 8)
async def an_older_snapshot_is_put_under_a_new_timestamp(site: Site) -> None:
    await honest_change(site)
    site.written.time, site.written.version = 20, 7
    site.written.build()
    site.written.write()


# Frozen


@edit("policy_expired")
async def the_policy_is_frozen_until_its_timestamp_ends(site: Site) -> None:
    site.written.ends["timestamp"] = over()
    site.written.publish()


@edit("policy_expired")
async def a_dataset_whose_signature_has_ended_is_served(site: Site) -> None:
    site.written.ends[AGENCY] = over()
    site.written.publish()


@edit("policy_expired")
async def an_end_of_what_two_persons_signed_is_served(site: Site) -> None:
    site.written.ends["targets"] = over()
    site.written.publish()


# Mixed


@edit("bad_signature")
async def an_old_dataset_is_mixed_into_a_new_policy(site: Site) -> None:
    old = site.file(f"metadata/7.{AGENCY}.json")
    site.change(DATASET, history="from_join")
    site.written.publish()
    site.written.put(f"metadata/8.{AGENCY}.json", old)


@edit("replayed", 8)
async def an_old_approval_list_is_mixed_in_with_the_keys_of_the_server(site: Site) -> None:
    old = site.written.built["approvals"]
    await honest_change(site)
    site.written.build()
    site.written.built["approvals"] = old
    site.written.rebuild_snapshot()
    site.written.write()


# Wrongly signed


@edit("bad_signature")
async def another_key_signs_the_timestamp(site: Site) -> None:
    site.written.signers["timestamp"] = ["mallory"]
    site.written.publish()


@edit("bad_signature")
async def another_key_signs_the_snapshot(site: Site) -> None:
    site.written.signers["snapshot"] = ["mallory"]
    site.written.publish()


@edit("bad_signature")
async def another_person_signs_a_new_root(site: Site) -> None:
    site.written.root_version = 2
    site.written.signers["root"] = ["an", "mallory"]
    site.written.publish()


@edit("bad_signature")
async def one_of_two_persons_signs_the_levels(site: Site) -> None:
    site.change(delivery_s=300)
    site.written.signers["targets"] = ["an"]
    site.written.publish()


@edit("bad_signature")
async def one_of_two_persons_signs_an_approval(site: Site) -> None:
    site.written.signers["approvals"] = ["binh"]
    site.written.publish()


@edit("malformed")
async def the_timestamp_is_garbage(site: Site) -> None:
    site.written.put("metadata/timestamp.json", b"{}")


@edit("too_large")
async def the_timestamp_does_not_end(site: Site) -> None:
    site.written.put("metadata/timestamp.json", b" " * 2 * POLICY_TIMESTAMP_BYTES_MAX)


# A label is lowered


def other_bytes(site: Site, path: str, old: bytes, new: bytes) -> None:
    """Version 8 is signed with one file changed; other bytes of its length are served for it."""
    assert len(old) == len(new)
    site.written.publish()
    file = site.written.find(path)
    forged = file.read_bytes().replace(old, new)
    assert forged != file.read_bytes()
    file.write_bytes(forged)


@edit("bad_signature")
async def a_label_is_lowered_in_the_file_that_is_served(site: Site) -> None:
    site.change(DATASET, legal_basis="another law")
    other_bytes(site, DATASET, b"secret+personal-data", b"secret              ")


@edit("bad_signature")
async def a_label_is_lowered_with_the_keys_of_the_server(site: Site) -> None:
    site.change(DATASET, label="secret")
    site.written.signers[AGENCY] = ["online"]
    site.written.publish()


@edit("policy_invalid")
async def an_agency_lowers_a_label_below_its_floor(site: Site) -> None:
    site.change(DATASET, label="secret")
    site.written.publish()


@edit("policy_invalid")
async def an_agency_lowers_the_floor_under_its_label(site: Site) -> None:
    site.change("floors.yaml", floors={"G01/notes": "secret"})
    site.change(DATASET, label="secret")
    site.written.owner["floors.yaml"] = AGENCY
    site.written.publish()


@edit("policy_invalid")
async def a_sealed_level_becomes_an_open_one(site: Site) -> None:
    """Two persons would have signed it: a level that the law wants sealed is not taken open."""
    levels = site.written.content[LEVELS]
    site.written.content[LEVELS] = levels.replace(b"sealed: true", b"sealed: false")
    site.written.publish()


# A consumer is added


@edit("bad_signature")
async def a_consumer_is_added_in_the_file_that_is_served(site: Site) -> None:
    site.change(DATASET, legal_basis="another law")
    other_bytes(site, DATASET, b"G02/health", b"G03/statis")


@edit("bad_signature")
async def a_consumer_is_added_with_the_keys_of_the_server(site: Site) -> None:
    site.change(DATASET, consumers=["G02/health", "G03/statistics"])
    site.written.signers[AGENCY] = ["online"]
    site.written.publish()


@edit("policy_invalid")
async def an_agency_adds_itself_to_anothers_consumers(site: Site) -> None:
    site.change(DATASET, consumers=["G02/health", "G03/statistics"])
    site.written.keys["agency-G03"], site.written.threshold["agency-G03"] = ["agency-G03"], 1
    site.written.owner[DATASET] = "agency-G03"
    site.written.publish()


@edit("policy_invalid")
async def an_agency_signs_an_approval_for_a_host(site: Site) -> None:
    name = next(path for path in site.written.content if path.startswith("approvals/"))
    site.written.owner[name] = AGENCY
    site.written.publish()
