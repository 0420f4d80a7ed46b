"""Every command of the protocol: its bytes, its ranges, and there and back again."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway.errors import CommandError

U16 = st.integers(0, 0xFFFF)
U32 = st.integers(0, 0xFFFFFFFF)
PACKETS = st.binary(min_size=1, max_size=c.PACKET_BYTES)
PATHS = st.binary(max_size=512)

FRAMED = st.one_of(
    st.builds(c.Start, U32, U16),
    st.builds(c.Resume, U32),
    st.builds(c.Sync, U32),
    st.builds(c.Data, PACKETS, U16),
    st.builds(c.EnhancedData, U32, PACKETS, U16),
    st.builds(c.Status, U32),
    st.builds(c.Path, PATHS),
    st.builds(c.FileRequest, PATHS),
    st.just(c.PathRequest()),
    st.builds(c.MetadataRequest, st.binary(max_size=7)),
    st.builds(c.MetadataResponse, st.binary(max_size=c.MAX_METADATA_BYTES)),
    st.just(c.Close()),
)
INITS = st.builds(c.Init, U16, st.integers(1, 999_999_999_999_999), U32)

WIRE = [
    (c.Init(5, 356917000000013, 0x02000000), "0000 0005 0001449d36ffd20d 02000000"),
    (c.Close(), "0000 0000"),
    (c.Start(37299, 0xD1DE), "0001 0006 000091b3 d1de"),
    (c.Resume(9216), "0002 0004 00002400"),
    (c.Sync(5120), "0003 0004 00001400"),
    (c.Data(b"abc", 0x1234), "0004 0005 616263 1234"),
    (c.EnhancedData(1024, b"abc", 0x1234), "000e 0009 00000400 616263 1234"),
    (c.Status(0), "0005 0004 00000000"),
    (c.FileRequest(b"a\0"), "0008 0002 6100"),
    (c.RepeatInit(), "0009"),
    (c.MetadataRequest(), "000a 0000"),
    (c.MetadataRequest(b"1234567"), "000a 0007 31323334353637"),
    (c.MetadataResponse(b"\1\2"), "000b 0002 0102"),
    (c.PathRequest(), "000c 0002 0000"),
    (c.Path(b"\0"), "000d 0001 00"),
]


@pytest.mark.parametrize(("command", "wire"), WIRE, ids=lambda value: type(value).__name__)
def test_wire_form(command: c.DeviceCommand | c.GatewayCommand, wire: str) -> None:
    """Each command has the document's bytes, big-endian."""
    assert command.encode() == bytes.fromhex(wire)


@given(FRAMED)
def test_framed_commands_survive_the_wire(command: c._Framed) -> None:
    """What is encoded parses to the same value, under the same id, with a length in the range that its class names."""
    wire = command.encode()
    command_id, length = c.HEADER.unpack_from(wire)
    assert command_id == command.id
    assert len(wire) == c.HEADER_BYTES + length
    assert command.lengths[0] <= length <= command.lengths[1]
    assert type(command).parse(wire[c.HEADER_BYTES :]) == command


@given(INITS)
def test_init_survives_the_wire(init: c.Init) -> None:
    """INIT is 16 bytes with no length and parses to the same value."""
    wire = init.encode()
    assert len(wire) == c.INIT_BYTES
    assert c.Init.parse_whole(wire) == init


@pytest.mark.parametrize(
    ("kind", "fields", "complaint"),
    [
        (c.Init, (-1, 1, 0), "INIT protocol id must be 0 to 65535, not -1"),
        (c.Init, (0x10000, 1, 0), "INIT protocol id"),
        (c.Init, (5, 0, 0), "INIT IMEI must be 1 to 999999999999999, not 0"),
        (c.Init, (5, 10**15, 0), "INIT IMEI"),
        (c.Init, (5, 1, -1), "INIT settings"),
        (c.Init, (5, 1, 1 << 32), "INIT settings"),
        (c.Start, (-1, 0), "START size"),
        (c.Start, (1 << 32, 0), "START size"),
        (c.Start, (1, -1), "START CRC"),
        (c.Start, (1, 1 << 16), "START CRC"),
        (c.Resume, (-1,), "RESUME offset must be 0 to 4294967295, not -1"),
        (c.Resume, (1 << 32,), "RESUME offset"),
        (c.Sync, (-1,), "SYNC offset"),
        (c.Sync, (1 << 32,), "SYNC offset"),
        (c.Data, (b"", 0), "DATA must have 1 to 1024 bytes, not 0"),
        (c.Data, (bytes(1025), 0), "DATA must have 1 to 1024 bytes, not 1025"),
        (c.Data, (b"a", -1), "DATA CRC"),
        (c.Data, (b"a", 1 << 16), "DATA CRC"),
        (c.EnhancedData, (-1, b"a", 0), "ENHANCED_DATA offset"),
        (c.EnhancedData, (1 << 32, b"a", 0), "ENHANCED_DATA offset"),
        (c.EnhancedData, (0, b"", 0), "ENHANCED_DATA must have"),
        (c.EnhancedData, (0, bytes(1025), 0), "ENHANCED_DATA must have"),
        (c.EnhancedData, (0, b"a", 1 << 16), "ENHANCED_DATA CRC"),
        (c.Status, (-1,), "STATUS code"),
        (c.Status, (1 << 32,), "STATUS code"),
        (c.Path, (bytes(513),), "PATH must have 0 to 512 bytes, not 513"),
        (c.FileRequest, (bytes(513),), "FILE_REQUEST must have"),
        (c.MetadataRequest, (bytes(8),), "METADATA_REQUEST identifier must have 0 to 7 bytes, not 8"),
        (c.MetadataResponse, (bytes(4097),), "METADATA must have 0 to 4096 bytes, not 4097"),
    ],
)
def test_fields_out_of_range_are_refused(kind: type, fields: tuple[object, ...], complaint: str) -> None:
    """A command with a field outside its range cannot exist; the error names the field and the range."""
    with pytest.raises(CommandError, match=complaint):
        kind(*fields)


@pytest.mark.parametrize("command", [command for command, _ in WIRE], ids=lambda command: type(command).__name__)
def test_commands_are_values(command: c.DeviceCommand | c.GatewayCommand) -> None:
    """Commands are frozen, equal by what they say, and usable as keys."""
    assert command == dataclasses.replace(command)
    assert hash(command) == hash(dataclasses.replace(command))
    for field in dataclasses.fields(command):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(command, field.name, None)


def test_file_data_is_not_shown() -> None:
    """A command in a log line never brings a kilobyte of picture with it."""
    assert repr(c.Data(b"secret", 1)) == "Data(crc=1)"
    assert "secret" not in repr(c.EnhancedData(0, b"secret", 1))


def test_imei_has_fifteen_digits() -> None:
    """Leading zeros of an IMEI are part of it."""
    assert c.Init(5, 42, 0).imei_digits == "000000000000042"
    assert c.Init(5, 356917000000013, 0).imei_digits == "356917000000013"


@pytest.mark.parametrize("bit", range(32))
def test_settings_bits_are_masked(bit: int) -> None:
    """The five known bits of the first settings byte are offers, every other one is unknown and offers nothing."""
    init = c.Init(5, 1, 1 << bit)
    if bit in range(25, 30):
        assert (int(init.offers), init.unknown_settings) == (1 << (bit - 24), 0)
    else:
        assert (int(init.offers), init.unknown_settings) == (0, 1 << bit)


def test_idle_settings_of_a_real_tracker_offer_nothing() -> None:
    """Idle is not zero."""
    init = c.Init(5, 1, 0x40000400)
    assert not init.offers
    assert init.unknown_settings == 0x40000400


def test_file_bit_beside_unknown_ones() -> None:
    """Unknown bits do not hide an offer."""
    init = c.Init(5, 1, 0xC2000400)
    assert c.Offer.FILE in init.offers
    assert init.unknown_settings == 0xC0000400


def test_status_codes_have_words() -> None:
    """Every code from 0 to 26 has a meaning of its own, any other one is unknown."""
    meanings = [c.Status(code).meaning for code in range(27)]
    assert len(set(meanings)) == 27
    assert c.Status(17).meaning == "cannot read the file: the camera no longer has it"
    assert c.Status(27).meaning == c.Status(0xFFFFFFFF).meaning == "unknown code"


def test_every_command_belongs_to_a_direction() -> None:
    """Each id is known in the direction that sends it; 0x0000 and 0x0009 are framed in ways of their own."""
    device = {c.CommandId.INIT, *c.FROM_DEVICE}
    gateway = {c.CommandId.REPEAT_INIT, *c.FROM_GATEWAY}
    assert device | gateway == set(c.CommandId)
    assert device & gateway == {c.CommandId.INIT, c.CommandId.STATUS}
