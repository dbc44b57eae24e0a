"""Trust anchors change under a running fabric: its agents begin anew, and none is restarted.

What else the same policy says takes effect with it; nothing that was applied is lost, and
nothing goes by the dropped keys any more.
"""

import itertools
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import yaml

from fabric.attest.result import decode
from fabric.authority.pki import encode_verifier_keys, issue_platform, make_ca, make_verifier_keys
from fabric.demo.layout import TRUST_DOMAIN
from fabric.demo.world import World, start_platform
from fabric.model.errors import PeerError
from fabric.policy.types import Trust
from tests.support.world import audited, await_equal, await_value, reasons, running_world

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_AWAY_S_MAX = 30.0
_fresh = itertools.count(100_000, 1_000)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with running_world(target="sqlite") as running:
        yield running


def commit_rows(world: World) -> None:
    """A's application inserts, updates and deletes a few rows."""
    assert world.registry is not None
    world.registry.change(next(_fresh), 8)


def await_taken(world: World, version: int) -> None:
    """Until both agents are under this policy, well, and in step."""
    for letter in "AB":
        await_value(
            lambda letter=letter: {"version": version} in audited(world, letter, "policy_taken"),  # type: ignore[misc]  # bound now
            f"agent {letter} to take policy {version}",
        )
        world.parts[letter].await_ready(wait_s=_AWAY_S_MAX)
    await_equal(world)
    assert {letter: reasons(world.parts[letter]) for letter in "AB"} == {"A": {}, "B": {}}


def lives(world: World) -> list[tuple[int | None, int]]:
    """Process of each agent, and how often one was started in its folder."""
    return [(world.parts[x].pid, len(audited(world, x, "agent_started"))) for x in "AB"]


def publish_keys(world: World, keys: object, former: object) -> int:
    """Publish a policy that names the verifier's keys, and those it had before."""
    path = world.layout.policy / "policy.yaml"
    document = yaml.safe_load(path.read_text())
    document["trust"]["verifier"].update(keys=keys, former=former)
    path.write_text(yaml.safe_dump(document))
    return world.policy.publish()


def restart_authority(world: World) -> None:
    """With the keys that lie on its machine now."""
    world.parts["authority"].stop()
    world.parts["authority"].start()
    world.remember()


def results(world: World, letter: str, keys: list[dict[str, object]]) -> bool:
    """Whether the newest result in a host's state file is signed with these keys."""
    path = world.host(letter).folder / "state" / "agent.state"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as state:
        (value,) = state.execute("SELECT value FROM meta WHERE name = 'result'").fetchone()
    named = tuple((int(str(key["alg"])), bytes.fromhex(str(key["public"]))) for key in keys)
    trust = Trust(
        trust_domain=TRUST_DOMAIN,
        verifier_name="verifier",
        verifier_keys=named,
        ca_pem=b"",
        ek_ca_pem=b"",
    )
    try:
        decode(value, trust)
    except PeerError:
        return False
    return True


def test_new_verifier_keys_are_taken_and_old_ones_dropped_by_agents_that_run(
    world: World,
) -> None:
    before = lives(world)
    path = world.layout.policy / "policy.yaml"
    old = yaml.safe_load(path.read_text())["trust"]["verifier"]["keys"]
    signers = make_verifier_keys()
    new = [{"alg": int(key.public.alg), "public": key.public.data.hex()} for key in signers]
    # Rows move all the time: while both count, nothing that is on its way is lost.
    commit_rows(world)
    version = publish_keys(world, new, former=old)
    commit_rows(world)
    await_taken(world, version)
    assert all(results(world, letter, old) for letter in "AB")
    restart_authority(world)  # a crash between two steps: it serves, and says what is to be done
    authority = world.parts["authority"]
    await_value(lambda: set(reasons(authority)) == {"policy"}, "the authority to serve", wait_s=60)
    assert "trust.verifier.keys" in str(authority.health()[1])
    (world.layout.pki / "verifier.keys").write_bytes(encode_verifier_keys(signers))
    commit_rows(world)
    restart_authority(world)
    commit_rows(world)
    for letter in "AB":
        await_value(lambda letter=letter: results(world, letter, new), "a new result", wait_s=60)  # type: ignore[misc]  # bound now
    await_equal(world)
    began = time.monotonic()
    version = publish_keys(world, new, former=[])
    restart_authority(world)
    commit_rows(world)
    await_taken(world, version)
    assert time.monotonic() - began < _AWAY_S_MAX
    assert lives(world) == before
    dropped = {fields["reason"] for fields in audited(world, "B", "control_record_dropped")}
    assert dropped == {"bad_signature"}  # the old results lie there still, and say nothing
    assert not audited(world, "B", "stream_stopped")


def trust(world: World, certificates: bytes) -> None:
    """The list of CAs on every machine; whatever does not follow the policy is restarted."""
    world.layout.ca.write_bytes(certificates)
    (world.layout.policy / "trust" / "ca.pem").write_bytes(certificates)
    for name in ("gateway", "authority"):
        world.parts[name].stop()
    world.broker.stop()
    world.broker.start()
    start_platform(world)


def test_a_new_ca_is_trusted_and_the_old_one_dropped_by_agents_that_run(world: World) -> None:
    layout, before, new = world.layout, lives(world), make_ca("fabric demo platform 2")
    trust(world, layout.ca.read_bytes() + new.cert_pem)
    await_taken(world, world.policy.publish())
    for name in ("broker", "gateway", "verifier", "admin"):
        names = ["localhost", "127.0.0.1"]
        for path, data in zip(
            layout.platform(name), issue_platform(new, name, hosts=names, days=7), strict=True
        ):
            path.write_bytes(data)
    both = layout.platform("broker")[1].read_bytes() + layout.platform("broker")[0].read_bytes()
    (layout.pki / "broker-both.pem").write_bytes(both)
    trust(world, new.cert_pem + (layout.pki / "svid-ca.pem").read_bytes())
    await_taken(world, world.policy.publish())
    commit_rows(world)
    await_equal(world)
    assert lives(world) == before


def test_keys_that_are_changed_at_once_are_taken_by_agents_that_run(world: World) -> None:
    before = lives(world)
    await_equal(world)
    signers = make_verifier_keys()
    new = [{"alg": int(key.public.alg), "public": key.public.data.hex()} for key in signers]
    version = publish_keys(world, new, former=[])
    (world.layout.pki / "verifier.keys").write_bytes(encode_verifier_keys(signers))
    restart_authority(world)
    for letter in "AB":
        await_value(lambda letter=letter: results(world, letter, new), "a new result", wait_s=60)  # type: ignore[misc]  # bound now
        assert {"version": version} in audited(world, letter, "policy_taken")
    assert lives(world) == before
