"""Shares of addresses: nobody gets another one by counting up the half that is their own."""

import pytest

from fabric.model.network import share_of


@pytest.mark.parametrize(
    ("address", "share"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("64:ff9b::192.0.2.1", "192.0.2.1"),
        ("64:ff9b::c000:202", "192.0.2.2"),
        ("64:ff9b::1:c000:201", "64:ff9b::/64"),
        ("64:ff9b:1::192.0.2.1", "64:ff9b:1::c000:201"),
        ("64:ff9b:1:c000:2:100::", "64:ff9b:1:c000:2:100::"),
        ("64:ff9b:2::192.0.2.1", "64:ff9b:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_an_address_counts_as_its_network(address: str, share: str) -> None:
    assert share_of(address) == share
