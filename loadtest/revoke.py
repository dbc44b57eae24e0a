"""How fast a revocation takes effect, and how fast when the broker hides it.

    python -m loadtest.revoke [--trials 50]

Two hosts of the demo's world speak without a pause: SENDER to VICTIM among others, and
VICTIM. In each trial VICTIM is revoked while it speaks and reads on open connections,
and then approved again under a greater number. Counted from the command's begin:

    last block accepted    append time of the last block of VICTIM's in the log
    last record fetched    when VICTIM's own consumer got its last record of SENDER's topic
    first block closed     append time of the first block of SENDER's whose secret VICTIM
                           was never given

The hidden trials take turns: the sender, or the gateway, gets nothing of the members
topic from the command on. (A broker that is hostile itself serves VICTIM whatever it
likes, so fetching is not measured there.)
"""

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, KafkaError, TopicPartition
from rich.console import Console
from rich.table import Table

from fabric.authority.admin import list_enrolments, revoke
from fabric.authority.admin_messages import Scope
from fabric.config import AuthorityConfig
from fabric.demo import configs
from fabric.demo.fleet import Part, await_that
from fabric.demo.intruder import Papers
from fabric.demo.layout import OTHER
from fabric.demo.process import spawn
from fabric.demo.say import Teller
from fabric.demo.world import Wish, build, start_platform
from fabric.model.errors import FabricError, Reason, UnavailableError
from fabric.model.names import Topic, grants_topic
from fabric.seal import envelope as form
from fabric.seal.epoch import parse_start
from fabric.seal.grant import KIND, parse_grant
from fabric.seal.record import kind_of

_OUT = Path(__file__).parent / "out"
_VICTIMS = Topic.parse("secret.G01.victims")
_START_S_MAX = 90.0
_AFTER_S, _AFTER_HIDDEN_S = 2.0, 5.5
_FRESH_S = 1.0
_LOOK_S = 0.3
_OF_LATE = 800
"""Records that are looked through after a trial: more than a host sends meanwhile."""
_REFRESH_S = 1.2
SHOWN, HIDDEN = "shown", "hidden"
GOALS_MS = {SHOWN: 1_000, HIDDEN: 4_000}
ACCEPTED, FETCHED, CLOSED = "last block accepted", "last record fetched", "first block closed"


@dataclass(slots=True)
class _Hiding(Part):
    """A part of the world that runs behind a switch."""

    arguments: tuple[str, ...] = ()

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "loadtest.hiding", *self.arguments]
        self._child = spawn(command, self.log, cwd=Path(__file__).parents[1], keep=self.keep)


class Fetching:
    """A consumer of VICTIM's on an open connection: when its last record came."""

    def __init__(self, papers: Papers, bootstrap: str, topic: str) -> None:
        settings = {
            **papers.settings(bootstrap),
            "group.id": "unused",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
        }
        self._consumer = Consumer(settings)
        place = TopicPartition(topic, 0)
        _, end = self._consumer.get_watermark_offsets(place, timeout=10)
        self._consumer.assign([TopicPartition(topic, 0, end)])
        self.last: float | None = None
        self.denied: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None:
                continue
            error = message.error()
            if error is None:
                self.last = time.time()
            elif error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                self.denied = self.denied or time.time()

    def stop(self) -> None:
        """End it."""
        self._stop.set()
        self._thread.join(5)
        self._consumer.close()


class Trials:
    """The world, and what one trial does with it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fabric-revoke-"))
        self.folder.chmod(0o755)
        wish = Wish(folder=self.folder / "world", source="sqlite", target="sqlite")
        self.world = build(wish, Teller())
        self._switches = {
            name: self.folder / f"hide-{name}" for name in ("sender", "gateway", "victim")
        }
        try:
            self.world.layout.hosts.pop("C")
            self._write_dataset()
            self._replace_parts()
            start_platform(self.world)
            self._start_hosts()
        except BaseException:
            self.stop()
            raise

    # Building

    def _write_dataset(self) -> None:
        """VICTIM sends notes, too."""
        folder = self.world.layout.policy
        notes = yaml.safe_load((folder / "datasets/G01/notes.yaml").read_text())
        notes |= {
            "producers": ["G02/health/outbox"],
            "consumers": ["G01/registry"],
            "schema_id": 4,
        }
        (folder / "datasets/G01/victims.yaml").write_text(yaml.safe_dump(notes, sort_keys=False))
        self.world.policy.publish()

    def _replace_parts(self) -> None:
        layout, parts = self.world.layout, self.world.parts
        old = parts["gateway"]
        switch = str(self._switches["gateway"])
        hiding = ("gateway", str(old.config), switch)
        parts["gateway"] = _Hiding(old.name, old.kind, old.config, old.web, arguments=hiding)
        for letter, topic in (("A", OTHER), ("B", _VICTIMS)):
            host = layout.hosts[letter]
            outbox = f'[outbox]\nsource = "outbox"\ntopics = ["{topic}"]\n'
            tcti = self.world.machines[letter].tpm.tcti
            broker = self.world.broker.address
            host.config.write_text(configs.agent_toml(layout, host, broker, tcti, outbox))
            switch = str(self._switches["sender" if letter == "A" else "victim"])
            arguments = ("host", str(host.config), switch, str(topic))
            name = f"agent {letter}"
            parts[letter] = _Hiding(name, "agent", host.config, host.web, arguments=arguments)

    def _start_hosts(self) -> None:
        for letter in ("A", "B"):
            self.world.parts[letter].start()
        self.world.remember()
        self._authority = AuthorityConfig.load(
            self.world.layout.folder / "authority" / "authority.toml"
        )
        found: dict[str, str] = {}

        def enrolled() -> bool:
            try:
                entries = asyncio.run(list_enrolments(self._authority))
            except FabricError:
                return False
            found.update({str(entry["host"]): str(entry["ak_name"]) for entry in entries})
            return len(found) == len(self.world.layout.hosts)

        await_that(enrolled, "the hosts to enrol", wait_s=_START_S_MAX)
        for host in self.world.layout.hosts.values():
            self.world.policy.approve(host, ak_name=found[str(host.id)])
        self.world.policy.publish()

    # One trial

    def trial(self, hide: str | None) -> Mapping[str, float]:
        """Revoke VICTIM once; milliseconds by what was measured.

        Args:
            hide: who gets nothing of the members topic: `sender`, `gateway` or nobody.
        """
        victim = self.world.host("B").id
        self._until_fresh()
        fetching = Fetching(self.world.papers("B"), self.world.broker.address, str(OTHER))
        try:
            await_that(lambda: fetching.last is not None, "VICTIM to fetch", wait_s=_START_S_MAX)
            # A victim that does not look goes on sending: what is measured is who stops it.
            for name in ("victim", hide):
                if name is not None:
                    self._switches[name].touch()
            began = time.time()
            asyncio.run(revoke(self._authority, Scope.parse(str(victim)), "a trial"))
            self._rest(_AFTER_S if hide is None else _AFTER_HIDDEN_S)
        finally:
            for switch in self._switches.values():
                switch.unlink(missing_ok=True)
            fetching.stop()
        found = self._measured(began, fetching, hide)
        self._approve_again()
        return found

    def _measured(self, began: float, fetching: Fetching, hide: str | None) -> dict[str, float]:
        if fetching.denied is None:
            raise UnavailableError(Reason.INTERNAL, "VICTIM's consumer was never denied")
        assert fetching.last is not None
        accepted = max(at for at, _ in self._records(str(_VICTIMS)))
        found = {}
        if hide != "sender":
            found[ACCEPTED] = max(0.0, accepted - began) * 1e3
        if hide is None:
            found[FETCHED] = max(0.0, fetching.last - began) * 1e3
        if hide != "gateway":
            found[CLOSED] = self._first_closed(began) * 1e3
        return found

    def _first_closed(self, began: float) -> float:
        opens = self._opened_by_victim()
        for at, value in self._records(str(OTHER)):
            header = form.parse(value).header
            if at >= began and header.start_hash not in opens:
                return at - began
        raise UnavailableError(Reason.INTERNAL, "no block was closed to VICTIM")

    def _opened_by_victim(self) -> set[bytes]:
        """Hashes of the epoch starts whose secret VICTIM was given, in start or grant."""
        victim = self.world.host("B").id
        starts: dict[bytes, bytes] = {}
        found: set[bytes] = set()
        for _, value in self._records(grants_topic(OTHER)):
            if kind_of(value) == KIND:
                grant = parse_grant(value).grant
                if victim in {item.host for item in grant.recipients}:
                    found |= {h for h, ident in starts.items() if ident == grant.terms.epoch_id}
                continue
            opened = parse_start(value)
            starts[opened.hash] = opened.start.id
            if victim in {item.host for item in opened.start.recipients}:
                found.add(opened.hash)
        return found

    def _records(self, topic: str, count: int = _OF_LATE) -> list[tuple[float, bytes]]:
        """Append time and value of the last `count` records; of a control topic all."""
        consumer = Consumer(
            {
                **self.world.platform("admin").settings(self.world.broker.address),
                "group.id": "unused",
            }
        )
        place = TopicPartition(topic, 0)
        try:
            first, end = consumer.get_watermark_offsets(place, timeout=10)
            start = first if topic.startswith("fabric.") else max(first, end - count)
            consumer.assign([TopicPartition(topic, 0, start)])
            found: list[tuple[float, bytes]] = []
            while start < end:  # what is appended meanwhile does not count
                message = consumer.poll(10)
                if message is None or message.error() is not None:
                    break
                start = (message.offset() or 0) + 1
                found.append((message.timestamp()[1] / 1e3, message.value() or b""))
            return found
        finally:
            consumer.close()

    def _until_fresh(self) -> None:
        """Both speak, and what SENDER says now VICTIM can open."""

        def fresh() -> bool:
            self._rest(_LOOK_S)
            asked = time.time()
            try:
                mine, theirs = self._records(str(_VICTIMS), 1), self._records(str(OTHER), 1)
                opens = self._opened_by_victim()
            except Exception:  # topics are made when the authority has begun
                return False
            if not mine or not theirs:
                return False
            late = min(mine[-1][0], theirs[-1][0]) < asked - _FRESH_S
            return not late and form.parse(theirs[-1][1]).header.start_hash in opens

        try:
            await_that(fresh, "both hosts to speak", wait_s=_START_S_MAX)
        except UnavailableError as exc:
            health = {name: part.health()[1] for name, part in self.world.parts.items()}
            raise UnavailableError(exc.reason, f"{exc.args[0]}; they say {health}") from exc

    def _approve_again(self) -> None:
        host = self.world.host("B")
        number = self.world.policy.approval_number(host) + 1
        self.world.policy.approve(host, number=number)
        # The second version wakes a host that asked before the authority had read the first.
        self.world.policy.publish()
        self._rest(_REFRESH_S)
        self.world.policy.publish()

    @staticmethod
    def _rest(seconds: float) -> None:
        threading.Event().wait(seconds)

    def stop(self) -> None:
        """End everything and remove the folder."""
        self.world.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def report(found: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, Any]:
    """p50 and p99 in milliseconds with the goal, for each broker and measure."""
    return {
        broker: {
            name: {
                "trials": len(values),
                "p50_ms": round(percentile(values, 0.50)),
                "p99_ms": round(percentile(values, 0.99)),
                "goal_ms": GOALS_MS[broker],
                "reached": percentile(values, 0.99) <= GOALS_MS[broker],
            }
            for name, values in measures.items()
        }
        for broker, measures in found.items()
    }


def show(told: Mapping[str, Any], console: Console) -> None:
    """The table for people."""
    table = Table("broker", "from the command to", "trials", "p50 ms", "p99 ms", "goal p99")
    for broker, measures in told.items():
        for name, row in measures.items():
            figures = (row["trials"], row["p50_ms"], row["p99_ms"])
            goal = f"{row['goal_ms']} {'reached' if row['reached'] else 'MISSED'}"
            table.add_row(broker, name, *map(str, figures), goal)
    console.print(table)


def run(trials: int, say: Callable[[str], None]) -> dict[str, dict[str, list[float]]]:
    """Every trial: half of them shown, the rest hidden from sender and gateway in turns."""
    found: dict[str, dict[str, list[float]]] = {SHOWN: {}, HIDDEN: {}}
    plan = [None] * trials + ["sender", "gateway"] * ((trials + 1) // 2)
    world = Trials()
    try:
        for number, hide in enumerate(plan, 1):
            measured = world.trial(hide)
            for name, value in measured.items():
                found[SHOWN if hide is None else HIDDEN].setdefault(name, []).append(value)
            figures = ", ".join(f"{name} {value:.0f} ms" for name, value in measured.items())
            say(f"  {number} of {len(plan)}: {f'hidden from {hide}' if hide else SHOWN}: {figures}")
    finally:
        world.stop()
    return found


def main() -> int:
    """Run, show, and write loadtest/out/revoke.json; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=50, help="of each kind")
    told = parser.parse_args()
    console = Console(highlight=False)
    made = report(run(told.trials, console.print))
    show(made, console)
    _OUT.mkdir(parents=True, exist_ok=True)
    (_OUT / "revoke.json").write_text(json.dumps(made, indent=2) + "\n")
    return 0 if all(row["reached"] for rows in made.values() for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
