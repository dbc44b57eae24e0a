"""The table [web]: plain on loopback alone, and what anything else must name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from fabric.config_fields import Address
from fabric.config_web import WebConfig

FILES = {"certificate": "web.pem", "key": "web.key", "client_ca": "monitoring-ca.pem"}
BEYOND = {"listen": "0.0.0.0:9111", **FILES}


def refusal(settings: dict[str, str]) -> str:
    with pytest.raises(ValidationError) as caught:
        WebConfig.model_validate(settings)
    return str(caught.value)


def test_pages_are_plain_on_loopback_unless_told_otherwise() -> None:
    web = WebConfig()
    assert web.listen.is_loopback
    assert web.plain is web.listen
    assert web.files is None


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "localhost:1"])
def test_every_address_of_loopback_is_plain(listen: str) -> None:
    assert WebConfig.model_validate({"listen": listen}).plain == Address.parse(listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1", "host-a.example:1"])
def test_any_other_address_without_its_files_is_refused_with_what_to_write(listen: str) -> None:
    text = refusal({"listen": listen})
    assert "listen: is not on loopback" in text
    assert "add certificate, key, client_ca (PEM files), or write 127.0.0.1" in text


@pytest.mark.parametrize("name", FILES)
def test_each_file_that_is_missing_is_named(name: str) -> None:
    text = refusal({key: value for key, value in BEYOND.items() if key != name})
    assert f"add {name} (PEM files)" in text


def test_beyond_loopback_nothing_is_plain_but_local() -> None:
    web = WebConfig.model_validate(BEYOND)
    assert (web.plain, web.addresses) == (None, (("web.listen", web.listen),))
    assert web.files == (Path("web.pem"), Path("web.key"), Path("monitoring-ca.pem"))
    both = WebConfig.model_validate({**BEYOND, "local": "127.0.0.1:9101"})
    assert both.plain == Address("127.0.0.1", 9101)
    assert both.addresses[1] == ("web.local", both.plain)


def test_a_local_address_that_others_reach_is_refused() -> None:
    assert "local: is not on loopback" in refusal({**BEYOND, "local": "0.0.0.0:9101"})


@pytest.mark.parametrize("name", [*FILES, "local"])
def test_settings_that_loopback_would_pass_over_are_refused(name: str) -> None:
    told = {**FILES, "local": "127.0.0.1:2"}
    text = refusal({"listen": "127.0.0.1:1", name: told[name]})
    assert f"{name}: only for a listen that is not on loopback" in text
