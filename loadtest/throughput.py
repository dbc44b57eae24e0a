"""Records a second: everybody on one broker, in turns, produce and then consume."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.links import Route
from loadtest.meter import child_cpu_s, topic_bytes
from loadtest.peers import WARM_UP
from loadtest.world import CLASSIC, GATEWAY, HYBRID, OPEN, ORIGIN, PEER, Bench

RECORDS_MAX = 20_000_000
Figures = dict[str, dict[str, float]]
Say = Callable[[str, dict[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """Who produces (and consumes), where to, and under which name it stands in the report.

    Attributes:
        kind: `aiokafka`, `confluent`, `csfle`, `aiokafka-open`, or `fabric`.
        gateway: also through the gateway.
        reads: also the consume side.
    """

    name: str
    kind: str
    topic: str
    gateway: bool = False
    reads: bool = True

    @property
    def is_fabric(self) -> bool:
        """Whether the agents do it."""
        return self.kind == "fabric"


CONTESTANTS = (
    Contestant(name="aiokafka_plain", kind="aiokafka", topic="aiokafka-plain"),
    Contestant(name="confluent_plain", kind="confluent", topic="confluent-plain"),
    Contestant(name="csfle", kind="csfle", topic="csfle"),
    Contestant(name="aiokafka_open", kind="aiokafka-open", topic=PEER, gateway=True, reads=False),
    Contestant(name="open", kind="fabric", topic=OPEN, gateway=True),
    Contestant(name="sealed_classic", kind="fabric", topic=CLASSIC, gateway=True),
    Contestant(name="sealed_hybrid", kind="fabric", topic=HYBRID, gateway=True),
)


class Throughput:
    """The turns of one load test.

    Args:
        seconds: how long each produce run lasts.
        say: hears each figure as it comes.
    """

    def __init__(self, bench: Bench, *, seconds: float, say: Say) -> None:
        self._bench = bench
        self._seconds = seconds
        self._say = say
        for one in CONTESTANTS:
            if not one.is_fabric and one.topic != PEER:
                bench.create_topic(one.topic)

    def round(self, contestants: Sequence[Contestant] = CONTESTANTS) -> Figures:
        """One turn of everybody; figures by name."""
        figures: Figures = {}
        for one in contestants:
            first = self._bench.end(one.topic)
            self._note(figures, f"{one.name}_produce", self.produce(one, self._bench.direct, ""))
            if one.gateway:
                told = self.produce(one, self._bench.gateway, GATEWAY)
                self._note(figures, f"{one.name}_gateway", told)
            if one.reads:
                self._consume(figures, one, (first, self._bench.end(one.topic)))
        return figures

    def _note(self, figures: Figures, name: str, told: dict[str, float]) -> None:
        figures[name] = told
        self._say(name, told)

    def produce(self, one: Contestant, route: Route, twin: str, **more: Any) -> dict[str, float]:
        """One produce run; with bytes a record, and the gateway's CPU where it takes part."""
        bench, topic = self._bench, one.topic + twin
        before, cpu_before = topic_bytes(bench.log_folder, topic), child_cpu_s(bench.pid("gateway"))
        job: dict[str, Any] = {
            "op": "produce",
            "peer": one.kind,
            "topic": topic,
            "topics": [topic],
            "route": route.told(),
            "pool": str(bench.pool),
            "seconds": self._seconds,
            "records_max": RECORDS_MAX,
            **more,
        }
        if one.kind == "aiokafka-open":
            job |= {"origin": ORIGIN, "schema_id": bench.schema_id(topic)}
        told = bench.clients["A" if one.is_fabric else "peers"].do(job)
        stored = topic_bytes(bench.log_folder, topic) - before
        told["bytes_per_record"] = stored / (told["records"] + WARM_UP)
        if twin:
            spent = child_cpu_s(bench.pid("gateway")) - cpu_before
            told["gateway_records_per_cpu_s"] = told["records"] / spent if spent else 0.0
        return told

    def _consume(self, figures: Figures, one: Contestant, span: tuple[int, int]) -> None:
        if not one.is_fabric:
            job = {
                "op": "consume",
                "peer": one.kind,
                "topic": one.topic,
                "route": self._bench.direct.told(),
                "first": span[0],
                "end": span[1],
            }
            self._note(figures, f"{one.name}_consume", self._bench.clients["peers"].do(job))
            return
        # One subscriber a topic: by block what went directly, by change what took the gateway.
        for kind, twin, by in (("consume", "", "produce"), ("subscribe", GATEWAY, "gateway")):
            records = int(figures[f"{one.name}_{by}"]["records"]) + WARM_UP
            job = {"op": kind, "topic": one.topic + twin, "records": records}
            self._note(figures, f"{one.name}_{kind}", self._bench.clients["B"].do(job))
