"""Metadata of any content: what is encoded is read back, and nothing ever fails."""

import json
import struct
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from dsmgateway import commands as c
from dsmgateway.explain import explain
from dsmgateway.families import ROWS, Kind
from dsmgateway.metadata import Metadata
from dsmgateway.metadata_layouts import Layout

PATHS = st.sampled_from([b"dsm/picture/a.jpg", b"mdas9/video/b.mp4", b"dualcam_rear/c.h265", b"dashcam/d.mp4", b"x"])
ANY_PATH = PATHS | st.sampled_from([row.name for row in ROWS]) | st.binary(max_size=40)
DUALCAM_NAMES = st.sampled_from([b"%photof", b"%photor", b"%videof", b"%videor", b"dualcam_front/a.mp4"])
PROTOCOLS = st.integers(0, 0xFFFF) | st.integers(0, 8)
BYTE = st.integers(0, 0xFF)
WORD = st.integers(0, 0xFFFF)
LATITUDE = st.integers(-90_000_000, 90_000_000)
LONGITUDE = st.integers(-180_000_000, 180_000_000)
NAME = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=10)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)
KEYS = ("version", "file", "fm_trigger", "cam_trigger", "location", "driver_name")
INNER_KEYS = ("file_type", "file_timestamp", "duration", "framerate", "type", "latitude", "longitude")


def writable(metadata: Metadata, received_s: float | None = None) -> dict[str, object]:
    """What goes into the sidecar, after seeing that a strict writer can write it and what it wrote comes back."""
    known = metadata.to_json(received_s)
    written = json.dumps(known, allow_nan=False, ensure_ascii=False).encode("utf-8")
    assert json.loads(written) == known
    assert None not in known.values()
    assert known["raw"] == metadata.raw.hex()
    return known


@given(
    st.integers(0, 0xFFFFFFFF), BYTE, BYTE, LATITUDE, LONGITUDE, st.none() | WORD, NAME, st.sampled_from([b"", b"dsm/"])
)
def test_dsm_comes_back(
    time: int, file_type: int, trigger: int, latitude: int, longitude: int, bits: int | None, driver: str, path: bytes
) -> None:
    """With events and driver, and without."""
    raw = struct.pack(">IBBii", time, file_type, trigger, latitude, longitude)
    if bits is not None:
        raw += struct.pack(">H10s", bits, driver.encode().ljust(10, b"\0")[::-1])
    metadata = Metadata.parse(raw, 5, path)
    writable(metadata, 2e9)
    assert metadata.layout is Layout.DSM
    assert (metadata.time, metadata.file_type, metadata.trigger) == (time, file_type, trigger)
    assert (metadata.latitude, metadata.longitude) == (latitude / 1e6, longitude / 1e6)
    assert metadata.event_bits == bits
    assert metadata.driver == (driver or None if bits is not None else None)
    assert metadata.identity == (f"{time}000-{file_type}" if time else "")
    assert metadata.captured == datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def length_of(metadata: Metadata, said: float | None) -> float | None:
    """What there is to know of a video's length: a photo has none."""
    return said or (None if metadata.kind is Kind.PHOTO else said)


@given(st.integers(0, 0xFFFFFFFF), BYTE, BYTE, LATITUDE, LONGITUDE, BYTE, PATHS)
def test_adas_comes_back(
    time: int, file_type: int, trigger: int, latitude: int, longitude: int, duration_s: int, path: bytes
) -> None:
    """Its 15 bytes are read whatever the path, but for one of DualCam with a type of DualCam."""
    raw = struct.pack(">IBBiiB", time, file_type, trigger, latitude, longitude, duration_s)
    metadata = Metadata.parse(raw, 5, path)
    writable(metadata)
    if path.startswith(b"dualcam") and raw[1] in (4, 8, 16, 32):
        assert metadata.layout is Layout.DUALCAM
        return
    assert metadata.layout is Layout.ADAS
    assert (metadata.time, metadata.file_type, metadata.trigger) == (time, file_type, trigger)
    assert (metadata.latitude, metadata.longitude) == (latitude / 1e6, longitude / 1e6)
    assert metadata.duration_s == length_of(metadata, duration_s)
    assert (metadata.events, metadata.driver) == (None, None)


@given(
    st.integers(0, 3) | st.just(4) | BYTE,
    st.sampled_from([4, 8, 16, 32]) | BYTE,
    st.integers(0, 2**64 - 1) | st.integers(1_500_000_000_000, 2_000_000_000_000),
    BYTE,
    WORD,
    BYTE,
    st.integers(-(2**15), 2**15 - 1),
    st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    st.none() | st.integers(0, 2**53 - 1),
    DUALCAM_NAMES,
)
def test_dualcam_comes_back(
    version: int,
    file_type: int,
    time_ms: int,
    trigger: int,
    duration_s: int,
    frame_rate: int,
    time_zone_min: int,
    place: tuple[float, float],
    trigger_time_ms: int | None,
    path: bytes,
) -> None:
    """With the time of the trigger, and without."""
    raw = struct.pack(">BBQBHBhdd", version, file_type, time_ms, trigger, duration_s, frame_rate, time_zone_min, *place)
    if trigger_time_ms is not None:
        raw += struct.pack(">Q", trigger_time_ms)
    metadata = Metadata.parse(raw, 5, path)
    writable(metadata, 2e9)
    assert metadata.layout is Layout.DUALCAM
    assert (metadata.version, metadata.file_type, metadata.trigger) == (version, file_type, trigger)
    assert metadata.time == (time_ms / 1000 if time_ms % 1000 else time_ms // 1000)
    assert metadata.duration_s == length_of(metadata, duration_s)
    assert (metadata.frame_rate, metadata.time_zone_min) == (frame_rate or None, time_zone_min)
    assert (metadata.latitude, metadata.longitude) == place
    assert metadata.trigger_time == (None if trigger_time_ms is None else trigger_time_ms / 1000)
    if 0 < time_ms < 2**50:
        assert metadata.identity == f"{time_ms}-{file_type}"


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.integers(0, 9) | NAME,
            "file": st.fixed_dictionaries(
                {},
                optional={
                    "file_type": st.integers(0, 255) | NAME,
                    "file_timestamp": st.integers(0, 4_000_000_000) | st.integers(10**12, 4 * 10**12),
                    "duration": st.integers(0, 600) | st.floats(0, 600),
                    "framerate": st.integers(0, 60),
                },
            ),
            "fm_trigger": st.fixed_dictionaries({}, optional={"type": BYTE | NAME}),
            "cam_trigger": st.fixed_dictionaries({}, optional={"type": BYTE | NAME}),
            "location": st.fixed_dictionaries(
                {}, optional={"latitude": st.floats(-90, 90), "longitude": st.floats(-180, 180)}
            ),
            "driver_name": NAME,
        },
    ),
    st.dictionaries(
        st.text().filter(lambda name: name not in KEYS),
        st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    ),
    PROTOCOLS,
    ANY_PATH,
)
def test_json_comes_back(known: dict[str, object], extra: dict[str, object], protocol_id: int, path: bytes) -> None:
    """Every key is read, and those that nobody knows are kept."""
    raw = json.dumps(extra | known).encode()
    metadata = Metadata.parse(raw, protocol_id, path)
    assert metadata.layout is Layout.JSON and metadata.document == extra | known
    assert json.loads(json.dumps(writable(metadata, 2e9)["document"])) == extra | known
    file, place = (known.get(name, {}) for name in ("file", "location"))
    assert isinstance(file, dict) and isinstance(place, dict)
    stamp = file.get("file_timestamp")
    assert metadata.time == (stamp if stamp is None or stamp < 10**11 else stamp / 1000)
    assert metadata.duration_s == length_of(metadata, file.get("duration"))
    assert metadata.frame_rate == (file.get("framerate") or None)
    assert (metadata.latitude, metadata.longitude) == (place.get("latitude"), place.get("longitude"))
    assert (metadata.version or 0) == (known.get("version", "") or 0)
    assert metadata.driver == (known.get("driver_name") or None)
    assert number_or_name(metadata.file_type, metadata.file_type_name) == (file.get("file_type", "") or 0)
    for trigger, found in (
        ("fm_trigger", number_or_name(metadata.trigger, metadata.trigger_name)),
        ("cam_trigger", metadata.cam_trigger or 0),
    ):
        said = known.get(trigger, {})
        assert isinstance(said, dict) and found == (said.get("type", "") or 0)


def number_or_name(number: int | None, name: str | None) -> int | str:
    """Whichever is known."""
    return number or name or 0


def key() -> st.SearchStrategy[str]:
    """A key of the protocol, or any other."""
    return st.sampled_from(KEYS + INNER_KEYS) | st.text(max_size=5)


HOSTILE = st.dictionaries(key(), ANYTHING | st.dictionaries(key(), ANYTHING, max_size=4), max_size=6).map(
    lambda document: json.dumps(document).encode()[: c.MAX_METADATA_BYTES]
)


@given(
    st.binary(max_size=64) | HOSTILE | st.text(max_size=99).map(lambda text: b"{" + text.encode()),
    PROTOCOLS,
    ANY_PATH,
    st.none() | st.floats(),
)
@example(b'{"a":' + b"[" * 4000, 6, b"", None)
@example(b'{"file":{"file_timestamp":1e308,"file_type":1e308,"duration":1e308}}', 6, b"", 0.0)
@example(b'{"version":"\\ud800","driver_name":"\\udfff"}', 6, b"%photof", 0.0)
def test_nothing_fails(raw: bytes, protocol_id: int, path: bytes, received_s: float | None) -> None:
    """Whatever a device says about whatever file, it is read, kept, fit for JSON, and can be shown on one line."""
    metadata = Metadata.parse(raw, protocol_id, path)
    assert metadata.raw == raw
    writable(metadata, received_s)
    assert metadata.identity.isascii() and len(metadata.identity) < 50
    hash(metadata)
    assert explain(c.MetadataResponse(raw), protocol_id, path).words.isprintable()
