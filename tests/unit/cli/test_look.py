"""`fabric tail` and `fabric inspect` on a log in memory: headers, never plaintext."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fabric.cli import look
from fabric.config import AgentConfig
from fabric.model.errors import DeniedError, Reason
from tests.fakes.agent_page import write_config
from tests.fakes.log import MemoryLog

VECTOR = Path(__file__).parents[2] / "vectors" / "envelope-good.json"
TOPIC = "secret.G01.residents"
OPEN = b"\x00\x00\x00\x00\x07plaintext of a public row"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path)


@pytest.fixture
def sealed() -> bytes:
    return bytes.fromhex(json.loads(VECTOR.read_text())["value"])


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch, sealed: bytes) -> list[bytes]:
    """What the topic holds: sealed, open, neither, and a null value."""

    @contextlib.asynccontextmanager
    async def opened(config: AgentConfig) -> AsyncIterator[MemoryLog]:
        log = MemoryLog()
        for value in (sealed, OPEN, b"\xd8\x62garbage", None):
            log.put(TOPIC, 0, None, value)
        yield log

    monkeypatch.setattr(look, "log_of", opened)
    return [sealed, OPEN]


def test_tail_tells_a_record_a_line_and_never_its_content(fabric, config, held) -> None:
    done = fabric("tail", TOPIC, "-c", config, "--count", "4", "--from-beginning", "-o", "jsonl")
    assert (done.code, done.err) == (0, "")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["offset"] for line in lines] == [0, 1, 2, 3]
    assert [line["form"] for line in lines] == ["sealed", "open", "refused", "refused"]
    assert lines[2]["reason"] == "malformed"
    assert all(re.fullmatch(r".{10}T.{8}\.\d{3}\+00:00", line["time"]) for line in lines)
    assert "plaintext" not in done.out


def test_tail_of_a_count_begins_so_many_before_the_end(fabric, config, held) -> None:
    done = fabric("tail", TOPIC, "-c", config, "--count", "2", "-o", "jsonl")
    assert [json.loads(line)["offset"] for line in done.out.splitlines()] == [2, 3]


def test_a_stream_is_json_lines_whichever_json_is_asked_for_and_help_says_so(
    fabric, config, held
) -> None:
    done = fabric("tail", TOPIC, "-c", config, "--count", "4", "--from-beginning", "-o", "json")
    assert [json.loads(line)["offset"] for line in done.out.splitlines()] == [0, 1, 2, 3]
    help_ = " ".join(fabric("tail", "--help").out.split())
    assert "-o json and -o jsonl alike print JSON Lines, one object a record" in help_


def test_tail_for_people_is_a_line_a_record(fabric, config, held) -> None:
    done = fabric("tail", TOPIC, "-c", config, "--count", "4", "--from-beginning")
    lines = done.out.splitlines()
    assert len(lines) == 4
    assert "form=sealed" in lines[0]
    assert "form=open schema_id=7" in lines[1]


def test_inspect_fetches_one_record_by_its_place(fabric, config, held) -> None:
    done = fabric("inspect", f"{TOPIC}:0:1", "-c", config, "-o", "json")
    assert done.json == {"form": "open", "schema_id": 7, "bytes": len(OPEN)}


@pytest.mark.parametrize("place", ["nothing", "topic:x:1", "topic:1"])
def test_inspect_of_neither_a_file_nor_a_place_says_so(fabric, place) -> None:
    done = fabric("inspect", place)
    assert done.code == 2
    assert "topic:partition:offset" in done.err


def test_inspect_of_a_file_that_is_too_large_reads_none_of_it(
    fabric, tmp_path, monkeypatch
) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(100))
    monkeypatch.setattr(look, "ENVELOPE_BYTES_MAX", 99)
    done = fabric("inspect", path)
    assert done.code == 1
    assert "larger than any envelope" in done.err


def test_inspect_of_a_record_that_does_not_come_names_the_broker(
    fabric, config, held, monkeypatch
) -> None:
    async def bounds(self: MemoryLog, topic: str, partition: int) -> tuple[int, int]:
        return 0, 5

    monkeypatch.setattr(MemoryLog, "bounds", bounds)
    monkeypatch.setattr("fabric.kafka.single.REQUEST_S_MAX", 0.05)
    done = fabric("inspect", f"{TOPIC}:0:4", "-c", config)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("fabric: broker_unavailable: ")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (f"{TOPIC}:0:4", f"{TOPIC}:0 has no record 4: its offsets are 0 to 3"),
        (f"{TOPIC}:1:0", f"{TOPIC}:1 has no record 0: it is empty"),
    ],
)
def test_inspect_of_a_place_that_the_log_does_not_have_says_which_it_has(
    fabric, config, held, place: str, said: str
) -> None:
    done = fabric("inspect", place, "-c", config)
    assert (done.code, done.out, done.err) == (2, "", f"fabric: config_invalid: {said}\n")


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.TOPIC_DRIFT, "topic has 1 partition, and no 9"),
        (Reason.NOT_A_CONSUMER, "there is no such topic, or it is not yours to read"),
    ],
)
@pytest.mark.parametrize("words", [("inspect", f"{TOPIC}:9:0"), ("tail", TOPIC)])
def test_a_place_that_is_not_there_is_wrong_usage_and_no_attack(
    fabric, config, held, monkeypatch, words: tuple[str, str], reason: Reason, said: str
) -> None:
    async def bounds(self: MemoryLog, topic: str, partition: int) -> tuple[int, int]:
        raise DeniedError(reason, "topic has 1 partition, and no 9")

    monkeypatch.setattr(MemoryLog, "bounds", bounds)
    done = fabric(*words, "-c", config)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"fabric: config_invalid: {TOPIC}: {said}\n"


def test_a_denial_that_is_no_matter_of_the_place_stays_one(
    fabric, config, held, monkeypatch
) -> None:
    async def bounds(self: MemoryLog, topic: str, partition: int) -> tuple[int, int]:
        raise DeniedError(Reason.HISTORY_LOST, "cut")

    monkeypatch.setattr(MemoryLog, "bounds", bounds)
    done = fabric("tail", TOPIC, "-c", config)
    assert (done.code, done.err) == (11, "fabric: history_lost: cut\n")


def test_a_file_that_may_not_be_read_is_a_line_and_exit_2(
    fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "envelope"
    path.write_bytes(b"x")

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    done = fabric("inspect", path, "-o", "json")
    assert (done.code, done.out) == (2, "")
    assert f"{path}: cannot be read (Permission denied)" in done.err


def test_a_file_that_holds_no_record_says_what_to_give(fabric, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("root:x:0:0")
    done = fabric("inspect", tmp_path / "file")
    assert (done.code, "give one record's value as it lies in the topic" in done.err) == (1, True)
