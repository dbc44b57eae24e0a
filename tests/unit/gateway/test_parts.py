"""What all connections share."""

from pathlib import Path

from tests.fakes.gateway_doors import open_house


async def test_the_trust_domain_is_the_policys(tmp_path: Path) -> None:
    async with open_house(tmp_path) as house:
        assert house.parts.trust_domain == house.domain
        house.parts.judge.view = None
        assert house.parts.trust_domain is None
