"""DualCam's container to plain H.265: no header comes out, every other byte does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from conftest import bytewise, cut
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dsmgateway.h265 import HEADER_BYTES, VideoError, annex_b

HEADER = b"PTMF" + bytes(range(1, 33))
UNIT = b"\0\0\0\1\x26\x01picture"
START_CODES = (b"\0\0\1", b"\0\0\0\1")

#: What a unit can hold: anything but a start code, which the encoder breaks by a 3.
PAYLOADS = st.lists(
    st.one_of(
        st.just(b"PTMF"),
        st.just(b"\0\0\3"),
        st.binary(min_size=1, max_size=8).map(lambda some: some.replace(b"\0", b"\1")),
        st.integers(20, 40).map(lambda length: b"x" * length),
    ),
    min_size=1,
    max_size=6,
).map(b"".join)
FILLINGS = st.binary(min_size=32, max_size=32).map(lambda some: some.replace(b"\0", b"\1"))
UNITS = st.tuples(st.one_of(st.none(), FILLINGS), st.sampled_from(START_CODES), PAYLOADS)
#: Bytes in which everything that matters is frequent.
SOUP = st.lists(
    st.sampled_from([b"PTMF", b"PT", b"\0", b"\0\0\1", b"\0\0\0\1", b"x" * 29, b"x" * 32, HEADER, UNIT]), max_size=30
).map(b"".join)
PLACES = st.lists(st.integers(0, 1000), max_size=20)


def plain(*blocks: bytes) -> bytes:
    """All that comes out."""
    return b"".join(annex_b(blocks))


def by_the_rule(stream: bytes) -> bytes:
    """The rule byte by byte, slowly: a header is PTMF and 32 bytes before a start code."""
    out, at = bytearray(), 0
    while at < len(stream):
        behind = at + HEADER_BYTES
        if stream.startswith(b"PTMF", at) and stream.startswith(START_CODES, behind):
            at = behind
        else:
            out.append(stream[at])
            at += 1
    return bytes(out)


def test_headers_go_and_units_stay() -> None:
    assert plain(HEADER + UNIT + UNIT + HEADER + UNIT[1:]) == UNIT + UNIT + UNIT[1:]


def test_what_begins_with_a_start_code_is_plain_already() -> None:
    for unit in (UNIT, UNIT[1:]):
        assert plain(unit + HEADER + UNIT) == unit + HEADER + UNIT


def test_the_magic_in_a_picture_stays() -> None:
    stream = UNIT + HEADER + b"x" + UNIT
    assert plain(HEADER + stream) == stream


def test_a_header_that_was_cut_off_at_the_end_stays() -> None:
    for length in range(HEADER_BYTES + 3):
        rest = (HEADER + UNIT)[:length]
        assert plain(HEADER + UNIT + rest) == UNIT + rest


@given(st.lists(UNITS, max_size=8), FILLINGS, PLACES)
def test_any_units_survive_any_cuts(
    units: list[tuple[bytes | None, bytes, bytes]], filling: bytes, places: list[int]
) -> None:
    stream, expected = b"PTMF" + filling + UNIT, UNIT
    for head, start_code, payload in units:
        # Only this cannot be told from a header; a start code of four bytes has one of three in it.
        behind = stream + start_code[:-3]
        assume(head is not None or b"PTMF" not in (stream[-HEADER_BYTES:][:4], behind[-HEADER_BYTES:][:4]))
        stream += (b"" if head is None else b"PTMF" + head) + start_code + payload
        expected += start_code + payload
    assert plain(*cut(stream, places)) == expected
    assert plain(*bytewise(stream)) == expected


@given(SOUP, PLACES)
@example(b"PTMF" + b"\0" * 33 + b"\0\0\1", [])
@example(b"PTMF" * 9 + b"PTMF" * 9 + b"\0\0\1", [50])
def test_any_bytes_come_out_by_the_rule_however_they_are_cut(soup: bytes, places: list[int]) -> None:
    stream = HEADER + UNIT + soup
    assert plain(*cut(stream, places)) == by_the_rule(stream)
    assert plain(*bytewise(stream)) == by_the_rule(stream)


def test_little_is_held_back() -> None:
    taken = 0

    def blocks() -> Iterator[bytes]:
        nonlocal taken
        while True:
            block = HEADER + UNIT * 100
            taken += len(UNIT) * 100
            yield block

    given_out = 0
    for block in annex_b(blocks()):
        given_out += len(block)
        assert taken - given_out <= len(UNIT) * 100 + HEADER_BYTES + 4
        if given_out > 100_000:
            break


@pytest.mark.parametrize(
    ("stream", "complaint"),
    [
        (b"", "the file is empty"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "an MP4 already: copy it as it is"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture, not a video"),
        (HEADER, "no H.265 in it: no start code follows the 36 bytes of its PTMF header"),
        (HEADER + b"x" + UNIT, "no H.265 in it: no start code follows the 36 bytes of its PTMF header"),
        (b"RIFF....AVI ", "no H.265 in it: begins with 52 49 46 46 2e 2e 2e 2e"),
        (b"\0\0", "no H.265 in it: begins with 00 00"),
    ],
)
def test_what_is_something_else_is_told_at_once(stream: bytes, complaint: str) -> None:
    for blocks in ([stream], bytewise(stream)):
        with pytest.raises(VideoError) as caught:
            annex_b(blocks)
        assert str(caught.value) == complaint
