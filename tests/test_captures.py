"""What an operator has of a connection, raw or as hex or as a trace, to pieces."""

from __future__ import annotations

import random

import pytest
from conftest import PATH, init
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway.captures import CaptureError, Piece, read_capture
from dsmgateway.decode import Direction

DEVICE, GATEWAY = Direction.DEVICE, Direction.GATEWAY
RAW = init().encode() + c.Path(PATH).encode()


def pieces_of(text: bytes, step: int = 1 << 16) -> tuple[str, list[Piece]]:
    """What a capture is and its pieces, read in blocks of ``step`` bytes."""
    capture = read_capture(text[begin : begin + step] for begin in range(0, len(text), step))
    return capture.form, list(capture.pieces)


def joined(pieces: list[Piece]) -> bytes:
    """The bytes of all pieces."""
    return b"".join(piece.data for piece in pieces)


XXD = b"""\
00000000: 0000 0005 0001 449d 36ff d20d 0200 0000  ......D.6.......
00000010: 000d 001e 6473 6d2f 7069 6374 7572 652f  ....dsm/picture/
00000020: 3235 3131 3032 2f30 3831 3630 312e 6a70  251102/081601.jp
00000030: 6700                                     g.
"""
HEXDUMP = b"""\
00000000  00 00 00 05 00 01 44 9d  36 ff d2 0d 02 00 00 00  |......D.6.......|
00000010  00 0d 00 1e 64 73 6d 2f  70 69 63 74 75 72 65 2f  |....dsm/picture/|
00000020  32 35 31 31 30 32 2f 30  38 31 36 30 31 2e 6a 70  |251102/081601.jp|
00000030  67 00                                             |g.|
00000032
"""
TCPDUMP = b"""\
\t0x0000:  0000 0005 0001 449d 36ff d20d 0200 0000  ......D.6.......
\t0x0010:  000d 001e 6473 6d2f 7069 6374 7572 652f  ....dsm/picture/
\t0x0020:  3235 3131 3032 2f30 3831 3630 312e 6a70  251102/081601.jp
\t0x0030:  6700                                     g.
"""


@pytest.mark.parametrize(
    "text",
    [
        RAW.hex().encode(),
        RAW.hex().upper().encode() + b"\n",
        RAW.hex(" ").encode(),
        RAW.hex("\n", 3).encode(),
        b"0x" + RAW.hex().encode(),
        b" ".join(b"0x%02X" % byte for byte in RAW),
        b"\r\n".join(RAW.hex().encode()[place : place + 7] for place in range(0, 2 * len(RAW), 7)),
        XXD,
        HEXDUMP,
        TCPDUMP,
    ],
    ids=["plain", "upper", "spaced", "lines", "0x", "each 0x", "odd lines", "xxd", "hexdump -C", "tcpdump -X"],
)
@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_hex_is_read_as_people_have_it(text: bytes, step: int) -> None:
    form, pieces = pieces_of(text, step)
    assert (form, joined(pieces)) == ("hex", RAW)


@given(st.binary(min_size=1), st.integers(1, 600))
def test_raw_bytes_come_through_as_they_are(data: bytes, step: int) -> None:
    form, pieces = pieces_of(b"\0" + data, step)
    assert (form, joined(pieces)) == ("raw bytes", b"\0" + data)


def test_nothing_at_all_is_hex_without_pieces() -> None:
    assert pieces_of(b"") == ("hex", [])


def test_hex_in_one_endless_line_is_read_in_pieces() -> None:
    data = random.Random(3).randbytes(1 << 20)
    text = b" ".join(b"0x%02x" % byte for byte in data)
    form, pieces = pieces_of(text, 65_537)
    assert (form, joined(pieces)) == ("hex", data)
    assert max(len(piece.data) for piece in pieces) < len(data) / 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"00 0\n", "an odd number of hex digits: half a byte is missing"),
        (b"0000\n00zz\n", "line 2: 'z' is no hex digit"),
        (b"hello", "line 1: 'h' is no hex digit"),
        (b"GET / HTTP/1.1\r\n", "line 1: 'G' is no hex digit"),
        (b"1.000 device 000\n", "line 1 has an odd number of hex digits"),
        (b"1.000 device 00\nbroken\n1.0 device 00\n", "line 2 is no line of a trace (seconds, device or gateway, hex)"),
        (b"1.000 device 0g\n", "line 1 is no line of a trace (seconds, device or gateway, hex)"),
    ],
)
def test_what_is_wrong_with_the_input_is_said_in_a_line(text: bytes, complaint: str) -> None:
    with pytest.raises(CaptureError) as caught:
        pieces_of(text)
    assert str(caught.value) == complaint


@pytest.mark.parametrize("step", [1, 13, 1 << 16])
def test_a_trace_tells_times_and_directions(step: int) -> None:
    text = b"0.000 device 0000\n0.250 gateway \n12.000 gateway 000c\n"
    assert pieces_of(text, step) == (
        "trace",
        [Piece(b"\0\0", DEVICE, 0.0), Piece(b"", GATEWAY, 0.25), Piece(b"\0\x0c", GATEWAY, 12.0)],
    )


@pytest.mark.parametrize(("tail", "data"), [(b"1.5 device 000", b"\0"), (b"1.5 dev", b""), (b"1", b"")])
def test_a_trace_that_is_still_being_written_may_end_anywhere(tail: bytes, data: bytes) -> None:
    _, pieces = pieces_of(b"0.000 device 0000\n" + tail)
    assert (pieces[-1].data, pieces[-1].cut) == (data, True)
