"""The PROXY header of a balancer: versions 1 and 2, cut anywhere, and whatever is none."""

from __future__ import annotations

import ipaddress
import itertools
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.errors import HeaderError, PeerError
from dsmgateway.proxy_header import (
    MAX_V1_BYTES,
    MAX_V2_BODY_BYTES,
    V2_SIGNATURE,
    Header,
    HeaderParser,
    Source,
    plain_address,
)

V4, V6 = ipaddress.ip_address("192.0.2.7"), ipaddress.ip_address("2001:db8::7")
LONGEST_V1 = b"PROXY UNKNOWN " + b"f" * 39 + b" " + b"f" * 39 + b" 65535 65535\r\n"


def v2(command: int = 0x21, family: int = 0x11, body: bytes = b"", length: int | None = None) -> bytes:
    """A header of version 2."""
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(body) if length is None else length) + body


TCP4 = V4.packed + bytes([10, 0, 0, 1]) + struct.pack("!HH", 40000, 10014)
TCP6 = V6.packed + bytes(16) + struct.pack("!HH", 40000, 10014)
TLV = b"\x04\x00\x05hello"

HEADERS = {
    "v1 TCP4": (b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 10014\r\n", Source(V4, 40000)),
    "v1 TCP6": (b"PROXY TCP6 2001:DB8::7 ::1 40000 10014\r\n", Source(V6, 40000)),
    "v1 TCP6 of IPv4": (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 40000 10014\r\n", Source(V4, 40000)),
    "v1 port 0": (b"PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n", Source(V4, 0)),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN with words": (b"PROXY UNKNOWN whatever it may be\r\n", None),
    "v1 longest": (LONGEST_V1, None),
    "v2 TCP4": (v2(body=TCP4), Source(V4, 40000)),
    "v2 TCP4 and TLVs": (v2(body=TCP4 + TLV * 3), Source(V4, 40000)),
    "v2 TCP6": (v2(family=0x21, body=TCP6), Source(V6, 40000)),
    "v2 TCP6 of IPv4": (v2(family=0x21, body=bytes(10) + b"\xff\xff" + V4.packed + TCP6[16:]), Source(V4, 40000)),
    "v2 UNIX": (v2(family=0x31, body=bytes(216)), None),
    "v2 unspecified": (v2(family=0x00), None),
    "v2 unspecified with TLVs": (v2(family=0x00, body=TLV), None),
    "v2 LOCAL": (v2(0x20, 0x00), None),
    "v2 LOCAL with an address": (v2(0x20, 0x11, TCP4), None),
    "v2 LOCAL of a family that is none": (v2(0x20, 0x99, b"abc"), None),
    "v2 longest": (v2(body=TCP4 + bytes(MAX_V2_BODY_BYTES - len(TCP4))), Source(V4, 40000)),
}


def fed(pieces: list[bytes]) -> Header | None:
    """The header in these pieces; what comes after it is added to its rest."""
    parser, found = HeaderParser(), None
    for number, piece in enumerate(pieces):
        found = parser.feed(piece)
        if found is not None:
            return Header(found.source, found.rest + b"".join(pieces[number + 1 :]))
    return None


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("rest", [b"", b"\x00", b"\r\n more"])
def test_a_header_is_read_whole_byte_by_byte_and_at_every_cut(name: str, rest: bytes) -> None:
    data, source = HEADERS[name]
    wanted = Header(source, rest)
    assert fed([data + rest]) == wanted
    assert fed([bytes([byte]) for byte in data + rest]) == wanted
    for cut in range(len(data + rest)):
        assert fed([(data + rest)[:cut], (data + rest)[cut:]]) == wanted


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_not_whole_is_waited_for(name: str) -> None:
    data, _ = HEADERS[name]
    assert fed([data[:-1]]) is None
    assert fed([]) is None


def test_the_longest_line_is_as_long_as_the_specification_allows() -> None:
    assert len(LONGEST_V1) == MAX_V1_BYTES


WRONG = {
    "INIT": (b"\x00\x00\x00\x05\x00\x01", 1),
    "TLS": (b"\x16\x03\x01\x02\x00", 1),
    "another word": (b"POST / HTTP/1.1\r\n", 2),
    "small letters": (b"proxy TCP4", 1),
    "no signature": (V2_SIGNATURE[:11] + b"\r", 12),
    "version 1 in version 2": (v2(0x11, body=TCP4), 16),
    "command 2": (v2(0x22, body=TCP4), 16),
    "UDP": (v2(family=0x12, body=TCP4), 16),
    "short for TCP4": (v2(body=TCP4[:-1]), 16),
    "short for TCP6": (v2(family=0x21, body=TCP4), 16),
    "short for UNIX": (v2(family=0x31, body=bytes(215)), 16),
    "too long": (v2(length=MAX_V2_BODY_BYTES + 1), 16),
    "line without end": (b"PROXY UNKNOWN " + b"x" * 200, MAX_V1_BYTES),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_header_is_refused_at_the_first_byte_that_shows_it(name: str) -> None:
    data, shown_at = WRONG[name]
    parser = HeaderParser()
    for number in range(shown_at - 1):
        assert parser.feed(data[number : number + 1]) is None
    with pytest.raises(HeaderError, match=r"\A[^\n]+\Z"):
        parser.feed(data[shown_at - 1 : shown_at])
    with pytest.raises(HeaderError):
        fed([data])
    assert issubclass(HeaderError, PeerError)


@pytest.mark.parametrize(
    "line",
    [
        b"TCP4 192.0.2.7 10.0.0.1 40000",
        b"TCP4 192.0.2.7 10.0.0.1 40000 10014 5",
        b"TCP4 192.0.2.7 10.0.0.1 70000 10014",
        b"TCP4 192.0.2.7 10.0.0.1 40000 65536",
        b"TCP4 192.0.2.7 10.0.0.1 040 10014",
        b"TCP4 192.0.2.7 10.0.0.1 -1 10014",
        b"TCP4 192.0.2.256 10.0.0.1 40000 10014",
        b"TCP4 192.0.2.7 ::1 40000 10014",
        b"TCP4 ::1 ::1 40000 10014",
        b"TCP6 192.0.2.7 10.0.0.1 40000 10014",
        b"TCP6 fe80::1%eth0 ::1 40000 10014",
        b"TCP4  192.0.2.7 10.0.0.1 40000 10014",
        b"TCP4\t192.0.2.7 10.0.0.1 40000 10014",
        b"UDP4 192.0.2.7 10.0.0.1 40000 10014",
        b"UNKNOWNS",
        b"",
        b"TCP4 \xd9\xa3.0.2.7 10.0.0.1 40000 10014",
    ],
)
def test_a_line_of_version_1_is_read_strictly(line: bytes) -> None:
    with pytest.raises(HeaderError, match="its PROXY header says"):
        HeaderParser().feed(b"PROXY " + line + b"\r\n")


def test_a_line_feed_alone_does_not_end_version_1() -> None:
    assert HeaderParser().feed(b"PROXY UNKNOWN\n\r") is None


def cuts(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in pieces, some of them empty."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(bounds)]


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=200).map(lambda tail: b"PROXY " + tail),
        st.binary(max_size=200).map(lambda tail: V2_SIGNATURE + tail),
        st.sampled_from([data for data, _ in HEADERS.values()]),
    ),
    st.binary(max_size=20),
    st.lists(st.integers(0, 1 << 16), max_size=20),
)
def test_however_bytes_are_cut_the_outcome_is_the_same(data: bytes, rest: bytes, places: list[int]) -> None:
    def outcome(pieces: list[bytes]) -> object:
        try:
            return fed(pieces)
        except HeaderError as error:
            return type(error)

    assert outcome([data + rest]) == outcome(cuts(data + rest, places))


def test_no_more_is_held_than_the_longest_header() -> None:
    parser = HeaderParser()
    found = parser.feed(HEADERS["v2 longest"][0] + bytes(1 << 20))
    assert found is not None and len(found.rest) == 1 << 20
    assert len(parser._held) == 16 + MAX_V2_BODY_BYTES
    assert parser.began and not HeaderParser().began


def test_a_header_byte_by_byte_costs_linear_time() -> None:
    data, _ = HEADERS["v2 longest"]
    began = time.process_time()
    for _ in range(20):
        assert fed([bytes([byte]) for byte in data])
    assert time.process_time() - began < 2


def test_an_ipv4_address_is_one_however_it_is_written() -> None:
    assert plain_address("::ffff:192.0.2.7") == plain_address("192.0.2.7") == V4
    with pytest.raises(ValueError, match="camera"):
        plain_address("camera")
