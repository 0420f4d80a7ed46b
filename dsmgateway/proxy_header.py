"""The PROXY header with which a balancer tells for whom it connects, versions 1 and 2, in any pieces.

Takes bytes until the header is whole and says what is in it. Knows nothing of sockets, nor of who may send one. The
specification is HAProxy's: https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from dsmgateway.errors import HeaderError

Address = IPv4Address | IPv6Address

V1_PREFIX = b"PROXY "
V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
#: Longest line of version 1 with its CR LF, by section 2.1.
MAX_V1_BYTES = 107
#: Most that may follow the 16 bytes of version 2: addresses take up to 216, the rest is room for TLVs.
MAX_V2_BODY_BYTES = 2048
_V2_FIXED_BYTES = 16
_V1_LINE = re.compile(rb"TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})")
#: Version 2, and whether the balancer speaks for itself or for a client.
_LOCAL, _PROXY = 0x20, 0x21
#: Version 2's families (section 2.2): the bytes that their addresses take. Only of the first two there is an address.
_TCP4, _TCP6, _UNIX, _UNSPECIFIED = 0x11, 0x21, 0x31, 0x00
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36, _UNIX: 216, _UNSPECIFIED: 0}


@dataclass(frozen=True, slots=True)
class Source:
    """Whose connection it is."""

    host: Address
    port: int


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header.

    Attributes:
        source: The client; None when the balancer speaks for itself (LOCAL, as to see whether we are there), or does
            not know (UNKNOWN): then it is the connection's own address that counts.
        rest: What came after the header.
    """

    source: Source | None
    rest: bytes


def plain_address(text: str | bytes) -> Address:
    """An IP address, an IPv4 one where it is written as IPv6 (``::ffff:192.0.2.1``); ValueError when it is none."""
    written = text if isinstance(text, str) else text.decode("ascii")
    try:
        return IPv4Address(written)
    except ValueError:
        address = IPv6Address(written)
    return address.ipv4_mapped or address


class HeaderParser:
    """Takes a connection's first bytes; holds no more than the longest header."""

    def __init__(self) -> None:
        self._held = bytearray()

    @property
    def began(self) -> bool:
        """Whether anything has come."""
        return bool(self._held)

    def feed(self, data: bytes) -> Header | None:
        """Return the header once it is whole; to be called no more after that, nor after an error.

        Raises:
            HeaderError: These bytes begin no header, at the first one that shows it.
        """
        begin = max(0, len(self._held) - 1)
        room = _V2_FIXED_BYTES + MAX_V2_BODY_BYTES - len(self._held)
        self._held += data[:room]
        beyond = data[room:]
        for prefix, take in ((V1_PREFIX, self._version_1), (V2_SIGNATURE, self._version_2)):
            if self._held.startswith(prefix):
                return take(begin, beyond)
            if prefix.startswith(self._held):
                return None
        raise HeaderError("it does not begin with a PROXY header")

    def _version_1(self, begin: int, beyond: bytes) -> Header | None:
        end = self._held.find(b"\r\n", begin, MAX_V1_BYTES)
        if end < 0 and len(self._held) < MAX_V1_BYTES:
            return None
        if end < 0:
            raise HeaderError(f"the line of its PROXY header has no end within {MAX_V1_BYTES} bytes")
        line = bytes(self._held[len(V1_PREFIX) : end])
        return Header(_v1_source(line), bytes(self._held[end + 2 :]) + beyond)

    def _version_2(self, begin: int, beyond: bytes) -> Header | None:
        if len(self._held) < _V2_FIXED_BYTES:
            return None
        length = int.from_bytes(self._held[14:16], "big")
        if length > MAX_V2_BODY_BYTES:
            raise HeaderError(f"its PROXY header says {length} bytes follow, more than {MAX_V2_BODY_BYTES}")
        end = _V2_FIXED_BYTES + length
        family = _v2_family(self._held[12], self._held[13], length)
        if len(self._held) < end:
            return None
        body = bytes(self._held[_V2_FIXED_BYTES:end])
        return Header(_v2_source(family, body), bytes(self._held[end:]) + beyond)


def _v1_source(line: bytes) -> Source | None:
    if line == b"UNKNOWN" or line.startswith(b"UNKNOWN "):
        return None
    match = _V1_LINE.fullmatch(line)
    try:
        if match is None:
            raise ValueError(line)
        kind = IPv4Address if match[1] == b"4" else IPv6Address
        kind(match[3].decode("ascii"))
        host, ports = kind(match[2].decode("ascii")), (int(match[4]), int(match[5]))
        if max(ports) > 0xFFFF:
            raise ValueError(line)
    except ValueError:
        raise HeaderError(f"its PROXY header says {line!r}") from None
    return Source(plain_address(str(host)), ports[0])


def _v2_family(version_command: int, family: int, length: int) -> int:
    """The family whose addresses count; what is wrong is found before more is waited for."""
    if version_command == _LOCAL:
        return _UNSPECIFIED
    if version_command != _PROXY:
        raise HeaderError(f"its PROXY header has version and command 0x{version_command:02x}")
    if length < _ADDRESS_BYTES.get(family, length + 1):
        raise HeaderError(f"its PROXY header has family 0x{family:02x} and {length} bytes")
    return family


def _v2_source(family: int, body: bytes) -> Source | None:
    if family == _TCP4:
        return Source(IPv4Address(body[:4]), int.from_bytes(body[8:10], "big"))
    if family == _TCP6:
        address = IPv6Address(body[:16])
        return Source(address.ipv4_mapped or address, int.from_bytes(body[32:34], "big"))
    return None
