"""Whom an address counts as, where a share is given to each address."""

import ipaddress

_HOST_BITS = 64


def share_of(address: str) -> str:
    """The address itself for IPv4, its /64 for IPv6, whose holder has all of its addresses.

    What is no address counts as itself.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    network = ipaddress.IPv6Address(int(parsed) >> _HOST_BITS << _HOST_BITS)
    return f"{network}/{_HOST_BITS}"
