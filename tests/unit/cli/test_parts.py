"""fabric.cli.parts: what doctors share."""

import asyncio
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fabric.attest.members import heartbeat_record
from fabric.authority.pki import issue_platform, make_ca
from fabric.cli import parts
from fabric.config import PolicyConfig
from fabric.config_fields import Address
from fabric.demo.process import free_port
from fabric.locks import Holder
from fabric.model.errors import ConfigInvalid, DeniedError, Reason, UnavailableError
from fabric.model.names import MEMBERS
from fabric.repository.client import open_repository
from fabric.tls import client_context, server_context
from tests.fakes.log import MemoryLog
from tests.fakes.policy_repository import Repository
from tests.fakes.running import running
from tests.fakes.verifier import Verifier, a_beat


def test_an_address_is_taken_from_a_url() -> None:
    assert parts.address_of("https://authority.example/policy") == "authority.example:443"
    assert parts.address_of("https://[::1]:7443") == "[::1]:7443"


async def test_a_process_that_is_down_says_how_to_start_it() -> None:
    assert "fabric gateway run" in await parts.process("gateway", None)
    assert await parts.process("gateway", Holder(pid=7, is_sure=True)) == "runs, pid 7"
    guess = Holder(pid=7, is_sure=False)
    assert await parts.process("gateway", guess) == "runs, perhaps pid 7"


# Room


async def test_the_least_room_of_all_folders_is_told(tmp_path: Path, monkeypatch) -> None:
    free = {tmp_path / "a": 300 * 1024**2, tmp_path / "b": 200 * 1024**2}
    monkeypatch.setattr(parts, "free_room", free.__getitem__)
    monkeypatch.setattr(parts, "why_no_room", lambda _folder: None)
    assert await parts.room(*free) == "200 MiB are free"


async def test_too_little_room_in_one_folder_is_told(tmp_path: Path, monkeypatch) -> None:
    why = {tmp_path / "a": None, tmp_path / "b": "1.0 MiB are free"}
    monkeypatch.setattr(parts, "why_no_room", why.__getitem__)
    with pytest.raises(UnavailableError, match="no room on the disk: 1.0 MiB are free"):
        await parts.room(*why)


async def test_a_folder_that_may_not_be_looked_at_is_told(tmp_path: Path, monkeypatch) -> None:
    def closed(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(parts, "why_no_room", closed)
    with pytest.raises(ConfigInvalid, match="Permission denied"):
        await parts.room(tmp_path)


# Addresses of our own


async def listening(port: int, pid: int | None, host: str = "127.0.0.1") -> Reason | None:
    (found,) = await parts.listening("web.listen", Address(host, port), pid)
    return found.reason


async def test_an_address_is_free_or_held_by_our_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await listening(port, os.getpid()) is None
        assert await listening(port, os.getpid(), "0.0.0.0") is None
        (taken,) = await parts.listening("web.listen", Address("127.0.0.1", port), None)
        assert taken.reason is Reason.CONFIG_INVALID
        assert "another process" in taken.seen
    assert await listening(port, None) is None
    assert await listening(port, os.getpid()) is Reason.NOT_READY
    assert await listening(0, None) is None


async def test_an_address_of_another_machine_is_told() -> None:
    assert await listening(free_port(), None, "192.0.2.1") is Reason.CONFIG_INVALID


# Peers


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    """Two CAs, each with a certificate of a part."""
    for name in ("ours", "theirs"):
        ca = make_ca(name)
        certificate, key = issue_platform(ca, "gateway", hosts=["127.0.0.1"], days=1)
        for kind, data in (("ca", ca.cert_pem), ("pem", certificate), ("key", key)):
            (tmp_path / f"{name}.{kind}").write_bytes(data)
    return tmp_path


async def test_a_peer_is_reached_or_the_cause_is_told(pki: Path) -> None:
    ours = pki / "ours.pem", pki / "ours.key", pki / "ours.ca"
    context = client_context(*ours)
    server = await asyncio.start_server(
        lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=server_context(*ours)
    )
    port = server.sockets[0].getsockname()[1]
    async with server:
        seen = await parts.reach(f"127.0.0.1:{port}", context, Reason.GATEWAY_UNAVAILABLE)
        assert "TLSv1.3" in seen
        stranger = client_context(pki / "theirs.pem", pki / "theirs.key", pki / "theirs.ca")
        with pytest.raises(UnavailableError, match="not trusted: self-signed certificate"):
            await parts.reach(f"127.0.0.1:{port}", stranger, Reason.GATEWAY_UNAVAILABLE)
    with pytest.raises(UnavailableError, match="nobody listens") as caught:
        await parts.reach(f"127.0.0.1:{port}", context, Reason.GATEWAY_UNAVAILABLE)
    assert caught.value.reason is Reason.GATEWAY_UNAVAILABLE


async def test_of_several_brokers_the_last_that_is_away_is_told(pki: Path) -> None:
    context = client_context(None, None, pki / "ours.ca")
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with pytest.raises(UnavailableError, match=addresses[1]):
        await parts.some_broker(addresses, context)


# Policy


async def test_a_repository_that_is_away_says_until_when_the_copy_holds(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(make_ca("a test").cert_pem)
    repository = Repository(tmp_path / "policy").publish()
    here = PolicyConfig(
        root=repository.anchor, repository=str(repository.folder), state=tmp_path / "s"
    )
    assert (await parts.policy(here, tmp_path / "ca.pem")).version == repository.version - 1
    away = here.model_copy(update={"repository": f"https://127.0.0.1:{free_port()}/policy"})
    with pytest.raises(UnavailableError, match="no last good copy"):
        await parts.policy(away, tmp_path / "ca.pem")
    assert not (tmp_path / "s").exists()
    open_repository(here, tmp_path / "ca.pem").load()
    with pytest.raises(UnavailableError, match=f"copy, version {repository.version - 1}, ends 20"):
        await parts.policy(away, tmp_path / "ca.pem")


# Ticks


class Ticking:
    """An authority that ticks into a log, by a clock of its own."""

    def __init__(self, ahead_s: float = 0) -> None:
        self.log = MemoryLog()
        self.verifier = Verifier()
        self.ahead = timedelta(seconds=ahead_s)

    def tick(self, verifier: Verifier | None = None) -> None:
        now = datetime.now(UTC) + self.ahead
        beat = a_beat(at=now.replace(microsecond=now.microsecond // 1000 * 1000))
        key, value = heartbeat_record(beat, (verifier or self.verifier).signers)
        self.log.put(MEMBERS, 0, key, value)

    async def look(self) -> str | DeniedError:
        """What is said of it while it ticks."""
        async with running() as beside:
            beside.spawn(self._go_on())
            try:
                return await parts.ticks(self.log, self.verifier.trust, 1.0)
            except DeniedError as exc:
                return exc

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            self.tick()


async def test_a_tick_that_comes_now_is_well() -> None:
    site = Ticking()
    site.tick()
    assert "from this machine's clock" in str(await site.look())


@pytest.mark.parametrize(
    ("ahead_s", "reason"), [(-60, Reason.MEMBERS_STALE), (60, Reason.CLOCK_WENT_BACK)]
)
async def test_a_clock_that_is_not_the_authoritys_is_told(ahead_s: int, reason: Reason) -> None:
    found = await Ticking(ahead_s).look()
    assert isinstance(found, DeniedError)
    assert found.reason is reason


async def test_a_topic_that_we_may_not_read_is_the_authoritys_to_give() -> None:
    site = Ticking()
    site.log.fail(DeniedError(Reason.NOT_A_CONSUMER, "reading topic fabric.members"))
    with pytest.raises(UnavailableError, match="the authority makes both") as caught:
        await parts.ticks(site.log, site.verifier.trust, 1.0)
    assert caught.value.reason is Reason.NOT_READY


async def test_an_authority_that_has_just_fallen_silent_is_told(monkeypatch) -> None:
    monkeypatch.setattr(parts, "_TICK_S_MIN", 0.1)
    site = Ticking()
    site.tick()
    with pytest.raises(DeniedError, match="[2-9] s behind"):
        await parts.ticks(site.log, site.verifier.trust, 0.5)


async def test_silence_is_told_and_a_forged_tick_is_silence(monkeypatch) -> None:
    monkeypatch.setattr(parts, "_TICK_S_MIN", 0.1)
    site = Ticking(ahead_s=-60)
    site.tick(Verifier())
    with pytest.raises(DeniedError, match="no tick") as caught:
        await parts.ticks(site.log, site.verifier.trust, 0.01)
    assert caught.value.reason is Reason.MEMBERS_STALE
    site.tick()
    with pytest.raises(DeniedError, match="6[0-9] s behind"):
        await parts.ticks(site.log, site.verifier.trust, 0.01)
