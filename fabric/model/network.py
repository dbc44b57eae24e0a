"""Whom an address counts as, where a share is given to each address."""

import ipaddress

_HOST_BITS = 64
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv4 behind a translator, its address in the last 32 bits (RFC 6052)."""
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")
"""The same with a prefix that its network chose (RFC 8215): where in the address the IPv4 one
stands depends on the length of that prefix, which nobody tells."""


def share_of(address: str) -> str:
    """The address itself for IPv4, its /64 for IPv6, whose holder has all of its addresses.

    IPv4 counts as itself also where it is mapped into IPv6 or translated to it. What is no
    address counts as itself.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    inner = _inner(parsed)
    if inner is not None:
        return str(inner)
    network = ipaddress.IPv6Address(int(parsed) >> _HOST_BITS << _HOST_BITS)
    return f"{network}/{_HOST_BITS}"


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """What stands for the one IPv4 address that this IPv6 address is made from, if it is."""
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[-4:])
    if address in _NAT64_LOCAL:
        # Its holders are no hosts but translators, which make one address from each of IPv4's.
        return ipaddress.IPv6Address(int(address))
    return address.ipv4_mapped
