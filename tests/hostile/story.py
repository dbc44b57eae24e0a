"""The honest story that a hostile broker tells differently: two lives of A, read by B.

A fills two sealed datasets and an open one; the first dataset has two partitions and two
epochs, for A was restarted. The story is told once and copied for each edit. B is the real
thing from the log on: view, grant book, admission, chain, SQLite target, audit file.
"""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from fabric.admit.reader import admit_read
from fabric.admit.view import Place as AdmitPlace
from fabric.admit.view import View
from fabric.agent.grant_book import GrantBook
from fabric.agent.parts import apply_partition, datasets_of, publisher, run_publisher
from fabric.agent.sinks import SinkHolder
from fabric.agent.supervisor import supervise
from fabric.attest.keys import Signer
from fabric.config import BlockConfig
from fabric.database.sqlite import SqliteSink
from fabric.model.block import Block
from fabric.model.change import Change, Op, Row, Run, changes_of
from fabric.model.change import Sequence as ChangeSequence
from fabric.model.names import HostId, Stream, Topic, grants_topic
from fabric.seal import envelope as form
from fabric.seal.epoch import EpochDraft, Started, start_epoch, start_key
from fabric.seal.grant import GrantDraft, grant, grant_key
from fabric.seal.opening import open_
from fabric.seal.sealing import Link, SealingEpoch, Stamp, seal
from fabric.seal.secret import EpochSecret
from fabric.seal.suites import Suite, suite_of
from fabric.store.audit import FileAudit
from tests.fakes.platform import (
    LABEL,
    NOTES,
    OPEN,
    ORIGIN,
    SECRET,
    A,
    B,
    C,
    ManualClock,
    Platform,
    TestHost,
    dataset,
)
from tests.fakes.running import running, table, until
from tests.fakes.source import MemoryDatabase, MemorySource
from tests.support.hostile_log import HostileLog, Place

OTHER = Topic.parse("secret.G01.letters")
DATA: tuple[Place, Place] = ((str(SECRET), 0), (str(SECRET), 1))
GRANTS: Place = (grants_topic(SECRET), 0)
MEMBERS: Place = ("fabric.members", 0)
RESULTS: Place = ("fabric.results", 0)
BLOCKS = BlockConfig(changes_max=10, linger_s=0.005, silence_s=10)


def notes(first: int, count: int) -> list[Row]:
    return [{"id": i, "text": f"note number {i}"} for i in range(first, first + count)]


@dataclass(frozen=True)
class Sent:
    """One honest envelope of the first dataset, opened: where it stands and what it says."""

    partition: int
    at: int
    header: form.Header
    hash: bytes
    block: Block


class Story:
    """What honestly happened, and everything an attacker may have stolen of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.platform = Platform(dataset(SECRET, partitions=2), dataset(OTHER), dataset(OPEN))
        self.log = HostileLog()
        self.platform.log = self.log
        self.a = TestHost(self.platform, A, folder / "a").open()
        self.b = TestHost(self.platform, B, folder / "b").open()
        self.c = TestHost(self.platform, C, folder / "c").open()

    async def tell(self) -> "Story":
        """Let it happen."""
        self.results = {host.id: host.attest() for host in (self.a, self.b, self.c)}
        self.platform.admit(A)
        tables = [table(topic) for topic in (SECRET, OTHER, OPEN)]
        source = MemoryDatabase(tables)
        source.upsert(tables[0], notes(0, 60))
        source.upsert(tables[1], notes(500, 30))
        source.upsert(tables[2], notes(900, 10))
        await self._publish(source)
        self.a.open()
        for first in (60, 70, 30):
            source.upsert(tables[0], notes(first, 20))
            source.delete(tables[0], [{"id": first}, {"id": first + 1}])
            await self._publish(source, fresh=first == 60)
        self.b.host.identity.close()
        self.sent = self._opened()
        return self

    async def _publish(self, source: MemoryDatabase, *, fresh: bool = True) -> None:
        """One life of A, until everything was released."""
        if not fresh:
            self.a.open()
        topics = (SECRET, OTHER, OPEN)

        async def run() -> None:
            datasets = datasets_of(self.a.host, topics)
            made = await publisher(
                self.a.host,
                "capture main",
                "main",
                reads=MemorySource(source),
                topics=topics,
                block=BLOCKS,
                stop=asyncio.Event(),
            )
            await run_publisher(self.a.host, made, datasets)

        async with running() as parts:
            await parts.view(self.a)
            parts.spawn(supervise("capture main", run, self.a.board))
            await until(lambda: source.released == source.position)
        self.a.host.identity.close()

    def book(self, log: HostileLog) -> GrantBook:
        """What B makes of a log's grants."""
        book = GrantBook(SECRET, self.platform.policy.trust.trust_domain, B)
        for record in log.records[GRANTS]:
            book.feed(record.key or b"", record.value or b"")
        return book

    def secret(self, start_hash: bytes) -> EpochSecret:
        """An epoch's secret, as B has it."""
        book = self.book(self.log)
        start = book.start(start_hash, self.platform.members)
        assert start is not None
        return book.secret(start, self.b.keys.hpke, self.platform.members)

    def _opened(self) -> list[Sent]:
        view = View(self.platform.policy, self.platform.members)
        found = []
        for topic, partition in DATA:
            for at, record in enumerate(self.log.records[topic, partition]):
                verified = admit_read(
                    record.value or b"",
                    AdmitPlace(topic, partition),
                    view,
                    appended=record.timestamp,
                )
                envelope = verified.envelope
                block = open_(verified, self.secret(envelope.header.start_hash), NOTES)
                found.append(Sent(partition, at, envelope.header, envelope.hash, block))
        return found

    # Questions of the edits

    def of(self, partition: int) -> list[Sent]:
        """Envelopes of one partition, in order."""
        return [one for one in self.sent if one.partition == partition]

    def count(self, partition: int) -> int:
        """How many there are."""
        return len(self.of(partition))

    def turn(self, partition: int = 0) -> int:
        """Place of the first envelope of the second epoch."""
        first = self.of(partition)[0].header.epoch_id
        return next(one.at for one in self.of(partition) if one.header.epoch_id != first)

    def rows(self, highs: dict[int, ChangeSequence]) -> dict[Any, Row]:
        """The rows of the first dataset, each partition up to a sequence."""
        found: dict[Any, Row] = {}
        for partition, high in highs.items():
            for change in self.changes(partition):
                if change.sequence > high or change.row is None:
                    continue
                if change.op is Op.UPSERT:
                    found[change.row["id"]] = change.row
                elif change.op is Op.DELETE:
                    found.pop(change.row["id"], None)
        return found

    def changes(self, partition: int) -> Sequence[Change]:
        """Honest changes of one partition, in order."""
        return [
            change
            for one in self.of(partition)
            for run in one.block.runs
            for change in changes_of(run, one.block.generation, SECRET, ORIGIN)
        ]

    # What an attacker makes with stolen or own keys

    def sealed(
        self,
        like: Sent,
        *,
        by: TestHost,
        epoch: SealingEpoch | None = None,
        **changes: Any,
    ) -> bytes:
        """An envelope at the place of `like` with a row of the attacker's, sealed by `by`."""
        header = like.header
        secret = self.secret(header.start_hash)
        usual = SealingEpoch(
            suite=suite_of(header.suite),
            sender=header.sender,
            topic=header.topic,
            label=header.label,
            number=header.epoch_number,
            id=header.epoch_id,
            start_hash=header.start_hash,
            secret=secret,
        )
        forged: list[Row] = [{"id": 6_666, "text": "forged"}]
        run = Run(op=Op.UPSERT, position=header.upto.position, ordinal=1, commit_us=1, rows=forged)
        stream = Stream(ORIGIN, SECRET, like.partition)
        upto = replace_sequence(header.upto)
        block = Block(stream=stream, after=header.after, upto=upto, runs=(run,))
        link = Link(
            counter=changes.get("counter", header.counter),
            previous=changes.get("previous", header.previous),
        )
        stamp = Stamp(
            result_id=self.results[by.id].id,
            policy_version=changes.get("policy_version", 7),
            now=header.sealed_at,
            coding="zstd",
            padding=True,
        )
        chosen = epoch or usual
        signers = signers_of(by, chosen.suite)
        made = seal(block, NOTES, epoch=chosen, link=link, stamp=stamp, signers=signers)
        return made.data

    def epoch_of(self, by: TestHost, **changes: Any) -> tuple[bytes, Started, EpochSecret]:
        """An epoch that another host opens for the first dataset: key, start, secret."""
        secret = EpochSecret(b"x" * 32)
        draft = EpochDraft(
            trust_domain=self.platform.policy.trust.trust_domain,
            sender=by.id,
            topic=SECRET,
            label=LABEL,
            suite="classic",
            number=1,
            result_id=self.results[by.id].id,
            policy_version=7,
            revocation_number=0,
            heads=(),
            chain_reset=False,
            history="retained",
            started=self.results[by.id].issued + timedelta(seconds=1),
        )
        draft = replace(draft, **changes)
        names = [(host.id, host.keys.hpke[0].public) for host in {by.id: by, B: self.b}.values()]
        made = start_epoch(draft, secret, names, signers=signers_of(by, suite_of("classic")))
        return start_key(made.start), made, secret

    def granted_by(self, by: TestHost) -> tuple[bytes, bytes]:
        """A grant of A's first epoch to B, made and signed by another: key, record."""
        begun = self.book(self.log).start(self.of(0)[0].header.start_hash, self.platform.members)
        assert begun is not None
        draft = GrantDraft(
            granter=by.id,
            result_id=self.results[by.id].id,
            policy_version=7,
            revocation_number=0,
            granted=self.results[by.id].issued + timedelta(seconds=1),
        )
        secret, names = EpochSecret(b"x" * 32), [(B, self.b.keys.hpke[0].public)]
        signers = signers_of(by, suite_of(begun.start.suite))
        (value,) = grant(draft, begun, secret, recipients=names, signers=signers)
        return grant_key(by.id, begun.start.id), value

    def copy_of_b(self, folder: Path) -> None:
        """B's state, for a case of its own."""
        shutil.copytree(self.folder / "b", folder)


def signers_of(host: TestHost, suite: Suite) -> list[Signer]:
    """A host's keys of a suite, in its order."""
    by_alg = {signer.public.alg: signer for signer in host.keys.signers}
    return [by_alg[alg] for alg in suite.signatures]


def replace_sequence(upto: ChangeSequence) -> ChangeSequence:
    """An end that holds the attacker's change."""
    return upto._replace(ordinal=max(upto.ordinal, 1))


class Reading:
    """B with a target and an audit log of its own, reading one edited log; may live twice.

    Attributes:
        log: edit it before, between or while B reads.
    """

    def __init__(self, story: Story, folder: Path) -> None:
        self.story = story
        self.log = story.log.copy()
        self.clock = ManualClock()
        self._target = folder / "target.db"
        self._audit = folder / "audit.jsonl"
        story.copy_of_b(folder / "b")
        platform = object.__new__(Platform)
        platform.__dict__ = {**story.platform.__dict__, "log": self.log, "clock": self.clock}
        self.platform = platform
        self.host = TestHost(platform, HostId.parse(str(B)), folder / "b")
        self.host.tpm = story.b.tpm

    async def read(self, done: Callable[[], bool]) -> bool:
        """One life of B, until `done()`; then a moment more, in which nothing may move.

        Returns:
            Whether it came to that.
        """
        is_done = True
        audit = FileAudit(self._audit, self.clock, failed=lambda: None)
        self.host.audit = audit  # type: ignore[assignment]  # the real one
        self.host.open()
        async with running() as parts:
            await parts.view(self.host, SECRET)
            view = self.host.host.view
            holder = SinkHolder({SECRET: "notes"}, lambda: SqliteSink(self._target), view)
            for partition in (0, 1):
                part = f"apply {SECRET}:{partition}"

                async def run(part: str = part, partition: int = partition) -> None:
                    await apply_partition(self.host.host, part, holder, SECRET, partition)

                parts.spawn(supervise(part, run, self.host.board))
            try:
                await until(done, 10)
            except TimeoutError:
                is_done = False
            await asyncio.sleep(0.05)
        self.host.host.identity.close()
        audit.close()
        return is_done

    # What is to be seen

    def audited(self) -> list[tuple[str, str]]:
        """Event and reason of each line."""
        if not self._audit.exists():
            return []
        lines = map(json.loads, self._audit.read_text().splitlines())
        said = [(line["event"], line["fields"]) for line in lines]
        return [
            (event, fields.get("reason", fields.get("outcome", "")))
            for event, fields in said
            if not event.startswith("log_")  # of the log itself
        ]

    def rows(self) -> dict[Any, Row]:
        """The target's rows."""
        with closing(sqlite3.connect(self._target)) as connection:
            try:
                found = connection.execute("SELECT id, text FROM notes").fetchall()
            except sqlite3.OperationalError:
                return {}
        return {ident: {"id": ident, "text": text} for ident, text in found}

    def highs(self) -> dict[int, ChangeSequence]:
        """How far each partition's stream is, as the target says."""
        with closing(sqlite3.connect(self._target)) as connection:
            try:
                found = connection.execute(
                    "SELECT partition, generation, position, ordinal FROM fabric_streams"
                ).fetchall()
            except sqlite3.OperationalError:
                return {}
        return {partition: ChangeSequence(*rest) for partition, *rest in found}

    def applied(self) -> tuple[int, int]:
        """Honest envelopes of each partition that are wholly in the target."""
        highs = self.highs()
        return tuple(  # type: ignore[return-value]  # two partitions
            sum(one.header.upto <= highs[p] for one in self.story.of(p)) if p in highs else 0
            for p in (0, 1)
        )
