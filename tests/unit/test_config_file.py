"""What is no TOML file is refused with its name and a remedy, whatever it holds."""

from pathlib import Path

import pytest

from fabric.config_file import read
from fabric.model.errors import ConfigInvalid


def test_a_file_comes_back_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text('[agent]\nhost = "a"\n')
    assert read(path) == {"agent": {"host": "a"}}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[", "is not TOML"),
        (b"\xff", "save it as UTF-8"),
        (b"#" * 1_100_000, "is larger than"),
        (b"a = " + b"[" * 5_000, "is nested too deeply"),
    ],
)
def test_what_is_no_settings_file_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=why) as caught:
        read(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read(tmp_path / "none.toml")
