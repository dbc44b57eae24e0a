"""What the ledger holds, in words for people: one row for an enrolment or a host. Pure."""

from fabric.authority.ledger_rows import EnrolmentEntry, HostEntry

Row = dict[str, str | int]


def enrolment(entry: EnrolmentEntry) -> Row:
    """An enrolment, with the key's name that an approval needs."""
    return {
        "host": str(entry.enrolment.host),
        "ek_sha256": entry.enrolment.ek_sha256.hex(),
        "ak_name": entry.enrolment.ak_name.hex(),
        "enrolled": entry.at.isoformat(timespec="seconds"),
    }


def host(word: str, entry: HostEntry) -> Row:
    """A host; `word` is its state as others see it."""
    return {
        "host": str(entry.state.host),
        "state": word,
        "level": entry.standing.level if entry.standing else 0,
        "clearance": str(entry.standing.clearance) if entry.standing else "",
        "approval": entry.state.approval,
        "number": entry.state.number,
        "result": entry.state.result_id.hex(),
        "since": entry.state.since.isoformat(timespec="seconds"),
        "expires": entry.state.expires.isoformat(timespec="seconds"),
    }
