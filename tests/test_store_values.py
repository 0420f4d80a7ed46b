"""The journal, the names and the sidecar: what is read back from a disk that may hold anything."""

from __future__ import annotations

import hashlib
import itertools
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_faults import IMEI

from dsmgateway.store import Offered
from dsmgateway.store.journal import Checkpoint, encode_checkpoint, encode_header, read_journal
from dsmgateway.store.naming import final_path, is_final_path, iso_time, sidecar_path
from dsmgateway.store.resuming import proven_checkpoint
from dsmgateway.store.sidecar import encode_sidecar, offer_fields, parse_sidecar, path_fields

OFFERED = Offered(IMEI, b"dsm/picture/231020/231452.jpg", 200_000, 0x1234)
SHA256 = hashlib.sha256(b"of something else").hexdigest()
POINTS = [
    Checkpoint(offset, f"{offset:064x}", 1 + offset // 50_000, offset // 3) for offset in (0, 1024, 60_000, 200_000)
]
LINES = [encode_header(OFFERED, 1.5), *(encode_checkpoint(point) for point in POINTS)]
WHOLE = b"".join(LINES)
HOSTILE_PATHS = [
    b"",
    b"..",
    b"../../../../etc/passwd",
    b"..\\..\\windows\\system.ini",
    b"/etc/shadow",
    b"dsm/pic\0ture/a.jpg",
    b"dsm/a\nb\r.jpg",
    b"\xff\xfe\x80/\xc3\x28.mp4",
    b"a" * 512,
    b"/" * 512,
    b"./.json",
    b"x.json",
    b"index.sqlite3",
    "größe/ünï.jpg".encode(),
    b"%s%n$(reboot);'--.jpg",
    b"con.h265",
]


#: An identifier of a DualCam, with what its metadata says of the photo.
PHOTO = Offered(IMEI, b"%photof", 200 * 1024, 0, in_packets=True, qualifier="1571840452123-4")


def _offsets(text: bytes) -> list[int]:
    journal = read_journal([text])
    return [] if journal is None else [point.offset_bytes for point in journal.checkpoints]


def test_a_journal_says_what_was_written_into_it() -> None:
    journal = read_journal([WHOLE])
    assert journal is not None
    assert (journal.offered, journal.first_seen, journal.end_bytes) == (OFFERED, 1.5, len(LINES[0]))
    ends = [len(b"".join(LINES[: number + 2])) for number in range(len(POINTS))]
    assert list(journal.checkpoints) == [
        Checkpoint(point.offset_bytes, point.sha256, point.connections, point.twice_bytes, end)
        for point, end in zip(POINTS, ends, strict=True)
    ]


@pytest.mark.parametrize("in_packets", [False, True])
@pytest.mark.parametrize("qualifier", [None, "", "1571840452123-4", '"' * 64])
def test_a_header_gives_back_its_offer(in_packets: bool, qualifier: str | None) -> None:
    offered = Offered(IMEI, b"\xff" * 512, 1 << 40, 1, in_packets, qualifier)
    journal = read_journal([encode_header(offered, 1.5)])
    assert journal is not None and journal.offered == offered and journal.offered.key == offered.key


def test_a_header_that_says_nothing_of_qualifiers_is_that_of_a_plain_offer() -> None:
    text = b'{"version":2,"imei":"%b","device_path":"61","size":5,"start_crc":0,"first_seen":0}' % IMEI.encode()
    old = b"%08x %b\n" % (zlib.crc32(text), text)
    journal = read_journal([old])
    assert journal is not None and journal.offered == Offered(IMEI, b"a", 5, 0)
    assert encode_header(journal.offered, 0) == old


def test_a_journal_cut_anywhere_keeps_exactly_its_whole_records() -> None:
    for cut in range(len(WHOLE) + 1):
        whole_lines = WHOLE[:cut].count(b"\n")
        assert _offsets(WHOLE[:cut]) == [point.offset_bytes for point in POINTS[: max(whole_lines - 1, 0)]]


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_journal_damaged_anywhere_is_believed_up_to_the_damage_only(place: int, flip: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[place] ^= flip
    good_lines = WHOLE[:place].count(b"\n")
    assert _offsets(bytes(damaged)) == [point.offset_bytes for point in POINTS[: max(good_lines - 1, 0)]]


@given(st.lists(st.binary(max_size=300)))
def test_any_bytes_are_no_journal_and_no_error(blocks: list[bytes]) -> None:
    assert read_journal(blocks) is None


@given(st.binary(max_size=300))
def test_any_bytes_after_a_journal_change_nothing(tail: bytes) -> None:
    assert _offsets(WHOLE + tail) == [point.offset_bytes for point in POINTS]


@given(st.lists(st.integers(0, len(WHOLE)), max_size=6))
def test_a_journal_reads_the_same_in_any_blocks(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(WHOLE)]
    assert read_journal([WHOLE[a:b] for a, b in itertools.pairwise(edges)]) == read_journal([WHOLE])


def _line(fields: Any) -> bytes:
    text = json.dumps(fields).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


HEADER = {"version": 2, "imei": IMEI, "device_path": "61", "size": 5, "start_crc": 0, "first_seen": 0}


@pytest.mark.parametrize(
    "header",
    [
        [],
        "text",
        {},
        HEADER | {"version": 1},
        HEADER | {"imei": 352093081429150},
        HEADER | {"imei": "../3520930814291"},
        HEADER | {"device_path": "6"},
        HEADER | {"size": -1},
        HEADER | {"size": True},
        HEADER | {"size": "5"},
        HEADER | {"start_crc": 65536},
        HEADER | {"first_seen": None},
        HEADER | {"first_seen": -1},
        HEADER | {"first_seen": float("nan")},
        HEADER | {"first_seen": 253_402_300_800},
        HEADER | {"in_packets": True},
        HEADER | {"in_packets": 0},
        HEADER | {"qualifier": 7},
        HEADER | {"qualifier": "x" * 65},
    ],
)
def test_a_header_with_a_right_checksum_and_wrong_fields_is_no_journal(header: Any) -> None:
    assert read_journal([_line(HEADER)]) is not None
    assert read_journal([_line(header)]) is None


@pytest.mark.parametrize(
    "fields",
    [
        [1],
        {},
        {"offset": 6, "sha256": SHA256, "connections": 1, "twice": 0},
        {"offset": 1.0, "sha256": SHA256, "connections": 1, "twice": 0},
        {"offset": -1, "sha256": SHA256, "connections": 1, "twice": 0},
        {"offset": 3, "sha256": SHA256[1:], "connections": 1, "twice": 0},
        {"offset": 3, "sha256": 0, "connections": 1, "twice": 0},
        {"offset": 3, "crc32": 0, "connections": 1, "twice": 0},
    ],
)
def test_a_checkpoint_with_a_right_checksum_and_wrong_fields_ends_the_journal(fields: Any) -> None:
    good = _line({"offset": 3, "sha256": SHA256, "connections": 1, "twice": 0})
    assert _offsets(_line(HEADER) + good + _line(fields) + good) == [3]


def test_an_endless_line_is_given_up_without_being_collected() -> None:
    def endless() -> Any:
        yield WHOLE
        for _ in range(3):
            yield b"x" * 4000
        raise AssertionError("read on")

    journal = read_journal(endless())
    assert journal is not None and len(journal.checkpoints) == len(POINTS)
    assert _offsets(WHOLE + b"x" * 5000 + b"\n" + LINES[1]) == [point.offset_bytes for point in POINTS]


def test_a_line_that_nests_too_deep_is_no_record() -> None:
    text = b"[" * 4000
    assert _offsets(WHOLE + b"%08x %b\n" % (zlib.crc32(text), text)) == [point.offset_bytes for point in POINTS]


def test_only_the_latest_checkpoints_of_a_long_journal_are_kept() -> None:
    lines = [LINES[0], *(encode_checkpoint(Checkpoint(offset, SHA256, 1, 0)) for offset in range(1000))]
    assert _offsets(b"".join(lines)) == list(range(936, 1000))


@given(st.binary(max_size=5000), st.lists(st.tuples(st.integers(0, 6000), st.booleans()), max_size=6), st.data())
def test_a_checkpoint_is_proven_by_the_bytes_found_and_by_nothing_else(
    content: bytes, drawn: list[tuple[int, bool]], data: st.DataObject
) -> None:
    points = [Checkpoint(o, hashlib.sha256(content[:o]).hexdigest() if right else SHA256, 1, 0) for o, right in drawn]
    size = data.draw(st.integers(1, 5000))
    blocks = iter([content[start : start + size] for start in range(0, len(content), size)])
    allowed = [point for point, (offset, right) in zip(points, drawn, strict=True) if right and offset <= len(content)]
    expected = allowed[-1] if allowed and content else None
    assert proven_checkpoint(blocks, points) == expected


def test_a_device_goes_on_at_a_whole_packet_and_always_has_one_to_send() -> None:
    offered = Offered(IMEI, b"a", 4096, 0)
    offsets = [offered.resume_offset(offset) for offset in (0, 1023, 1024, 3000, 4095, 4096)]
    assert offsets == [0, 0, 1024, 2048, 3072, 3072]
    assert Offered(IMEI, b"a", 0, 0).last_packet_bytes == 0


def test_the_key_tells_every_field_apart() -> None:
    offers = [
        OFFERED,
        Offered("356307042441013", OFFERED.device_path, OFFERED.size_bytes, OFFERED.start_crc),
        Offered(IMEI, b"other", OFFERED.size_bytes, OFFERED.start_crc),
        Offered(IMEI, OFFERED.device_path, OFFERED.size_bytes + 1, OFFERED.start_crc),
        Offered(IMEI, OFFERED.device_path, OFFERED.size_bytes, 0),
        Offered(IMEI, b"1 2", 3, 4),
        Offered(IMEI, b"2", 3, 41),
        PHOTO,
        Offered(IMEI, b"%photof", 200 * 1024, 0),
        Offered(IMEI, b"%photof", 200 * 1024, 0, in_packets=True),
        Offered(IMEI, b"%photof", 200 * 1024, 0, in_packets=True, qualifier=""),
        Offered(IMEI, b"%photof", 200 * 1024, 0, qualifier=""),
        Offered(IMEI, b"%photof", 200 * 1024, 0, qualifier="-"),
        Offered(IMEI, b"%photof", 200 * 1024, 0, in_packets=True, qualifier="1571840452124-4"),
    ]
    keys = {offered.key for offered in offers}
    assert len(keys) == len(offers)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


def test_the_key_of_a_plain_offer_is_what_it_always_was() -> None:
    """Parts that are on disks already are found under it."""
    assert OFFERED.key == "8a994ee053f6bee1294859112ee887a3"


@pytest.mark.parametrize(
    "fields",
    [("35209308142915", b"a", 1, 0), ("../093081429150", b"a", 1, 0), (IMEI, b"a", -1, 0), (IMEI, b"a", 1, 65536)]
    + [(IMEI, b"a", 1025, 0, True)]
    + [(IMEI, b"a", 1024, 0, True, qualifier) for qualifier in ("x" * 65, "a\n", "ä", "\x7f")],
)
def test_an_impossible_offer_is_refused(fields: Any) -> None:
    with pytest.raises(ValueError, match=r"unlike|no such"):
        Offered(*fields)


def test_a_file_counted_in_packets_is_whole_with_any_byte_of_its_last_packet() -> None:
    three = Offered(IMEI, b"%photof", 3072, 0, in_packets=True)
    assert [held for held in range(4000) if three.is_whole(held)] == list(range(2049, 3073))
    assert [held for held in range(4000) if Offered(IMEI, b"a", 3072, 0).is_whole(held)] == [3072]
    empty = Offered(IMEI, b"%photof", 0, 0, in_packets=True)
    assert [held for held in range(9) if empty.is_whole(held)] == [0]


@given(st.binary(max_size=512) | st.sampled_from(HOSTILE_PATHS))
def test_no_path_of_a_device_gets_beyond_the_stem(path: bytes) -> None:
    final = final_path(IMEI, path, 1_700_000_000_123, "0123456789abcdef" * 4)
    folder, _, name = final.rpartition("/")
    assert folder == f"media/{IMEI}/2023/11/14"
    assert name.startswith("20231114T221320123Z_")
    assert is_final_path(final)
    assert sidecar_path(final).endswith("_01234567.json")


@pytest.mark.parametrize(
    "path",
    [
        "../etc/passwd",
        f"media/{IMEI}/2023/11/14/../20231114T221320123Z_a_01234567.jpg",
        f"media/{IMEI}/2023/11/14/20231114T221320123Z_a_01234567.json",
        f"/media/{IMEI}/2023/11/14/20231114T221320123Z_a_01234567.jpg",
        f"media/{IMEI}/2023/11/14/20231114T221320123Z_a_01234567.jpg\n",
    ],
)
def test_a_path_that_is_not_ours_is_not_followed(path: str) -> None:
    assert not is_final_path(path)


def test_times_are_in_utc_with_milliseconds() -> None:
    assert iso_time(0) == "1970-01-01T00:00:00.000Z"
    assert iso_time(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"


RECORD_FIELDS = {
    "path": f"media/{IMEI}/2023/11/14/20231114T221320123Z_a_01234567.jpg",
    "imei": IMEI,
    "device_path_hex": "61ff",
    "size": 5,
    "sha256": "0" * 64,
    "crc16": 7,
}


def test_a_sidecar_gives_back_its_record() -> None:
    record = parse_sidecar(encode_sidecar(RECORD_FIELDS, {"size": 99, "metadata": {}}))
    assert record is not None
    assert (record.device_path, record.size_bytes, record.crc16, record.qualifier) == (b"a\xff", 5, 7, None)
    assert path_fields(Offered(IMEI, b"a\xff", 0, 0)) == {"device_path": "a\\xff", "device_path_hex": "61ff"}


def test_what_is_not_known_of_a_file_is_left_out_whatever_the_caller_says() -> None:
    """The qualifier among others: start-up reads it back."""
    fields = json.loads(encode_sidecar(RECORD_FIELDS, {"qualifier": "mine", "family": "mine", "kind": 1, "other": 2}))
    assert fields == RECORD_FIELDS | {"other": 2}


@pytest.mark.parametrize(
    ("offered", "fields"),
    [
        (Offered(IMEI, b"a", 0, 0), {"family": "unknown"}),
        (
            Offered(IMEI, b"dsm/video/1.mp4", 0, 0),
            {"family": "dsm", "camera": "dsm", "kind": "video", "media_type": "video/mp4"},
        ),
        (Offered(IMEI, b"dashcam/1", 0, 0, qualifier=""), {"family": "dashcam", "qualifier": ""}),
        (
            PHOTO,
            {
                "qualifier": "1571840452123-4",
                "family": "dualcam",
                "camera": "front",
                "kind": "photo",
                "media_type": "image/jpeg",
            },
        ),
    ],
)
def test_a_sidecar_says_what_the_path_or_identifier_tells(offered: Offered, fields: dict[str, object]) -> None:
    assert offer_fields(offered) == fields


@pytest.mark.parametrize("qualifier", ["", "1571840452123-4"])
def test_a_sidecar_gives_back_its_qualifier(qualifier: str) -> None:
    record = parse_sidecar(encode_sidecar(RECORD_FIELDS | {"qualifier": qualifier}, {}))
    assert record is not None and record.qualifier == qualifier
    assert parse_sidecar(encode_sidecar(RECORD_FIELDS | {"qualifier": 5}, {})) is None


@pytest.mark.parametrize("name", ["path", "imei", "device_path_hex", "size", "sha256"])
def test_a_sidecar_without_a_field_or_with_a_strange_one_is_none(name: str) -> None:
    assert (
        parse_sidecar(json.dumps({key: value for key, value in RECORD_FIELDS.items() if key != name}).encode()) is None
    )
    assert parse_sidecar(json.dumps(RECORD_FIELDS | {name: [1]}).encode()) is None


@pytest.mark.parametrize(
    "strange",
    [
        {"imei": "\ud800"},
        {"imei": "../356917000000013"[:15]},
        {"size": -1},
        {"size": True},
        {"size": 1 << 63},
        {"sha256": "\ud800" * 64},
        {"sha256": "9F" * 32},
        {"crc16": 65536},
        {"crc16": -1},
        {"crc16": False},
        {"qualifier": "\ud800"},
        {"qualifier": "x" * 65},
    ],
    ids=str,
)
def test_a_sidecar_that_the_index_could_not_hold_or_that_we_never_write_is_none(strange: dict[str, object]) -> None:
    assert parse_sidecar(json.dumps(RECORD_FIELDS).encode()) is not None
    assert parse_sidecar(json.dumps(RECORD_FIELDS | strange).encode()) is None


@given(st.binary())
def test_any_bytes_are_no_sidecar_and_no_error(text: bytes) -> None:
    assert parse_sidecar(text) is None
    assert parse_sidecar(b"[" * 100_000) is None


def test_whatever_the_caller_says_becomes_json() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    about = {"raw": b"\x01\xff", "lat": float("nan"), "lon": 1.5, "path": "no", 3: (1, None), "odd": {1}, "deep": deep}
    fields = json.loads(encode_sidecar({"path": "yes"}, about))  # type: ignore[arg-type]
    assert {name: fields[name] for name in ("path", "raw", "lat", "lon", "3", "odd")} == {
        "path": "yes",
        "raw": "01ff",
        "lat": None,
        "lon": 1.5,
        "3": [1, None],
        "odd": "{1}",
    }


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON, min_size=1, max_size=4))
def test_a_sidecar_is_indented_as_the_module_json_does_it(fields: dict[str, object]) -> None:
    assert encode_sidecar(fields, {}) == json.dumps(fields, indent=2).encode("ascii") + b"\n"
