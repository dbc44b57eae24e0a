"""Two hosts on a platform in memory; appends are judged as the gateway would, for A."""

from pathlib import Path

import pytest

from tests.fakes.platform import A, B, Platform, TestHost


@pytest.fixture
def platform() -> Platform:
    made = Platform()
    made.admit(A)
    return made


@pytest.fixture
def a(platform: Platform, tmp_path: Path) -> TestHost:
    return TestHost(platform, A, tmp_path / "a").open()


@pytest.fixture
def b(platform: Platform, tmp_path: Path) -> TestHost:
    return TestHost(platform, B, tmp_path / "b").open()
