"""Rows for people say what the ledger holds."""

from fabric.attest.appraise import Enrolment
from fabric.authority import listing
from fabric.authority.ledger_rows import EnrolmentEntry, HostEntry
from tests.fakes.verifier import HOST, NOW, a_result, a_state


def test_an_enrolment_shows_what_an_approval_needs() -> None:
    made = Enrolment(host=HOST, ek_sha256=b"e", ek_name=b"n", ak_public=b"p", ak_name=b"a")
    row = listing.enrolment(EnrolmentEntry(enrolment=made, at=NOW))
    assert (row["host"], row["ek_sha256"], row["ak_name"]) == (str(HOST), "65", "61")


def test_a_host_without_a_result_has_no_level() -> None:
    state = a_state(a_result())
    row = listing.host("suspended", HostEntry(state=state, standing=None))
    assert (row["state"], row["level"], row["clearance"]) == ("suspended", 0, "")
    assert row["result"] == state.result_id.hex()
