"""Paths become absolute, each where its file lies; addresses and databases keep their shape."""

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from fabric.config import Address
from fabric.config_file import absolute, explain, read_toml
from fabric.model.errors import ConfigInvalid


class Part(BaseModel):
    kind: str = "sqlite"
    url: str = "x.db"
    where: str | Path = Path("a")


class Whole(BaseModel):
    parts: tuple[Part, ...] = (Part(),)
    listen: Address = Address("127.0.0.1", 1)


def test_relative_paths_are_put_below_the_base_at_every_depth() -> None:
    found = absolute(Whole(), Path("/etc"))
    assert found.parts[0].where == Path("/etc/a")
    assert found.parts[0].url == "sqlite:////etc/x.db"
    assert found.listen == Address("127.0.0.1", 1)


def test_text_that_is_no_path_stays() -> None:
    assert absolute(Part(where="https://a"), Path("/etc")).where == "https://a"


def test_wrong_key_is_explained_without_its_value() -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"parts": [{"url": 5}]})
    assert explain(caught.value).startswith("parts.0.url: ")
    assert "5" not in explain(caught.value)


def test_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        read_toml(tmp_path)
