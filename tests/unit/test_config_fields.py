"""Single settings: what is right is read, and what is wrong says its form."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fabric.config_fields import (
    Address,
    AddressField,
    BootstrapField,
    HostField,
    HttpsField,
    RepositoryField,
)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:65535", "[::1]:9392"])
def test_address_is_written_as_it_is_read(text: str) -> None:
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.1", False),
        ("127.0.0.1.example", False),
        ("localhost.example", False),
    ],
)
def test_what_others_may_reach_is_no_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (AddressField, "[::1]:9392", Address("::1", 9392)),
        (BootstrapField, "localhost:9192", "localhost:9192"),
        (HttpsField, "https://localhost:7443/", "https://localhost:7443"),
        (RepositoryField, "mirror", Path("mirror")),
        (RepositoryField, "https://localhost/policy", "https://localhost/policy"),
    ],
)
def test_a_setting_is_read_from_its_text(kind: Any, text: str, value: object) -> None:
    assert TypeAdapter(kind).validate_python(text) == value


@pytest.mark.parametrize(
    ("kind", "value", "form"),
    [
        (AddressField, "localhost", "form host:port"),
        (AddressField, 9392, "must be text"),
        (BootstrapField, "::1:9192", "form host:port"),
        (HttpsField, "http://localhost", "form https://host:port"),
        (RepositoryField, "ftp://localhost", "form https://host:port"),
        (HostField, "host-a", "must have the form"),
    ],
)
def test_what_is_none_says_the_form(kind: Any, value: object, form: str) -> None:
    with pytest.raises(ValidationError, match=form):
        TypeAdapter(kind).validate_python(value)
