"""The protocol's CRC-16."""

from conftest import content
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway.crc import crc16


def bit_by_bit(data: bytes, crc: int) -> int:
    """The document's polynomial, written out."""
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc


def test_check_value() -> None:
    """The catalogue's check value of CRC-16/KERMIT holds."""
    assert crc16(b"123456789") == 0x2189


def test_nothing_changes_nothing() -> None:
    """No data leaves the start value as it is."""
    assert crc16(b"") == 0
    assert crc16(b"", 0xBEEF) == 0xBEEF


@given(st.binary(max_size=64), st.integers(0, 0xFFFF))
def test_is_the_documents_polynomial(data: bytes, start: int) -> None:
    """Any data and any start value give what the polynomial 0x8408 gives bit by bit."""
    assert crc16(data, start) == bit_by_bit(data, start)


@given(st.binary(max_size=64), st.integers(0, 64))
def test_chains(data: bytes, place: int) -> None:
    """The CRC of a whole is the CRC of its end that goes on from the CRC of its beginning."""
    assert crc16(data[place:], crc16(data[:place])) == crc16(data)


def test_takes_every_kind_of_bytes() -> None:
    """Buffers are not copied by the caller first: bytes, bytearray and slices of a memoryview do."""
    data = content(3000)
    view = memoryview(bytearray(b"head" + data))[4:]
    assert crc16(data) == crc16(bytearray(data)) == crc16(view)
