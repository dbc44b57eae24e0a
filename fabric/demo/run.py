"""The demo from end to end: build, sync, change, attack, kill, suspend, put right."""

import json
import os
import signal
import time
from pathlib import Path

from fabric.demo import attacks, proofs
from fabric.demo.enrol import admit_hosts
from fabric.demo.fleet import await_that
from fabric.demo.say import Step, Teller
from fabric.demo.world import Wish, World, build, fill, running, start_platform, write_endpoints
from fabric.model.errors import FabricError

_SNAPSHOT_S = 120.0


def demo(wish: Wish, teller: Teller) -> bool:
    """Run everything; whether every proof held. Ends what it started unless told to keep it."""
    began = time.monotonic()
    with teller.step("servers, keys, policy, three hosts with a TPM each") as step:
        world = build(wish, teller)
        step.seen = f"{wish.source} to {wish.target}, in {world.layout.folder}"
    held = False
    try:
        _sync(world)
        _prove(world)
        held = True
    except FabricError as error:
        teller.say(f"[red]the demo stopped: {error}[/]")
    finally:
        if held and wish.keep:
            world.remember()
            _farewell(world)
        else:
            world.stop()
        seconds = round(time.monotonic() - began, 1)
        count = sum(1 for step in teller.steps if step.kind == "proof" and step.held)
        teller.say(f"{count} proofs held in {seconds} s" + ("" if held else ", one did not"))
        teller.finish({"held": held, "seconds": seconds, "proofs": count})
    return held


def _sync(world: World) -> None:
    teller = world.teller
    with teller.step("agency A's application fills its tables") as step:
        fill(world)
        step.seen = f"{world.wish.rows} residents refer to their wards"
    with teller.step("authority and gateway"):
        start_platform(world)
    with teller.step("hosts enrol, a second person adds their keys, they attest") as step:
        step.seen = admit_hosts(world)
        write_endpoints(world)
    with teller.step("snapshot of A arrives in B") as step:
        step.seen = _snapshot(world)


def _snapshot(world: World) -> str:
    began = time.monotonic()
    total = sum(proofs.counts(world, "A"))
    with world.teller.progress("rows in B", total) as bar:

        def arrived() -> bool:
            done = sum(proofs.counts(world, "B"))
            bar.update(done)
            return done >= total

        await_that(arrived, f"{total} rows in B", wait_s=_SNAPSHOT_S, part=world.parts["B"])
    rate = total / (time.monotonic() - began)
    return f"{total} rows, {rate:,.0f} rows/s"


def _prove(world: World) -> None:
    teller = world.teller
    with teller.proof("A and B are equal after the snapshot") as step:
        proofs.equal(world, step)
    with teller.proof("live inserts, updates and deletes arrive; A and B are equal") as step:
        assert world.registry is not None
        changes = world.registry.change(world.wish.rows + 10_000, 400)
        proofs.equal(world, step)
        step.seen = f"{changes} changes; {step.seen}"
    with teller.proof("the broker's bytes hold no plaintext") as step:
        proofs.ciphertext_only(world, step)
    attacks.at_the_gateway(world)
    attacks.round_the_gateway(world)
    with teller.proof("C, attested but not cleared, gets no grant and no row") as step:
        proofs.not_for_c(world, step)
    with teller.proof("an envelope replayed inside the log is dropped by B") as step:
        proofs.replay_inside_the_log(world, step, lambda: attacks.dropped_by_b(world))
    with teller.proof("A and B are killed in mid-stream and started again; equal") as step:
        proofs.survives_kill(world, step, "ABAB")
    with teller.proof("A's boot state changes: refused, suspended, its rows wait") as step:
        proofs.changed_host(world, step)
    with teller.proof("put right and approved again: the rows arrive") as step:
        proofs.put_right(world, step)


def _farewell(world: World) -> None:
    layout = world.layout
    rows = [
        ("gateway (produce)", layout.gateway),
        ("broker (fetch)", world.broker.address),
        ("authority", layout.authority),
        *((f"agent {key}", f"{host.web}/readyz") for key, host in layout.hosts.items()),
        *((f"database {key}", url) for key, url in world.urls.items()),
        ("endpoints", str(layout.folder / "endpoints.json")),
    ]
    world.teller.table("it is still running", rows)
    config = layout.hosts["B"].config
    world.teller.say("try next:")
    for command in (
        f"fabric tail public.G01.wards --config {config} --count 3",
        f"fabric attest show --config {config}",
        f"fabric demo --down --folder {layout.folder}",
    ):
        world.teller.say(f"  .venv/bin/{command}")


def down(folder: Path, teller: Teller) -> int:
    """End what an earlier demo left running; how many processes were ended."""
    found = running(folder.resolve())
    order = sorted(found, key=lambda name: name in ("broker", "postgres") or name.startswith("tpm"))
    for name in order:
        _end(found[name])
        teller.say(f"ended {name}")
    for name in ("demo.json", "endpoints.json"):
        (folder / name).unlink(missing_ok=True)
    return len(found)


def _end(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGTERM)
        await_that(lambda: not Path(f"/proc/{pid}").exists(), "a process to end", wait_s=20)
    except ProcessLookupError:
        return
    except FabricError:
        os.kill(pid, signal.SIGKILL)


__all__ = ["Step", "demo", "down", "json"]
