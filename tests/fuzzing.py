"""What holds for whatever bytes come: one function a reader of bytes, for `test_fuzz.py` and for `hunt.py`.

A target takes any bytes and raises `AssertionError`, or whatever it met, where a property is broken. Some bytes of an
input say how it is read (in which mode, cut where), so that an input is all that a failure needs. To replay some:

    python tests/fuzzing.py TARGET FILE...
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import random
import re
import sqlite3
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from conftest import (
    IMEI,
    METADATA,
    OTHER_IMEI,
    PATH,
    Conversation,
    MemoryStore,
    bytewise,
    content,
    cut,
    drained,
    merged,
    opening,
)
from twisted.internet.endpoints import serverFromString

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.captures import CaptureError, Piece, read_capture
from dsmgateway.config import load
from dsmgateway.crc import crc16
from dsmgateway.decode import Decoding, Direction, Line, direction_of
from dsmgateway.errors import CommandError, ConfigError, FramingError, HeaderError
from dsmgateway.explain import explain
from dsmgateway.frames import DataRun
from dsmgateway.framing import Damaged, DeviceDecoder, DeviceEvent, GatewayDecoder, StepFound
from dsmgateway.known_devices import is_imei, parse_known_devices
from dsmgateway.metadata import Metadata
from dsmgateway.metadata_layouts import Layout
from dsmgateway.proxy_header import MAX_V1_BYTES, MAX_V2_BODY_BYTES, V2_SIGNATURE, Header, HeaderParser
from dsmgateway.reception import SessionOptions
from dsmgateway.settings import OPTIONS
from dsmgateway.states import State
from dsmgateway.store import Offered
from dsmgateway.store.index import _COLUMNS, _INSERT, _SCHEMA, _values
from dsmgateway.store.journal import Journal, encode_checkpoint, encode_header, read_journal
from dsmgateway.store.naming import is_final_path, iso_time, sidecar_path
from dsmgateway.store.resuming import proven_checkpoint
from dsmgateway.store.sidecar import encode_sidecar, parse_sidecar, path_fields
from dsmgateway.store.values import Record
from dsmgateway.workers.ports import shared_port

CORPUS = Path(__file__).parent / "corpus"
#: Longest input that is made, and most bytes of a device that one makes.
MOST_BYTES, MOST_STREAM_BYTES = 2048, 6 << 10
#: Longest stream that is also given in byte by byte.
MOST_BYTEWISE = 500
#: A METADATA that is one byte short of its end, the longest command of all.
MOST_BUFFERED = c.HEADER_BYTES + c.MAX_METADATA_BYTES - 1


class Script:
    """The bytes of an input, taken one after the other; where there are no more, zeros."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, length: int) -> bytes:
        """The next bytes, as far as there are any."""
        begin, self._at = self._at, self._at + length
        return self._data[begin : self._at]

    def number(self, length: int = 1) -> int:
        return int.from_bytes(self.take(length).ljust(length, b"\0"), "big")

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def cuts(self, length: int) -> list[int]:
        """Where to cut so many bytes."""
        chance = random.Random(self.number(2))
        return [chance.randint(0, length) for _ in range(chance.choice([1, 2, 5, 12]))]


# -- what a device sends

PATHS = [
    PATH,
    b"\0",
    b"",
    b"mdas9/video/251102/081601.mp4\0",
    b"dualcam_front/251102/081601.h265\0",
    b"dsm/\xff\n/../%s",
    b"dashcam/picture/1.jpg\0",
]
BODIES = [
    METADATA,
    b"",
    METADATA[:15],
    struct.pack(">BBQBHBhdd", 3, 4, 1571840452123, 9, 0, 0, 60, 54.7, 25.3),
    b'{"version":1,"file":{"file_type":2,"file_timestamp":1571840452}}',
]
LENGTHS = [1024, 1, 0, 3, 1023, 300]
FILE = content(1 << 14)


def device_stream(script: Script) -> bytes:
    """The bytes of a device that goes by a script: its commands, file data with its chained CRC, and all kinds of harm.

    CRCs are what no search for coverage would find by itself.
    """
    out, frame, crc, place = bytearray(), b"", 0, 0
    while script and len(out) < MOST_STREAM_BYTES:
        before = len(out)
        match script.number() % 14:
            case 0:
                flags = script.number()
                imei = OTHER_IMEI if flags & 1 else IMEI
                frame = c.Init(6 if flags & 0x80 else 5, imei, (flags & 0x7E) << 24).encode()
            case 1:
                frame = c.Path(PATHS[script.number() % len(PATHS)]).encode()
            case 2:
                frame = c.MetadataResponse(BODIES[script.number() % len(BODIES)]).encode()
            case 3:
                frame = c.Start(script.number(2), script.number()).encode()
            case 4:
                place, crc = script.number(2), 0
                frame = c.Sync(place).encode()
            case 5 | 6 | 7 as how:
                for _ in range(script.number() % 8 + 1):
                    length = LENGTHS[how - 5] or LENGTHS[script.number() % len(LENGTHS)] or 2
                    packet = FILE[place % 4096 :][:length]
                    crc = crc16(packet, crc)
                    frame = c.Data(packet, crc).encode()
                    out += frame
                    place += length
                frame = b""
            case 8:
                packet = FILE[place % 4096 :][: script.number(2) % c.PACKET_BYTES + 1]
                crc = crc16(packet, crc)
                frame = c.EnhancedData(place, packet, crc).encode()
                place += len(packet)
            case 9:
                frame = script.take(script.number() % 64)
            case 10:
                del out[max(0, len(out) - script.number(2) % 1500) :]
                frame = b""
            case 11:
                if out:
                    out[-1 - script.number(2) % len(out)] ^= script.number() or 1
                frame = b""
            case 12:
                frame = c.Status(script.number()).encode()
            case 13:
                frame = bytes(out[len(out) - min(script.number(2) % 1100, len(out)) :])
        out += frame if len(out) >= before else b""
    return bytes(out)


# -- the decoder


def fuzz_decoder(data: bytes) -> None:
    """Cuts do not matter, the buffer is bounded, and each event is what stands in its bytes, in every mode."""
    script = Script(data)
    mode = script.number()
    places = script.cuts(MOST_STREAM_BYTES)
    begun = b"".join(opening(bytes(4096))) if mode & 1 else b""
    stream = begun + (script.rest() if mode & 2 else device_stream(script))
    whole = _decoded([stream], mode, len(stream) + MOST_BUFFERED)
    assert _decoded(cut(stream, [place % (len(stream) + 1) for place in places]), mode) == whole
    if len(stream) < MOST_BYTEWISE:
        assert _decoded(bytewise(stream), mode) == whole
    _assert_events_are_the_bytes(stream, mode)
    _assert_gateway_decoder(stream[len(begun) :], places)


def _events(decoder: DeviceDecoder, mode: int) -> Iterator[DeviceEvent]:
    """All events there are; the decoder is told what a session would tell it, as ``mode`` says."""
    size = 4096
    for event in drained(decoder):
        yield event
        if isinstance(event, c.Start):
            size = event.size
            if mode & 4:
                decoder.drop_until_sync()
        elif isinstance(event, c.Sync) and mode & 8:
            decoder.expect_data(size - event.offset, bool(mode & 16))
        elif isinstance(event, Damaged | StepFound) and mode & 32:
            decoder.drop_until_sync()


def _decoded(pieces: list[bytes], mode: int, most_buffered: int = MOST_BUFFERED) -> tuple[list[DeviceEvent], str]:
    """All events up to the first error, runs joined, and the error."""
    decoder, events = DeviceDecoder(), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            events += _events(decoder, mode)
            assert decoder.buffered_bytes <= most_buffered
    except (CommandError, FramingError) as error:
        return merged(events), f"{type(error).__name__}: {error}"
    return merged(events), ""


def _assert_events_are_the_bytes(stream: bytes, mode: int) -> None:
    """Taken one by one, each event encodes to the bytes before the place that the decoder has come to."""
    decoder = DeviceDecoder(run_frames=1)
    decoder.feed(stream)
    crc = end = 0
    try:
        for event in _events(decoder, mode & ~24):
            before, end = end, len(stream) - decoder.buffered_bytes
            assert before <= end
            if isinstance(event, StepFound):
                assert end == before + event.skipped_bytes
            elif isinstance(event, Damaged):
                assert end == before
            elif isinstance(event, DataRun):
                crc = crc16(event.data, crc)
                told = event.offset_bytes
                frame = c.Data(event.data, crc) if told is None else c.EnhancedData(told, event.data, crc)
                assert stream[before:end] == frame.encode()
            else:
                assert stream[:end].endswith(event.encode()), event
                crc = 0 if isinstance(event, c.Sync) else crc
    except (CommandError, FramingError):
        pass


def _assert_gateway_decoder(stream: bytes, places: list[int]) -> None:
    """The gateway's bytes, as a device reads them: cuts do not matter, and what is read encodes to what was there."""
    results = []
    for pieces in ([stream], cut(stream, places)):
        decoder, found, error = GatewayDecoder(), [], ""
        try:
            for piece in pieces:
                decoder.feed(piece)
                found += iter(decoder.next_command, None)
        except (CommandError, FramingError) as wrong:
            error = str(wrong)
        results.append((found, error))
    assert results[0] == results[1]
    wire = b"".join(command.encode() for command in results[0][0])
    canonical = {c.PathRequest: 2}  # what its blank field has in it is nobody's business
    if not any(type(command) in canonical for command in results[0][0]):
        assert stream.startswith(wire)


# -- the session


class StrictStore(MemoryStore):
    """A store that takes nothing that the real one would not."""

    def open(self, imei: str | None, offer: fx.Open) -> int:
        Offered(
            imei or "",
            offer.device_path,
            offer.size_bytes,
            offer.start_crc,
            in_packets=offer.in_packets,
            qualifier=offer.qualifier,
        )
        assert 0 < offer.size_bytes <= SessionOptions().max_file_size
        return super().open(imei, offer)

    def append(self, write: fx.Append) -> None:
        super().append(write)
        size_bytes = self.current[2]
        assert isinstance(size_bytes, int) and len(self.parts[self.current]) <= size_bytes, "beyond the size"


def fuzz_session(data: bytes) -> None:
    """Whatever a device sends, however cut: the same answers and files, no word too early, little held."""
    script = Script(data)
    mode = script.number()
    places = script.cuts(MOST_STREAM_BYTES)
    begun = b"".join(opening(FILE[:2100])) if mode & 1 else b""
    stream = begun + (script.rest() if mode & 2 else device_stream(script))
    options = SessionOptions(
        metadata=not mode & 4, repeat=not mode & 8, resume_tries=3, max_resyncs=4, max_photo_size=40 << 10
    )
    whole = _talked([stream], options, mode)
    assert _talked(cut(stream, [place % (len(stream) + 1) for place in places]), options, mode) == whole
    if len(stream) < MOST_BYTEWISE:
        assert _talked(bytewise(stream), options, mode) == whole


class Talk(Conversation):
    """A conversation in which a state's time runs out, the disk fails or the gateway stops after so many commands."""

    def __init__(self, options: SessionOptions, mode: int) -> None:
        super().__init__(StrictStore(), options)
        self._mode, self._until = mode, (mode >> 6) * 3 + 2

    def perform(self, effects: list[fx.Effect]) -> None:  # type: ignore[override]
        """Do as asked; of what the session asks after its end nothing may reach the device."""
        for effect in effects:
            assert not (self.end and isinstance(effect, fx.Send | fx.End)), f"{effect} after the end"
            self._perform_one(effect)
        if any(isinstance(effect, fx.Send) for effect in effects):
            self._until -= 1
            if self._until == 0 and self.end is None and self._mode & 48:
                self._disturb()

    def _disturb(self) -> None:
        if self._mode & 48 == 16:
            self.perform(self.session.timed_out())
        elif self._mode & 48 == 32:
            self.perform(self.session.taken_over())
        else:
            self.perform(self.session.store_failed("the disk failed"))


def _talked(pieces: list[bytes], options: SessionOptions, mode: int) -> tuple[object, ...]:
    """What came of the conversation."""
    talk = Talk(options, mode)
    for piece in pieces:
        talk.feed(piece)
        if len(pieces) > 1 and talk.end is None:
            assert talk.decoder.buffered_bytes <= MOST_BUFFERED
    commands = talk.commands
    _assert_no_word_too_early(commands, talk)
    state = talk.session.state
    assert (talk.end is not None) == (state is State.ENDED)
    talk.perform(talk.session.lost())
    assert talk.session.state is State.ENDED
    end = talk.end and (talk.end.reason, talk.end.abort)
    return bytes(talk.sent), talk.store.stored, talk.store.parts, end, state


def _assert_no_word_too_early(commands: list[c.GatewayCommand], talk: Talk) -> None:
    """One acknowledgement a file stored, and CLOSE only where no data was asked for since."""
    acknowledged = [command for command in commands if isinstance(command, c.RepeatInit | c.Status)]
    assert len(acknowledged) == len(talk.store.stored) == talk.session.files_stored
    for before, command in itertools.pairwise(commands):
        if isinstance(command, c.Close):
            assert not isinstance(before, c.Resume)
        assert not isinstance(before, c.Close | c.Status)


# -- metadata

DEVICE_PATHS = [path.rstrip(b"\0") for path in PATHS] + [b"%photof", b"%videor", b"dsm/video/1.mp4"]


def fuzz_metadata(data: bytes) -> None:
    """It never fails, is kept, can be written as JSON by a strict writer, and its numbers are those of its bytes."""
    script = Script(data)
    how = script.number()
    protocol_id, path = (6 if how & 1 else 5), DEVICE_PATHS[(how >> 1) % len(DEVICE_PATHS)]
    raw = script.take(c.MAX_METADATA_BYTES)
    metadata = Metadata.parse(raw, protocol_id, path)
    assert metadata.raw == raw
    for received_s in (None, 2e9):
        said = metadata.to_json(received_s)
        written = json.dumps(said, allow_nan=False)
        assert json.loads(written) == said
        written.encode("ascii")
        json.dumps(said, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert metadata.identity.isascii() and len(metadata.identity) < 50
    hash(metadata)
    Offered(str(IMEI), path, 1024, 0, qualifier=metadata.identity)
    assert explain(c.MetadataResponse(raw), protocol_id, path).words.isprintable()
    assert metadata.driver is None or metadata.driver.isprintable()
    assert metadata.latitude is None or abs(metadata.latitude) <= 90
    assert metadata.longitude is None or abs(metadata.longitude) <= 180
    for amount in (metadata.time, metadata.duration_s, metadata.frame_rate, metadata.trigger_time):
        assert amount is None or (amount >= 0 and math.isfinite(amount))
    if metadata.layout in (Layout.DSM, Layout.ADAS):
        _assert_says_its_bytes(metadata)
    if metadata.layout is Layout.JSON:
        again = Metadata.parse(json.dumps(metadata.document).encode(), protocol_id, path)
        assert again.to_json() | {"raw": ""} == metadata.to_json() | {"raw": ""}


def _assert_says_its_bytes(metadata: Metadata) -> None:
    """The fields of the binary layouts that count in seconds, encoded again, are the bytes."""
    raw = metadata.raw
    assert struct.pack(">IBB", metadata.time, metadata.file_type, metadata.trigger) == raw[:6]
    for degrees, limit, at in ((metadata.latitude, 90, 6), (metadata.longitude, 180, 10)):
        (wire,) = struct.unpack_from(">i", raw, at)
        assert wire == round(degrees * 1e6) if degrees is not None else abs(wire) > limit * 1e6
    if metadata.event_bits is not None:
        assert struct.pack(">H", metadata.event_bits) == raw[14:16]


# -- a balancer's header


def fuzz_proxy_header(data: bytes) -> None:
    """Cuts do not matter, no more is held than the longest header, and what is after it comes out again."""
    script = Script(data)
    places = script.cuts(400)
    stream = (b"", b"PROXY ", V2_SIGNATURE, b"PROXY TCP6 ")[script.number() % 4] + script.rest()
    found, error = _header([stream])
    assert _header(cut(stream, places)) == (found, error)
    assert _header(bytewise(stream)) == (found, error)
    if found is None:
        return
    header = stream[: len(stream) - len(found.rest)]
    assert header + found.rest == stream
    assert len(header) <= (MAX_V1_BYTES if header.startswith(b"P") else 16 + MAX_V2_BODY_BYTES)
    assert _header([header]) == (Header(found.source, b""), "")
    assert _header([header[:-1]]) == (None, "")
    if found.source is not None:
        host, port = found.source.host, found.source.port
        line = f"PROXY TCP{host.version} {host} {host} {port} 1\r\n".encode()
        assert _header([line]) == (Header(found.source, b""), "")


def _header(pieces: list[bytes]) -> tuple[Header | None, str]:
    parser = HeaderParser()
    try:
        for number, piece in enumerate(pieces):
            found = parser.feed(piece)
            if found is not None:
                return Header(found.source, found.rest + b"".join(pieces[number + 1 :])), ""
            assert len(parser._held) < 16 + MAX_V2_BODY_BYTES
    except HeaderError as error:
        assert str(error).isprintable()
        return None, type(error).__name__
    return None, ""


# -- what the store reads back

PART = content(3000, 5)
PHOTO = Offered(str(IMEI), b"%photof", 3072, 0, in_packets=True, qualifier="1571840452123-4")
PLAIN = Offered(str(IMEI), PATH, 3000, 0)


@functools.cache
def _journal_of(offered: Offered) -> bytes:
    """A journal as it is written, up to the end of the part."""
    fields = [
        {"offset": at, "sha256": _sha256(PART[:at]), "connections": 1, "twice": 0} for at in (0, 1024, 2048, 3000)
    ]
    return encode_header(offered, 1.5) + b"".join(map(_record, map(_text_of, fields)))


def _record(text: bytes) -> bytes:
    """A line of a journal with a right checksum."""
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _text_of(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


def fuzz_journal(data: bytes) -> None:
    """Any journal beside any part: the offset is proven by the bytes, and what is believed was written so."""
    script = Script(data)
    mode = script.number()
    places = script.cuts(600)
    part = bytearray(PART)
    match mode % 4:
        case 0:
            text = script.rest()
        case 1:  # right checksums, whatever is in the lines
            text = b"".join(map(_record, script.rest().split(b"\n")))
        case 2:  # a header of ours, then lines with right checksums
            text = encode_header(PHOTO if mode & 4 else PLAIN, 1.5)
            text += b"".join(map(_record, script.rest().split(b"\n")))
        case _:  # one of ours, and its part, with damage
            whole = bytearray(_journal_of(PHOTO if mode & 4 else PLAIN))
            damaged = part if mode & 8 else whole
            while script:
                place = script.number(2) % (len(damaged) + 1)
                if mode & 16:
                    del damaged[place:]
                else:
                    damaged[place : place + 1] = bytes([script.number()])
            text = bytes(whole)
    journal = read_journal([text])
    assert read_journal(cut(text, places)) == journal
    if journal is not None:
        _assert_believable(journal, text, bytes(part))


def _assert_believable(journal: Journal, text: bytes, part: bytes) -> None:
    lines = text.split(b"\n")
    assert len(journal.checkpoints) <= 64 and all(len(line) <= 4096 for line in lines[: len(journal.checkpoints) + 1])
    assert journal.end_bytes == len(lines[0]) + 1
    iso_time(journal.first_seen)
    written = encode_header(journal.offered, journal.first_seen)
    for point in journal.checkpoints:
        written += encode_checkpoint(point)
        line = text[: point.end_bytes].split(b"\n")[-2]
        assert line.startswith(b"%08x " % zlib.crc32(line[9:]))
        assert point.offset_bytes <= journal.offered.size_bytes
    again = read_journal([written])
    assert again is not None and again.offered == journal.offered and again.offered.key == journal.offered.key
    assert [_cost(point) for point in again.checkpoints] == [_cost(point) for point in journal.checkpoints]
    proven = proven_checkpoint(iter(cut(part, [1000, 1024, 2500])), journal.checkpoints)
    if proven is None:
        return
    assert proven.offset_bytes <= len(part) and _sha256(part[: proven.offset_bytes]) == proven.sha256
    offset_bytes = journal.offered.resume_offset(proven.offset_bytes)
    assert 0 <= offset_bytes <= proven.offset_bytes and offset_bytes % 1024 == 0
    assert offset_bytes < journal.offered.size_bytes or not offset_bytes


def _cost(point: object) -> tuple[object, ...]:
    return tuple(getattr(point, name) for name in ("offset_bytes", "sha256", "connections", "twice_bytes"))


SIDECAR_RECORD = Record(
    "media/356917000000013/2026/01/31/20260131T235959123Z_081601_9f86d081.jpg",
    str(IMEI),
    b"dsm/a.jpg",
    3000,
    "9f86d081" * 8,
    4660,
    None,
)


def sidecar_of(record: Record) -> bytes:
    """A sidecar as it is written, as far as it is read back."""
    offered = Offered(record.imei, record.device_path, record.size_bytes, 0)
    about = {"qualifier": record.qualifier} if record.qualifier is not None else {}
    fields = {"path": record.path, "size": record.size_bytes, "sha256": record.sha256, "crc16": record.crc16}
    return encode_sidecar({"imei": record.imei, **path_fields(offered), **fields, **about}, {})


@functools.cache
def _index() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    for statement in _SCHEMA:
        connection.execute(statement)
    return connection


def fuzz_sidecar(data: bytes) -> None:
    """Any bytes are no sidecar or a record that names a file of ours, fits into the index, and comes back from both."""
    script = Script(data)
    mode = script.number()
    if mode & 1:
        text = bytearray(sidecar_of(SIDECAR_RECORD))
        while script:
            place = script.number(2) % (len(text) + 1)
            length = script.number()
            text[place : place + length % 16] = script.take(length >> 4)
        record = parse_sidecar(bytes(text))
    else:
        record = parse_sidecar(script.rest())
    if record is None:
        return
    assert is_final_path(record.path)
    assert not ({"..", ".", ""} & set(record.path.split("/"))) and sidecar_path(record.path) != record.path
    assert parse_sidecar(sidecar_of(record)) == record
    _index().execute(_INSERT, _values(record))
    (row,) = _index().execute(f"SELECT {_COLUMNS} FROM stored").fetchall()
    _index().execute("DELETE FROM stored")
    assert Record(*row) == record


# -- what operators write


def fuzz_known_devices(data: bytes) -> None:
    """A list that is taken is written back as the same list; one that is not is refused in one line with its number."""
    try:
        names = parse_known_devices(data)
    except ConfigError as error:
        assert str(error).isprintable() and re.match(r"line [1-9][0-9]*: ", str(error))
        return
    assert all(is_imei(imei) and name == name.strip() for imei, name in names.items())
    assert all(imei.encode() in data for imei in names)
    listed = "".join(f"{imei} {name}\n" for imei, name in names.items())
    assert parse_known_devices(listed.encode()) == names
    assert parse_known_devices(data + b"\n# the end\n") == names


@functools.cache
def _toml_path() -> Path:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(dir=memory)) / "x.toml"


def fuzz_config(data: bytes) -> None:
    """A file, an environment or options: refused in one line, or settings each of which is read back as it is shown."""
    script = Script(data)
    mode = script.number()
    given: dict[str, list[str]] = {}
    environ: dict[str, str] = {}
    config = None
    if mode % 4 == 0:
        config = str(_toml_path())
        _toml_path().write_bytes(script.rest())
    elif mode % 4 == 1:
        for line in script.rest().split(b"\0"):
            name, _, value = line.decode("utf-8", "surrogateescape").partition("=")
            environ[f"DSMGATEWAY_{name}"] = value
    else:
        option = OPTIONS[script.number() % len(OPTIONS)]
        text = script.rest().decode("utf-8", "surrogateescape")
        if mode % 4 == 2:
            environ[option.variable] = text
        else:
            given[option.name] = text.split("\0") if option.repeatable else [text]
    try:
        loaded = load(given, environ, Path("/srv"), config)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    for option in OPTIONS:
        value = getattr(loaded.settings, option.field_name)
        for one in value if option.repeatable else () if value in (None, ()) else (value,):
            assert option.kind.read(option.kind.show(one)) == one, (option.name, one)
    assert set(loaded.sources) <= {option.name for option in OPTIONS}
    for port in loaded.settings.ports:
        _assert_is_shared_as_written(port)


def _assert_is_shared_as_written(port: str) -> None:
    """Several processes refuse a port in one line, or listen where one process does."""
    try:
        shared = shared_port(port, 7)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert 0 <= shared.number <= 65535
    if port.startswith("tcp:"):
        alone = serverFromString(None, port)
        assert (alone._port, alone._interface) == (shared.number, shared.host)


# -- what was captured


def fuzz_captures(data: bytes) -> None:
    """Raw bytes, hex or a trace: each byte stands in one line, and in the forms that we write ourselves comes back."""
    script = Script(data)
    mode = script.number()
    places = script.cuts(2000)
    stream = script.rest()
    if mode & 1:
        stream = device_stream(Script(stream))
    form, pieces, error = _captured([stream])
    head = max(512, stream.find(b"\n") + 1)
    tail = [head + place % (len(stream) - head + 1) for place in places] if len(stream) > head else []
    cut_form, cut_pieces, cut_error = _captured(cut(stream, [head, *tail]))
    if cut_form == form:  # a head of text before other bytes is as much as is looked at
        assert (bool(cut_error), _joined(cut_pieces)) == (bool(error), _joined(pieces))
    if form == "raw bytes":
        assert not error and _joined(pieces) == [(None, stream)]
    if error:
        return
    _assert_in_lines(pieces)
    everything = b"".join(piece.data for piece in pieces)
    assert _joined(_captured([everything.hex(" ").encode() or b" "])[1]) == _joined([Piece(everything)])
    lines = [f"{number}.5 {piece.direction or 'device'} {piece.data.hex()}\n" for number, piece in enumerate(pieces)]
    _, again, error = _captured(["".join(lines).encode()])
    assert not error and _joined(again) == _joined(
        [Piece(piece.data, piece.direction or Direction.DEVICE) for piece in pieces]
    )


def _captured(blocks: list[bytes]) -> tuple[str, list[Piece], str]:
    capture, pieces = read_capture(blocks), []
    try:
        for piece in capture.pieces:
            pieces.append(piece)
    except CaptureError as error:
        assert str(error).isprintable()
        return capture.form, pieces, str(error)
    return capture.form, pieces, ""


def _joined(pieces: list[Piece]) -> list[tuple[Direction | None, bytes]]:
    """The bytes of each side."""
    sides: dict[Direction | None, bytes] = {}
    for piece in pieces:
        if piece.data:
            sides[piece.direction] = sides.get(piece.direction, b"") + piece.data
    return list(sides.items())


def _assert_in_lines(pieces: list[Piece]) -> None:
    """Every byte of each direction stands in one line, in order, and each line can be printed."""
    decoding, lines = Decoding(), list[Line]()
    fed = dict.fromkeys(Direction, 0)
    sender = direction_of(b"".join(piece.data for piece in pieces)[:16])
    for piece in pieces:
        fed[piece.direction or sender] += len(piece.data)
        lines += decoding.feed(piece.direction or sender, piece.data, piece.time)
    lines += decoding.finish()
    for line in lines:
        assert line.to_text().isprintable()
        assert json.loads(line.to_json())["offset"] == line.offset_bytes
        assert line.length_bytes >= 0
    for direction in Direction:
        end = 0
        for line in lines:
            if line.direction is direction:
                assert line.offset_bytes == end
                end += line.length_bytes
        assert end == fed[direction]


Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {
    name.removeprefix("fuzz_"): target for name, target in list(globals().items()) if name.startswith("fuzz_")
}

TOKENS = [b"\0", b"\xff", b"\n", b" ", b"{}", b"[", b'"', b"#", b"\0\4\4\2", b"\0\3\0\4", b"=", b",", b"1e999", b"-1"]


def corpus(name: str) -> list[bytes]:
    """The inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """One of these inputs with some bytes changed, cut out, doubled, put in, or with the end of another one."""
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        place = chance.randint(0, len(data))
        match chance.randrange(6):
            case 0 if place < len(data):
                data[place] ^= 1 << chance.randrange(8)
            case 1 if place < len(data):
                data[place] = chance.randrange(256)
            case 2:
                del data[place : place + chance.choice([1, 2, 8, 100])]
            case 3:
                data[place:place] = data[place : place + chance.choice([1, 3, 20, 200])]
            case 4:
                other = chance.choice(seeds)
                data[place:] = other[chance.randint(0, len(other)) :]
            case _:
                data[place:place] = chance.choice([*TOKENS, chance.randbytes(chance.choice([1, 2, 9]))])
    return bytes(data[:MOST_BYTES])


def replay(name: str, files: list[str]) -> None:
    """Give files to a target; the first that breaks a property ends with its traceback."""
    for file in files:
        print(f"{name} {file}", flush=True)
        TARGETS[name](Path(file).read_bytes())


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"{__doc__}\nTARGET is one of {', '.join(TARGETS)}.")
    replay(sys.argv[1], sys.argv[2:])
