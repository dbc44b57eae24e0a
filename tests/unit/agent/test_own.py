"""One agent a folder; signing keys live where the settings say."""

import os
from pathlib import Path

import pytest

from fabric.agent.own import key_stores, lock
from fabric.config_keys import KeysConfig
from fabric.model.errors import ConfigInvalid
from tests.fakes.tpm import FakeTpm


def test_a_folder_is_one_agents_until_it_lets_go(tmp_path: Path) -> None:
    handle = lock(tmp_path / "agent.lock")
    with pytest.raises(ConfigInvalid, match=r"agent\.folder: .*a host runs one: stop it$"):
        lock(tmp_path / "agent.lock")
    os.close(handle)
    os.close(lock(tmp_path / "agent.lock"))


def test_without_a_token_keys_live_in_the_tpm_or_in_the_state_file() -> None:
    names = [store.name for store in key_stores(KeysConfig(), FakeTpm())]
    assert len(names) == len(set(names)) == 2
