"""Bring the demo's hosts in: they enrol by themselves, a second person adds their keys."""

import asyncio
from pathlib import Path

from fabric.authority.admin import list_enrolments
from fabric.config import AuthorityConfig
from fabric.demo.fleet import await_that
from fabric.demo.world import World
from fabric.model.errors import FabricError

_ENROL_S = 40.0
_ASK_S = 0.3
"""Between two looks at the enrolments: each costs the processors that the agents start on."""


def admit_hosts(world: World, letters: str = "") -> str:
    """Start agents, wait for their enrolments, complete the approvals, await attestation.

    Args:
        letters: of the hosts; empty for all.
    """
    hosts = [world.host(letter) for letter in letters or world.layout.hosts]
    for host in hosts:
        world.parts[host.letter].start()
    world.remember()
    wanted = {str(host.id) for host in hosts}
    config = AuthorityConfig.load(world.layout.folder / "authority" / "authority.toml")
    found: dict[str, str] = {}

    def enrolled() -> bool:
        found.update(_names(config))
        return wanted <= found.keys()

    await_that(
        enrolled,
        "every host to enrol",
        wait_s=_ENROL_S,
        part=world.parts[hosts[0].letter],
        poll_s=_ASK_S,
    )
    for host in hosts:
        world.policy.approve(host, ak_name=found[str(host.id)])
    version = world.policy.publish()
    for host in hosts:
        certificate: Path = host.certificate
        await_that(
            certificate.exists,
            f"host {host.letter} to attest",
            wait_s=_ENROL_S,
            part=world.parts[host.letter],
        )
    return f"{len(wanted)} hosts attested under policy version {version}"


def _names(config: AuthorityConfig) -> dict[str, str]:
    """Name of the enrolled attestation key by host, from the authority's own list."""
    try:
        entries = asyncio.run(list_enrolments(config))
    except FabricError:
        return {}
    return {str(entry["host"]): str(entry["ak_name"]) for entry in entries}
