"""Bring the demo's hosts in: they enrol by themselves, a second person adds their keys."""

import asyncio
from pathlib import Path

from fabric.authority.admin import list_enrolments
from fabric.config import AuthorityConfig
from fabric.demo.fleet import await_that
from fabric.demo.world import World
from fabric.model.errors import FabricError

_ENROL_S = 40.0


def admit_hosts(world: World) -> str:
    """Start the agents, wait for their enrolments, complete the approvals, await readiness."""
    for letter in world.layout.hosts:
        world.parts[letter].start()
    world.remember()
    wanted = {str(host.id) for host in world.layout.hosts.values()}
    config = AuthorityConfig.load(world.layout.folder / "authority" / "authority.toml")
    found: dict[str, str] = {}

    def enrolled() -> bool:
        found.update(_names(config))
        return wanted <= found.keys()

    await_that(enrolled, "three hosts to enrol", wait_s=_ENROL_S, part=world.parts["A"])
    for host in world.layout.hosts.values():
        world.policy.approve(host, ak_name=found[str(host.id)])
    version = world.policy.publish()
    for letter in world.layout.hosts:
        certificate: Path = world.host(letter).certificate
        await_that(
            certificate.exists,
            f"host {letter} to attest",
            wait_s=_ENROL_S,
            part=world.parts[letter],
        )
    return f"{len(wanted)} hosts attested under policy version {version}"


def _names(config: AuthorityConfig) -> dict[str, str]:
    """Name of the enrolled attestation key by host, from the authority's own list."""
    try:
        entries = asyncio.run(list_enrolments(config))
    except FabricError:
        return {}
    return {str(entry["host"]): str(entry["ak_name"]) for entry in entries}
