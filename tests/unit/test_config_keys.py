"""The table [keys] of agent.toml: whole or absent."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fabric.config_keys import KeysConfig

WHOLE = {"provider": "pkcs11", "module": "/lib/p11.so", "token": "agent", "pin_file": "pin"}


def test_keys_are_in_the_state_file_unless_told_otherwise() -> None:
    assert KeysConfig().provider == "file"


def test_a_token_needs_its_module_label_and_pin() -> None:
    assert KeysConfig.model_validate(WHOLE).module == Path("/lib/p11.so")
    for name in ("module", "token", "pin_file"):
        without = {key: value for key, value in WHOLE.items() if key != name}
        with pytest.raises(ValidationError, match=f"{name}: is missing"):
            KeysConfig.model_validate(without)


@pytest.mark.parametrize("name", ["module", "token", "pin_file"])
def test_settings_of_a_token_without_the_provider_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}: is for provider pkcs11"):
        KeysConfig.model_validate({name: WHOLE[name]})


@pytest.mark.parametrize(
    "wrong", [{"provider": "cloud"}, {**WHOLE, "token": "x" * 33}, {**WHOLE, "pin": "1234"}]
)
def test_other_settings_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        KeysConfig.model_validate(wrong)
