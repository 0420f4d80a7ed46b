"""Bytes of a connection to lines, one a command."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import pytest
from conftest import (
    IDLE,
    IMEI,
    METADATA,
    PATH,
    content,
    conversation,
    cut,
    data_frames,
    enhanced_frames,
    init,
    load_vectors,
    opening,
)
from hypothesis import example, given
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway.decode import Decoding, Direction, Kind, Line, direction_of
from dsmgateway.explain import explain
from dsmgateway.families import Unit
from dsmgateway.metadata import Metadata

DEVICE, GATEWAY = Direction.DEVICE, Direction.GATEWAY
FILE = content(2500)


def lines_of(*pieces: tuple[Direction, bytes]) -> tuple[Decoding, list[Line]]:
    """All lines of these pieces, to the end."""
    decoding = Decoding()
    lines = [line for direction, data in pieces for line in decoding.feed(direction, data)]
    return decoding, lines + list(decoding.finish())


def from_device(data: bytes) -> list[Line]:
    """All lines of a device's bytes."""
    return lines_of((DEVICE, data))[1]


def named(lines: list[Line]) -> list[str]:
    """What the lines are, in short."""
    return [line.name for line in lines]


# -- commands in words


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        (init(), "INIT", f"protocol 5, IMEI {IMEI}, offers FILE"),
        (init(IDLE), "INIT", f"protocol 5, IMEI {IMEI}, offers nothing, other settings bits 40000400"),
        (
            init(0x06000000, 123, 6),
            "INIT",
            "protocol 6, IMEI 000000000000123 (its check digit is wrong), offers FILE FRONT_PHOTO",
        ),
        (c.PathRequest(), "PATH_REQUEST", ""),
        (c.Path(PATH), "PATH", "dsm/picture/251102/081601.jpg"),
        (c.Path(b"a.jpg"), "PATH", "a.jpg (without a closing NUL)"),
        (c.Path(b"\0"), "PATH", "no file"),
        (c.Path(b""), "PATH", "no file"),
        (c.Path(b"\x1b[2Ja\n\xe2\x80\xae.jpg\xff\0"), "PATH", r"\x1b[2Ja\n\u202e.jpg\xff"),
        (c.FileRequest(PATH), "FILE_REQUEST", "dsm/picture/251102/081601.jpg"),
        (c.MetadataRequest(), "METADATA_REQUEST", ""),
        (c.MetadataRequest(b"\1\2"), "METADATA_REQUEST", r"identifier \x01\x02"),
        (
            c.MetadataResponse(METADATA),
            "METADATA",
            "2025-11-22T08:26:40.000Z, type 2 current_snapshot, trigger 13 dsm_event, at 54.687157 25.279652, "
            "events drowsiness phone, driver JONAS K",
        ),
        (
            c.MetadataResponse(bytes(14)),
            "METADATA",
            "1970-01-01T00:00:00.000Z, type 0 video, trigger 0 none, at 0.000000 0.000000",
        ),
        (
            c.MetadataResponse(bytes(14) + b"\7"),
            "METADATA",
            "1970-01-01T00:00:00.000Z, type 0 video, trigger 0 none, at 0.000000 0.000000, length 7 s",
        ),
        (
            c.MetadataResponse(b"\xff" * 4 + b"\x63" * 2 + b"\xff" * 8 + bytes(2)),
            "METADATA",
            "2106-02-07T06:28:15.000Z, type 99 unknown, trigger 99 unknown, at -0.000001 -0.000001, no events",
        ),
        (c.MetadataResponse(b"\1\2"), "METADATA", "2 bytes that no layout has: 0102"),
        (c.MetadataResponse(b""), "METADATA", "0 bytes that no layout has: none"),
        (
            c.MetadataResponse(b'{"version": 1, "more":"\\n\xff"}    '),
            "METADATA",
            r'version 1, JSON {"version": 1, "more":"\n\xff"}    ',
        ),
        (c.Start(2500, 0), "START", "size 2500, CRC-16 of the file not known (0000)"),
        (c.Start(2500, 0xBEEF), "START", "size 2500, CRC-16 of the file beef"),
        (c.Resume(1024), "RESUME", "send from offset 1024 on"),
        (c.Sync(1024), "SYNC", "DATA follows from offset 1024 on"),
        (c.Data(b"abc", 0x12), "DATA", "3 bytes, CRC 0012"),
        (c.EnhancedData(7, b"abc", 0x12), "ENHANCED_DATA", "3 bytes for offset 7, CRC 0012"),
        (c.Status(17), "STATUS", "17: cannot read the file: the camera no longer has it"),
        (c.Status(99), "STATUS", "99: unknown code"),
        (c.RepeatInit(), "REPEAT_INIT", ""),
        (c.Close(), "CLOSE", "the connection ends"),
    ],
)
def test_every_command_is_said_in_words(command: c.DeviceCommand | c.GatewayCommand, name: str, words: str) -> None:
    said = explain(command)
    assert (said.name, said.words) == (name, words)
    assert json.loads(json.dumps(said.facts)) == said.facts


@pytest.mark.parametrize(
    ("body", "protocol_id", "path", "words"),
    [
        (
            struct.pack(">BBQBHBhddQ", 4, 8, 1763800000123, 9, 0, 0, -90, -33.86882, 151.2, 1763799998500),
            5,
            b"%photor",
            "version 4, 2025-11-22T08:26:40.123Z, type 8 rear_photo, trigger 9 periodic, "
            "triggered at 1763799998.5 s, at -33.868820 151.200000, time zone -90 min",
        ),
        (
            b"\1" * 24,
            5,
            b"%photor",
            "version 1, time 72340172838076.67 s, type 1 unknown, trigger 1 din1, "
            "at 0.000000 ?, length 257 s, 1 frames/s, time zone +257 min",
        ),
        (
            b'{"fm_trigger":{"type":"a\\nb"},"cam_trigger":{"type":3},"file":{"duration":1.5,"framerate":25},'
            b'"location":{"longitude":2},"driver_name":"\xc4\x96va"}',
            6,
            b"dashcam/a.mp4",
            r"trigger a\nb, camera's trigger 3, at ? 2.000000, length 1.5 s, 25 frames/s, driver Ėva, "
            r'JSON {"fm_trigger":{"type":"a\nb"},"cam_trigger":{"type":3},"file":{"duration":1.5,"framerate":25},'
            r'"location":{"longitude":2},"driver_name":"Ėva"}',
        ),
        (b'{"version":\x07 1}    ', 6, b"", r'19 bytes that no layout has: {"version":\x07 1}    '),
    ],
)
def test_metadata_of_every_layout_is_said_in_words(body: bytes, protocol_id: int, path: bytes, words: str) -> None:
    said = explain(c.MetadataResponse(body), protocol_id, path)
    assert said.words == words
    assert said.facts == Metadata.parse(body, protocol_id, path).to_json()


def test_facts_have_types_that_programs_like() -> None:
    assert explain(init(IDLE | 0x0A000000)).facts == {
        "protocol_id": 5,
        "imei": str(IMEI),
        "imei_check_digit_right": True,
        "settings": 0x4A000400,
        "offers": ["FILE", "REAR_PHOTO"],
        "unknown_settings": IDLE,
    }
    assert explain(c.Path(b"dsm/\xff\0")).facts == {"path": r"dsm/\xff", "path_hex": "64736d2fff00", "family": "dsm"}
    assert explain(c.MetadataResponse(METADATA)).facts["driver"] == "JONAS K"


# -- one direction


def test_a_whole_conversation_is_a_line_a_command_with_its_place_in_the_stream() -> None:
    stream = conversation(FILE)
    decoding, lines = lines_of((DEVICE, stream))
    assert named(lines) == ["INIT", "PATH", "METADATA", "START", "SYNC", "DATA", "DATA", "DATA", "INIT"]
    assert [line.offset_bytes for line in lines] == [0, 16, 50, 80, 90, 98, 1128, 2158, 2616]
    assert sum(line.length_bytes for line in lines) == len(stream)
    assert decoding.complete and decoding.commands == 9


def test_data_is_placed_in_the_file_and_its_chained_crc_is_told() -> None:
    data = [line for line in from_device(conversation(FILE)) if line.name == "DATA"]
    assert [line.facts["file_offset"] for line in data] == [0, 1024, 2048]
    assert all(line.facts["crc_right"] is True for line in data)
    assert data[2].words == f"452 bytes at 2048, CRC {data_frames(FILE)[2][-2:].hex()} right"


@given(cuts=st.lists(st.integers(0, 3000)))
@example(cuts=list(range(3000)))
def test_lines_do_not_depend_on_how_the_bytes_come(cuts: list[int]) -> None:
    stream = conversation(FILE)
    whole = from_device(stream)
    _, lines = lines_of(*((DEVICE, piece) for piece in cut(stream, cuts)))
    assert lines == whole


def test_a_cut_frame_is_a_line_and_decoding_goes_on() -> None:
    first, second, third = data_frames(FILE)
    lines = from_device(b"".join(opening(FILE)) + first + second[:580] + second + third)
    assert named(lines)[-4:] == ["DATA", "cut frame", "DATA", "DATA"]
    assert (lines[-3].kind, lines[-3].offset_bytes, lines[-3].length_bytes) == (Kind.CUT_FRAME, 1128, 580)
    assert lines[-2].facts["file_offset"] == 1024


def test_damage_and_what_is_dropped_up_to_sync_are_lines() -> None:
    first, second, third = data_frames(FILE)
    damaged = second[:-1] + bytes([second[-1] ^ 1])
    stream = b"".join([*opening(FILE), first, damaged, third, c.Sync(1024).encode(), *data_frames(FILE, 1024)])
    decoding, lines = lines_of((DEVICE, stream))
    assert named(lines)[-6:] == ["DATA", "damaged", "dropped", "SYNC", "DATA", "DATA"]
    assert lines[-5].words == "DATA with a wrong CRC; nothing right follows, dropping up to the next SYNC"
    assert (lines[-4].offset_bytes, lines[-4].length_bytes) == (1128, len(damaged) + len(third))
    assert decoding.complete


def test_data_without_a_sync_is_not_called_right() -> None:
    line = from_device(init().encode() + c.Data(b"abc", 5).encode())[1]
    assert line.words == "3 bytes, CRC 0005; not expected without a SYNC"
    assert line.facts["crc_right"] is None


def test_enhanced_data_says_its_own_place() -> None:
    packet = content(100)
    crc = int.from_bytes(data_frames(packet)[0][-2:], "big")
    head = init(protocol_id=6).encode() + c.Start(5000, 0).encode() + c.Sync(4096).encode()
    line = from_device(head + c.EnhancedData(4096, packet, crc).encode())[-1]
    assert (line.name, line.facts["file_offset"], line.length_bytes) == ("ENHANCED_DATA", 4096, 110)


@given(plain=st.lists(st.booleans(), min_size=3, max_size=3), places=st.lists(st.integers(0, 2700)))
def test_of_mixed_frames_each_is_a_line_with_its_name_and_place(plain: list[bool], places: list[int]) -> None:
    frames = enhanced_frames(FILE, plain=plain.__getitem__)
    head = b"".join(command.encode() for command in (init(protocol_id=6), c.Start(len(FILE), 0), c.Sync(0)))
    decoding, lines = lines_of(*((DEVICE, piece) for piece in cut(head + b"".join(frames), places)))
    data = lines[3:]
    assert named(data) == ["DATA" if is_plain else "ENHANCED_DATA" for is_plain in plain]
    assert [line.facts["file_offset"] for line in data] == [0, 1024, 2048]
    assert [line.length_bytes for line in data] == [len(frame) for frame in frames]
    assert all(line.facts["crc_right"] for line in data) and decoding.complete


def test_a_cut_enhanced_frame_is_a_line_too() -> None:
    first, second, third = enhanced_frames(FILE, plain=lambda number: number == 2)
    head = b"".join(command.encode() for command in (init(protocol_id=6), c.Start(len(FILE), 0), c.Sync(0)))
    lines = from_device(head + first + second[:580] + second + third)
    assert named(lines[3:]) == ["ENHANCED_DATA", "cut frame", "ENHANCED_DATA", "DATA"]
    assert [line.facts["file_offset"] for line in lines[5:]] == [1024, 2048]


# -- which file it is, and what is counted

DUALCAM_METADATA = struct.pack(">BBQBHBhdd", 3, 4, 1763800000123, 9, 0, 25, 120, 54.687157, 25.279652)
PHOTO_BIT, VIDEOS_BITS = 0x04000000, 0x30000000


def dualcam_device(file: bytes, offers: int = PHOTO_BIT) -> list[bytes]:
    """What a DualCam up to protocol 5 sends for one file, in three parts: after each the gateway has an answer."""
    told = [init(offers), c.MetadataResponse(DUALCAM_METADATA), c.Start(-(-len(file) // 1024), 0)]
    opened = [command.encode() for command in told]
    return [*opened, c.Sync(1).encode() + b"".join(data_frames(file)), init(IDLE).encode()]


def dualcam_both(file: bytes, identifier: bytes, offers: int = PHOTO_BIT) -> list[tuple[Direction, bytes]]:
    """The same with the gateway's answers."""
    answers = [c.MetadataRequest(identifier), c.FileRequest(identifier), c.Resume(0), c.RepeatInit(), c.Close()]
    pieces = []
    for said, answer in zip(dualcam_device(file, offers), answers, strict=True):
        pieces += [(DEVICE, said), (GATEWAY, answer.encode())]
    return pieces


def test_of_a_dualcam_one_side_says_all_about_metadata_size_and_places() -> None:
    decoding, lines = lines_of((DEVICE, b"".join(dualcam_device(FILE))))
    assert decoding.complete
    assert [(line.name, line.words) for line in lines[1:4]] == [
        (
            "METADATA",
            "version 3, 2025-11-22T08:26:40.123Z, type 4 front_photo, trigger 9 periodic, at 54.687157 25.279652, "
            "25 frames/s, time zone +120 min",
        ),
        ("START", "size 3 packets (2049 to 3072 bytes), CRC-16 of the file not known (0000)"),
        ("SYNC", "DATA follows from packet 1 (byte 0) on"),
    ]
    assert [line.facts["file_offset"] for line in lines if line.name == "DATA"] == [0, 1024, 2048]
    assert lines[1].facts["layout"] == "dualcam" and lines[1].facts["camera"] == "front"
    assert lines[2].facts == {"size": 3, "crc": 0, "unit": "packets"}


def test_of_a_dualcam_both_sides_say_the_same() -> None:
    decoding, lines = lines_of(*dualcam_both(FILE, b"%photof"))
    assert decoding.complete
    assert [line for line in lines if line.direction is DEVICE] == from_device(b"".join(dualcam_device(FILE)))
    from_gateway = [(line.name, line.words, line.facts.get("unit")) for line in lines if line.direction is GATEWAY]
    assert from_gateway == [
        ("METADATA_REQUEST", "identifier %photof", None),
        ("FILE_REQUEST", "identifier %photof", None),
        ("RESUME", "send from packet 0 (byte 0) on", "packets"),
        ("REPEAT_INIT", "", None),
        ("CLOSE", "the connection ends", None),
    ]


def cameras(lines: list[Line]) -> list[object]:
    """Of whose file the lines with metadata are."""
    return [line.facts.get("camera") for line in lines if line.name == "METADATA"]


def test_of_several_offers_the_gateway_says_which_and_without_it_the_first_counts() -> None:
    rear = DUALCAM_METADATA[:1] + b"\x63" + DUALCAM_METADATA[2:]  # a type that says nothing of the camera
    device = [init(VIDEOS_BITS).encode(), c.MetadataResponse(rear).encode()]
    assert cameras(from_device(b"".join(device))) == ["front"]
    assert cameras(
        lines_of((DEVICE, device[0]), (GATEWAY, c.MetadataRequest(b"%videor").encode()), (DEVICE, device[1]))[1]
    ) == ["rear"]
    assert cameras(
        lines_of((DEVICE, device[0]), (GATEWAY, c.FileRequest(b"%videor").encode()), (DEVICE, device[1]))[1]
    ) == ["rear"]


@pytest.mark.parametrize(("path", "camera"), [(b"\0", "rear"), (PATH, "dsm")])
def test_an_identifier_counts_where_the_device_has_no_path(path: bytes, camera: str) -> None:
    metadata = METADATA if path == PATH else DUALCAM_METADATA[:1] + b"\x63" + DUALCAM_METADATA[2:]
    told = [init(0x0A000000), c.Path(path), c.MetadataResponse(metadata), c.Start(3, 0)]
    lines = from_device(b"".join(command.encode() for command in told))
    assert (cameras(lines), lines[-1].facts["unit"]) == ([camera], "bytes" if path == PATH else "packets")


def test_a_request_for_metadata_without_identifier_leaves_the_path_as_it_is() -> None:
    body = bytes(14)
    told = [init().encode() + c.Path(b"mdas9/1.mp4\0").encode(), c.MetadataResponse(body).encode()]
    _, lines = lines_of((DEVICE, told[0]), (GATEWAY, c.MetadataRequest().encode()), (DEVICE, told[1]))
    assert lines[-1].facts["layout"] == "adas"


def counted(*commands: c.DeviceCommand | c.GatewayCommand) -> list[tuple[str, object, str]]:
    """Of every line that has one: its name, the unit and the words."""
    gateway = (c.Resume, c.FileRequest, c.PathRequest)
    pieces = [(GATEWAY if isinstance(command, gateway) else DEVICE, command.encode()) for command in commands]
    return [(line.name, line.facts["unit"], line.words) for line in lines_of(*pieces)[1] if "unit" in line.facts]


OFFERED_BY_PATH = (init(), c.Path(b"dualcam_front/a.jpg\0"))


@pytest.mark.parametrize("both", [False, True])
def test_a_first_sync_of_1_shows_that_start_told_packets(both: bool) -> None:
    resume = [c.Resume(0)] if both else []
    said = counted(*OFFERED_BY_PATH, c.Start(3, 0), *resume, c.Sync(1), c.Start(3, 0), *[c.Resume(3)] * both, c.Sync(3))
    assert [line for line in said if line[0] != "RESUME"] == [
        ("START", "bytes", "size 3 bytes, CRC-16 of the file not known (0000)"),
        (
            "SYNC",
            "packets",
            "DATA follows from packet 1 (byte 0) on; so the size that START told is 3 packets (2049 to 3072 bytes)",
        ),
        ("START", "packets", "size 3 packets (2049 to 3072 bytes), CRC-16 of the file not known (0000)"),
        ("SYNC", "packets", "DATA follows from packet 3 (byte 2048) on"),
    ]
    assert [line for line in said if line[0] == "RESUME"] == [
        ("RESUME", "bytes", "send from byte 0 on"),
        ("RESUME", "packets", "send from packet 3 (byte 2048) on"),
    ][: 2 * both]


@pytest.mark.parametrize(
    ("commands", "unit"),
    [
        ((*OFFERED_BY_PATH, c.Start(3, 0), c.Sync(3)), "bytes"),
        ((*OFFERED_BY_PATH, c.Start(3, 0), c.Sync(0), c.Sync(1)), "bytes"),
        ((*OFFERED_BY_PATH, c.Start(3000, 0), c.Resume(1024), c.Sync(1)), "bytes"),
        ((*OFFERED_BY_PATH, c.Start(3000, 0), c.Resume(0), c.Sync(2), c.Resume(0), c.Sync(1)), "packets"),
        ((*OFFERED_BY_PATH, c.Start(3, 0), c.Sync(1), c.Start(9999, 0), c.Sync(0)), "bytes"),
        ((*OFFERED_BY_PATH, c.Start(3, 0), c.Sync(1), init(), c.Path(PATH), c.Start(3, 0), c.Sync(0)), "bytes"),
        ((init(PHOTO_BIT), c.Start(3, 0), c.Sync(0)), "packets"),
        ((init(PHOTO_BIT, protocol_id=6), c.Start(3, 0), c.Sync(0)), "bytes"),
        ((init(protocol_id=6), c.Path(b"dualcam_front/a.jpg\0"), c.Start(9999, 0), c.Sync(1024)), "bytes"),
    ],
)
def test_the_unit_follows_the_rules_of_the_gateway(
    commands: tuple[c.DeviceCommand | c.GatewayCommand, ...], unit: str
) -> None:
    assert counted(*commands)[-1][:2] == ("SYNC", unit)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "size 0 packets, "),
        (1, "size 1 packet (1 to 1024 bytes), "),
        (584, "size 584 packets (596993 to 598016 bytes), "),
    ],
)
def test_packets_are_told_as_bytes_too(size: int, words: str) -> None:
    assert explain(c.Start(size, 0), unit=Unit.PACKETS).words.startswith(words)


# -- how it ends


def test_what_is_no_command_stops_decoding_and_says_where_and_why() -> None:
    decoding, lines = lines_of((DEVICE, init().encode() + b"\x47\x45\x54 / HTTP"), (DEVICE, b"/1.1"))
    assert [(line.kind, line.offset_bytes) for line in lines[1:]] == [(Kind.STOPPED, 16), (Kind.LEFT, 16)]
    assert lines[1].words == "no command has the id 0x4745"
    assert lines[2].words == "14 bytes from here on are not decoded"
    assert not decoding.complete


def test_an_incomplete_command_at_the_end_is_counted() -> None:
    decoding, lines = lines_of((DEVICE, init().encode() + c.Path(PATH).encode()[:20]))
    assert lines[-1].words == "20 bytes of an incomplete command are left"
    assert (lines[-1].offset_bytes, decoding.complete) == (16, False)


def test_a_stream_that_ends_before_the_sync_that_was_due_is_not_complete() -> None:
    stream = b"".join(opening(FILE)) + data_frames(FILE)[0]
    decoding, lines = lines_of((DEVICE, stream), (GATEWAY, c.Resume(1024).encode()), (DEVICE, data_frames(FILE)[1]))
    left = [line for line in lines if line.kind is Kind.LEFT]
    assert left[0].words == "1030 bytes of file data in flight; the bytes end before the SYNC that was due"
    assert not decoding.complete


def test_the_gateways_bytes_are_decoded_too() -> None:
    commands = [c.PathRequest(), c.MetadataRequest(), c.FileRequest(PATH), c.Resume(0), c.RepeatInit(), c.Close()]
    decoding, lines = lines_of((GATEWAY, b"".join(command.encode() for command in commands)))
    assert named(lines) == ["PATH_REQUEST", "METADATA_REQUEST", "FILE_REQUEST", "RESUME", "REPEAT_INIT", "CLOSE"]
    assert [line.offset_bytes for line in lines] == [0, 6, 10, 44, 52, 54]
    assert decoding.complete


def test_a_bad_command_of_the_gateway_is_told_where_it_begins() -> None:
    _, lines = lines_of((GATEWAY, c.RepeatInit().encode() + bytes.fromhex("00020005 0000000000")))
    assert [(line.kind, line.offset_bytes) for line in lines[1:]] == [(Kind.STOPPED, 2), (Kind.LEFT, 2)]


# -- both directions


def test_after_the_gateways_resume_file_data_in_flight_is_dropped() -> None:
    first, second, _ = data_frames(FILE)
    decoding, lines = lines_of(
        (DEVICE, b"".join(opening(FILE)) + first),
        (GATEWAY, c.Resume(1024).encode()),
        (DEVICE, second + c.Sync(1024).encode() + b"".join(data_frames(FILE, 1024))),
    )
    assert named(lines)[-6:] == ["DATA", "RESUME", "dropped", "SYNC", "DATA", "DATA"]
    assert decoding.complete


@pytest.mark.parametrize("vector", load_vectors(), ids=lambda vector: str(vector["name"]))
def test_every_vector_is_decoded_to_its_end(vector: dict[str, Any]) -> None:
    for connection in vector["connections"]:
        pieces = [
            (Direction(step["from"]), bytes.fromhex(step["hex"])) for step in connection["steps"] if "hex" in step
        ]
        decoding, lines = lines_of(*pieces)
        for direction in Direction:
            total = sum(len(data) for sender, data in pieces if sender is direction)
            assert sum(line.length_bytes for line in lines if line.direction is direction) == total
        stopped = [line for line in lines if line.kind is Kind.STOPPED]
        assert not stopped
        assert decoding.complete or lines[-1].kind is Kind.LEFT


@given(st.lists(st.tuples(st.sampled_from(Direction), st.binary(max_size=80)), max_size=8))
def test_any_bytes_are_decoded_or_refused_and_every_byte_is_counted(pieces: list[tuple[Direction, bytes]]) -> None:
    _, lines = lines_of(*pieces)
    for direction in Direction:
        total = sum(len(data) for sender, data in pieces if sender is direction)
        assert sum(line.length_bytes for line in lines if line.direction is direction) == total


@given(st.data())
def test_a_damaged_conversation_is_counted_to_the_byte(data: st.DataObject) -> None:
    stream = bytearray(conversation(FILE))
    for place in data.draw(st.lists(st.integers(16, len(stream) - 1), max_size=5)):
        stream[place] ^= 1 << data.draw(st.integers(0, 7))
    lines = from_device(bytes(stream))
    assert sum(line.length_bytes for line in lines) == len(stream)
    places = [line.offset_bytes for line in lines]
    assert places == sorted(places)


# -- lines


def test_a_line_is_text_in_columns_or_a_json_object() -> None:
    decoding = Decoding()
    (line,) = decoding.feed(GATEWAY, c.Resume(1024).encode(), 12.5)
    assert line.to_text() == "   12.500 gateway @0        RESUME           send from offset 1024 on"
    assert json.loads(line.to_json()) == {
        "time": 12.5,
        "kind": "command",
        "from": "gateway",
        "offset": 0,
        "bytes": 8,
        "command": "RESUME",
        "file_offset": 1024,
    }


def test_a_line_that_is_no_command_is_marked() -> None:
    line = from_device(b"\0\1")[0]
    assert line.to_text() == "device  @0        -- left          2 bytes of an incomplete command are left"
    assert json.loads(line.to_json()) == {
        "kind": "left",
        "from": "device",
        "offset": 0,
        "bytes": 2,
        "message": "2 bytes of an incomplete command are left",
    }


def test_memory_does_not_grow_with_the_file() -> None:
    file = content(2 << 20)
    frames = data_frames(file)
    blocks = [*opening(file), *(b"".join(frames[begin : begin + 64]) for begin in range(0, len(frames), 64))]
    decoding = Decoding()
    tracemalloc.start()
    try:
        count = sum(1 for block in blocks for _ in decoding.feed(DEVICE, block))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 5 + len(frames)
    assert peak_bytes < 512 * 1024


@pytest.mark.parametrize(
    ("head", "direction"),
    [
        (init().encode(), DEVICE),
        (init(protocol_id=0).encode(), DEVICE),
        (init().encode()[:5], DEVICE),
        (c.Close().encode(), GATEWAY),
        (c.PathRequest().encode(), GATEWAY),
        (b"\0\0", GATEWAY),
        (b"", GATEWAY),
        (b"GET / HTTP/1.1\r\n", GATEWAY),
    ],
)
def test_a_device_is_known_by_its_init(head: bytes, direction: Direction) -> None:
    assert direction_of(head) is direction
