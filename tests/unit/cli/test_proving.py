"""`fabric audit prove` on a platform in memory: two hosts, real seals, real receipts."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.admit.proof import Unproved, prove_block
from fabric.admit.view import Place, View
from fabric.agent.identity import Identity
from fabric.attest.members import Members, result_record
from fabric.cli import attest, finding, proving
from fabric.cli.anchored import anchored
from fabric.config import AgentConfig
from fabric.model.errors import Reason
from fabric.model.names import MEMBERS, RECEIPTS, RESULTS, grants_topic
from fabric.policy.types import Policy
from fabric.ports import Record
from fabric.seal import envelope as form
from tests.fakes.agent_page import write_config
from tests.fakes.log import MemoryLog
from tests.fakes.platform import SECRET, A, B, Platform, TestHost
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase
from tests.fakes.table import MemoryStore
from tests.fakes.verifier import OTHER, a_result
from tests.unit.agent.test_reading import notes, publish
from tests.unit.agent.test_receipting import acknowledged, hashes, issuing

TOPIC = str(SECRET)


@dataclass
class Site:
    """A published and acknowledged dataset, and the agent.toml of its reader."""

    platform: Platform
    b: TestHost
    config: Path
    folder: Path

    def prove(self, fabric, where: str, *more: str):
        return fabric("audit", "prove", where, "-c", self.config, *more)


async def live(platform: Platform, folder: Path) -> TestHost:
    """Send fifty notes, then change one; B applies and acknowledges all."""
    platform.admit(A)
    a = TestHost(platform, A, folder / "a").open()
    b = TestHost(platform, B, folder / "b").open()
    a.attest()
    b.attest()
    database = MemoryDatabase([table()])
    database.upsert(table(), notes(0, 50))
    await publish(platform, a, database)
    database.upsert(table(), [{"id": 7, "text": "changed"}])
    await publish(platform, a, database)
    issuing(b)
    async with running() as parts:
        await parts.view(b, SECRET)
        parts.apply(b, MemoryStore())
        await until(lambda: acknowledged(platform) == hashes(platform))
    b.host.identity.close()
    return b


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Platform, TestHost]:
    platform = Platform()
    return platform, asyncio.run(live(platform, tmp_path_factory.mktemp("platform")))


@pytest.fixture
def site(lived: tuple[Platform, TestHost], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    platform, b = lived
    copied = {place: [*records] for place, records in platform.log.records.items()}
    monkeypatch.setattr(platform.log, "records", copied)

    @contextlib.asynccontextmanager
    async def opened(config: AgentConfig) -> AsyncIterator[MemoryLog]:
        yield platform.log

    async def members(config: AgentConfig) -> Members:
        return platform.members

    def identity(config: AgentConfig) -> Identity:
        found = Identity(b.folder, b.tpm, ca=b.folder / "ca.pem", stores=())
        found.open_existing()
        return found

    monkeypatch.setattr(proving, "log_of", opened)
    monkeypatch.setattr(proving, "policy_of", lambda _: platform.policy)
    monkeypatch.setattr(proving, "read_members", members)
    monkeypatch.setattr(finding, "_identity", identity)
    config = write_config(tmp_path, host=str(B))
    (tmp_path / "state").mkdir(exist_ok=True)
    return Site(platform, b, config, tmp_path)


def test_a_block_is_proved_from_seal_to_receipt(fabric, site: Site) -> None:
    done = site.prove(fabric, f"{TOPIC}:0:0", "-o", "json")
    told = done.json
    assert (done.code, told["holds"]) == (0, True)
    envelope = form.parse(site.platform.log.values(TOPIC)[0])
    assert told["block"]["envelope"] == envelope.hash.hex()
    assert told["sealed_by"] == {"host": str(A), "agency": "Registry", "suite": "classic"}
    result = site.platform.members.result(envelope.header.result_id)
    assert told["attested"]["result"] == result.id.hex()
    assert told["attested"]["approval"] == 1
    assert told["attested"]["quote_sha256"] == result.quote_digest.hex()
    assert told["allowed_by"]["policy_version"] == 7
    assert "host level at least 4" in told["allowed_by"]["rule"]
    assert told["allowed_by"]["consumers"] == ["G02/health"]
    assert told["granted_to"] == [str(A), str(B)]
    [word] = told["acknowledged_by"]
    assert (word["host"], word["names_the_envelope"]) == (str(B), True)


def test_a_proof_for_people_names_everything(fabric, site: Site) -> None:
    done = site.prove(fabric, f"{TOPIC}:0:0")
    assert done.code == 0
    for text in (str(A), str(B), "Registry", "approval", "quote sha256", "citation", "receipt"):
        assert text in done.out


def test_a_row_is_found_by_its_key_and_that_is_audited(fabric, site: Site) -> None:
    done = site.prove(fabric, TOPIC, "--key", "7", "-o", "json")
    assert done.code == 0
    assert done.json["change"]["operation"] == "upsert"
    place = int(done.json["block"]["place"].rpartition(":")[2])
    assert place > 0, "the newest change of the row, not its first"
    same = site.prove(fabric, TOPIC, "--key", '{"id": 7}', "-o", "json")
    assert same.json["block"] == done.json["block"]
    lines = (site.folder / "state" / finding.AUDIT_FILE).read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["log_began", "blocks_opened", "blocks_opened"]
    assert events[1]["fields"] == {"topic": TOPIC, "partition": 0, "for": "prove"}
    assert "note number" not in done.out
    assert "changed" not in done.out


def test_opening_that_cannot_be_audited_is_refused(
    fabric, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(finding.FileAudit):
        def write(self, event: str, fields: object) -> None:
            self._failed()

    monkeypatch.setattr(finding, "FileAudit", Full)
    done = site.prove(fabric, TOPIC, "--key", "7")
    assert (done.code, "not audited" in done.err) == (1, True)


def test_a_row_that_is_not_there_and_a_key_that_is_none_say_so(fabric, site: Site) -> None:
    assert site.prove(fabric, TOPIC, "--key", "12345").code == 2
    assert site.prove(fabric, TOPIC, "--key", '{"other": 1}').code == 2
    assert site.prove(fabric, TOPIC, "--key", '"text"').code == 1
    assert site.prove(fabric, TOPIC).code == 2


@pytest.mark.parametrize("key", ['{"id": ', "[7", "seven"])
def test_a_key_that_is_no_json_is_told_what_to_give(fabric, site: Site, key: str) -> None:
    done = site.prove(fabric, TOPIC, "--key", key)
    said = "--key is no JSON: give an object of the key columns (id)"
    assert (done.code, said in done.err) == (2, True)


@pytest.fixture
def reading(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Members and results are read from the log, as on a host."""

    @contextlib.asynccontextmanager
    async def opened(config: AgentConfig) -> AsyncIterator[MemoryLog]:
        yield site.platform.log

    monkeypatch.setattr(proving, "read_members", attest.read_members)
    monkeypatch.setattr(attest, "log_of", opened)
    monkeypatch.setattr(attest, "policy_of", lambda _: site.platform.policy)
    return site


def test_a_result_is_found_among_many_and_forged_ones(fabric, reading: Site) -> None:
    platform = reading.platform
    domain, signers = platform.policy.trust.trust_domain, platform.verifier.signers
    own = platform.log.records.pop((RESULTS, 0))
    for number in range(100):
        other = a_result(id=number.to_bytes(16), host=OTHER)
        platform.log.put(RESULTS, 0, *result_record(other, domain, signers))
        platform.log.put(RESULTS, 0, b"verifier/result/forged", b"forged")
    for record in own:
        platform.log.put(RESULTS, 0, record.key, record.value)
    done = reading.prove(fabric, f"{TOPIC}:0:0", "-o", "json")
    assert (done.code, done.json["holds"]) == (0, True)


@pytest.mark.parametrize("silent", [RESULTS, MEMBERS, grants_topic(SECRET), RECEIPTS])
def test_a_control_topic_that_does_not_come_is_named_and_the_proof_ends(
    fabric, reading: Site, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    read = reading.platform.log.read

    async def stands_still(
        topic: str, partition: int, offset: int
    ) -> AsyncIterator[Sequence[Record]]:
        async for batch in read(topic, partition, offset):
            while topic == silent:
                await asyncio.sleep(0.01)
                yield ()
            yield batch

    monkeypatch.setattr(reading.platform.log, "read", stands_still)
    monkeypatch.setattr("fabric.cli.topics.REQUEST_S_MAX", 0.2)
    done = reading.prove(fabric, f"{TOPIC}:0:0")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"fabric: broker_unavailable: {silent} was not read in time\n"


def spoil(site: Site, topic: str) -> None:
    """Flip a bit in the last byte of every record of a topic."""
    records = site.platform.log.records[topic, 0]
    site.platform.log.records[topic, 0] = [
        replace(record, value=record.value[:-1] + bytes([record.value[-1] ^ 1]))
        for record in records
    ]


@pytest.mark.parametrize(
    ("topic", "step"),
    [(TOPIC, "signatures"), (grants_topic(SECRET), "epoch"), (RECEIPTS, "receipt")],
)
def test_the_first_thing_that_does_not_hold_is_named(
    fabric, site: Site, topic: str, step: str
) -> None:
    spoil(site, topic)
    done = site.prove(fabric, f"{TOPIC}:0:0")
    assert (done.code, f"{step} does not hold" in done.err) == (1, True)
    told = site.prove(fabric, f"{TOPIC}:0:0", "-o", "json")
    assert (told.code, told.json["holds"], told.json["step"]) == (1, False, step)


def test_a_block_nobody_acknowledged_is_still_proved(fabric, site: Site) -> None:
    site.platform.log.records.pop((RECEIPTS, 0))
    done = site.prove(fabric, f"{TOPIC}:0:0", "-o", "json")
    assert (done.code, done.json["acknowledged_by"]) == (0, [])


def existed(site: Site, *, members: Members, later: timedelta, policy: Policy | None = None) -> str:
    platform = site.platform
    record = platform.log.records[TOPIC, 0][0]
    view = View(policy or platform.policy, members)
    place = Place(TOPIC, 0)
    verified = prove_block(record.value or b"", place, view, appended=record.timestamp)
    now = datetime.now(UTC) + later
    return asyncio.run(anchored(platform.log, view, record, verified, now=now))


def retold(platform: Platform, *heads: bytes) -> Members:
    """The members as they stand, and one more result of the sender that carries heads."""
    members = Members(platform.policy.trust)
    for topic in (RESULTS, MEMBERS):
        for record in platform.log.records[topic, 0]:
            members.feed(topic, record.key or b"", record.value or b"")
    old = members.result(form.parse(platform.log.values(TOPIC)[0]).header.result_id)
    result = replace(old, id=bytes(16), heads=heads)
    domain, signers = platform.policy.trust.trust_domain, platform.verifier.signers
    members.feed(RESULTS, *result_record(result, domain, signers))
    return members


def test_a_block_of_a_lapsed_sender_is_proved_by_a_carried_head_alone(site: Site) -> None:
    platform, day = site.platform, timedelta(days=1)
    last = form.parse(platform.log.values(TOPIC)[-1]).hash
    assert "trusted still" in existed(site, members=retold(platform), later=timedelta(0))
    assert "leads back to it" in existed(site, members=retold(platform, last), later=day)
    with pytest.raises(Unproved, match="anchor does not hold") as caught:
        existed(site, members=retold(platform, bytes(32)), later=day)
    assert caught.value.reason is Reason.UNANCHORED


def test_a_block_of_a_sender_that_is_not_approved_any_more_is_proved_by_a_carried_head_alone(
    site: Site,
) -> None:
    platform, now = site.platform, timedelta(0)
    last = form.parse(platform.log.values(TOPIC)[-1]).hash
    withdrawn = replace(platform.policy, approvals={})
    members = retold(platform, last)
    assert "leads back to it" in existed(site, members=members, later=now, policy=withdrawn)
    with pytest.raises(Unproved, match="anchor does not hold"):
        existed(site, members=retold(platform), later=now, policy=withdrawn)


def test_a_block_that_its_sender_went_on_without_is_not_proved(site: Site) -> None:
    platform, day = site.platform, timedelta(days=1)
    records = platform.log.records[TOPIC, 0]
    last = form.parse(records[-1].value or b"").hash
    # The broker hides what leads from the carried head back to the block.
    platform.log.records[TOPIC, 0] = [records[0], records[-1]]
    with pytest.raises(Unproved) as caught:
        existed(site, members=retold(platform, last), later=day)
    assert caught.value.reason is Reason.SUPERSEDED
