"""How a peer's or a port's address is written in logs and sidecars, and whom it is counted for. Knows not who asks."""

from __future__ import annotations

import ipaddress
import os
from functools import lru_cache
from typing import Any

#: Bits that a host is given whole, so that its addresses are counted as one.
_IPV6_SOURCE_BITS = 64
#: Bits that one customer of a network has: what `network_of` leaves of an address.
_IPV4_NETWORK_BITS, _IPV6_NETWORK_BITS = 24, 48


def shown_address(address: Any) -> str:
    """Return ``192.0.2.1:40000``, ``[2001:db8::1]:40000``, a socket's path, or what the address says of itself."""
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return os.fsdecode(name) if name else str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def source_of(address: Any) -> str:
    """Return whom a connection is counted for: an IPv4 address, the /64 of an IPv6 one.

    A host has the whole /64, and can take another address of it for each connection. Empty for what has no host, such
    as a UNIX socket: all of that comes from this machine.
    """
    host = str(getattr(address, "host", None) or "")
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(ip, ipaddress.IPv6Address):
        mapped = ip.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((int(ip), _IPV6_SOURCE_BITS), strict=False))
    return str(ip)


@lru_cache(maxsize=4096)
def network_of(source: str) -> str:
    """Return the neighbourhood of what `source_of` returned: the /24 of IPv4, the /48 of IPv6.

    Asked for several times in each connection, and costs more than the rest of the counting: remembered for a while.
    """
    try:
        ip = ipaddress.ip_address(source.partition("/")[0])
    except ValueError:
        return source
    bits = _IPV4_NETWORK_BITS if ip.version == 4 else _IPV6_NETWORK_BITS
    return str(ipaddress.ip_network((int(ip), bits), strict=False))
