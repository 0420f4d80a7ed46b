"""What several tests build: a device's bytes, the vectors, and a session driven by hand.

Nothing here opens a socket or waits.
"""

from __future__ import annotations

import json
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from dsmgateway import commands as c
from dsmgateway import effects as fx
from dsmgateway.crc import crc16
from dsmgateway.errors import PeerError
from dsmgateway.events import Event
from dsmgateway.families import family_of
from dsmgateway.frames import DataRun
from dsmgateway.framing import DeviceDecoder, DeviceEvent, GatewayDecoder
from dsmgateway.reception import Reception, SessionOptions
from dsmgateway.session import Session
from dsmgateway.states import State
from dsmgateway.transfer import Transfer

settings.register_profile("dsmgateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dsmgateway")

# A shell has what it starts in the background ignore SIGINT, and so would every process that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode for this run where none is to be kept: hundreds of processes would compile the gateway anew."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        bytecode = tempfile.TemporaryDirectory(prefix="dsmgateway-bytecode-")
        config.add_cleanup(bytecode.cleanup)
        os.environ["PYTHONPYCACHEPREFIX"] = bytecode.name


IMEI = 356917000000013
OTHER_IMEI = 356917000000021
PATH = b"dsm/picture/251102/081601.jpg\0"
FILE_BIT = 0x02000000
IDLE = 0x40000400
#: Time, type 2, trigger 13, position, events 9, driver JONAS K: 26 bytes.
METADATA = bytes.fromhex("692173c0020d034275b50181bca400092020204b2053414e4f4a")
VECTORS = Path(__file__).parent / "vectors"


# -- a device's bytes


def init(settings: int = FILE_BIT, imei: int = IMEI, protocol_id: int = 5) -> c.Init:
    """An INIT, with a file to offer unless told otherwise."""
    return c.Init(protocol_id, imei, settings)


def content(size_bytes: int, seed: int = 1) -> bytes:
    """File content that is the same at every call."""
    return random.Random(seed).randbytes(size_bytes)


def data_frames(file: bytes, offset_bytes: int = 0, packet_bytes: int = c.PACKET_BYTES) -> list[bytes]:
    """The DATA frames of a file from a SYNC at this offset on, with their chained CRC."""
    frames, crc = [], 0
    for begin in range(offset_bytes, len(file), packet_bytes):
        packet = file[begin : begin + packet_bytes]
        crc = crc16(packet, crc)
        frames.append(c.Data(packet, crc).encode())
    return frames


def enhanced_frames(
    file: bytes, offset_bytes: int = 0, plain: Callable[[int], bool] = lambda number: False
) -> list[bytes]:
    """The same as ENHANCED_DATA, but for the frames whose number is to be ``plain``."""
    frames, crc = [], 0
    for number, begin in enumerate(range(offset_bytes, len(file), c.PACKET_BYTES)):
        packet = file[begin : begin + c.PACKET_BYTES]
        crc = crc16(packet, crc)
        frames.append((c.Data(packet, crc) if plain(number) else c.EnhancedData(begin, packet, crc)).encode())
    return frames


def opening(file: bytes, path: bytes = PATH, crc: int = 0) -> list[bytes]:
    """What a device sends up to SYNC, one command an item."""
    told = [init(), c.Path(path), c.MetadataResponse(METADATA), c.Start(len(file), crc), c.Sync(0)]
    return [command.encode() for command in told]


def conversation(file: bytes) -> bytes:
    """All that a device with one file sends, up to the INIT that offers nothing more."""
    return b"".join([*opening(file), *data_frames(file), init(IDLE).encode()])


def cut(stream: bytes, places: Iterable[int]) -> list[bytes]:
    """The stream in pieces, cut at these places."""
    edges = [0, *sorted({place for place in places if 0 < place < len(stream)}), len(stream)]
    return [stream[begin:end] for begin, end in pairwise(edges)]


def bytewise(stream: bytes) -> list[bytes]:
    """The stream in pieces of one byte."""
    return cut(stream, range(len(stream)))


# -- a decoder driven by hand


def drained(decoder: DeviceDecoder) -> Iterator[DeviceEvent]:
    """Every event that the decoder has ready."""
    while (event := decoder.next_event()) is not None:
        yield event


def merged(events: Iterable[DeviceEvent]) -> list[DeviceEvent]:
    """The events with neighbouring runs of DATA joined: how much comes at once is up to the cuts."""
    joined: list[DeviceEvent] = []
    for event in events:
        before = joined[-1] if joined else None
        if isinstance(event, DataRun) and isinstance(before, DataRun) and _goes_on(before, event):
            joined[-1] = DataRun(before.data + event.data, before.frames + event.frames, before.offset_bytes)
        else:
            joined.append(event)
    return joined


def _goes_on(before: DataRun, event: DataRun) -> bool:
    """Whether a run could have come as one with the run before it."""
    if before.offset_bytes is None:
        return event.offset_bytes is None
    return event.offset_bytes in (None, before.offset_bytes + len(before.data))


def decode(pieces: Iterable[bytes]) -> list[DeviceEvent]:
    """All events of a device's bytes, runs joined."""
    decoder, events = DeviceDecoder(), []
    for piece in pieces:
        decoder.feed(piece)
        events += drained(decoder)
    return merged(events)


def in_data(size_bytes: int = 1 << 20, imei: int = IMEI) -> DeviceDecoder:
    """A decoder that has just taken the SYNC at 0 of a file of this size."""
    decoder = DeviceDecoder()
    decoder.feed(init(imei=imei).encode() + c.Start(size_bytes, 0).encode() + c.Sync(0).encode())
    assert [type(event) for event in drained(decoder)] == [c.Init, c.Start, c.Sync]
    return decoder


# -- a session driven by hand


@dataclass
class MemoryStore:
    """A store that answers at once and keeps packets, not files: stands in for the disk."""

    parts: dict[tuple[object, ...], bytearray] = field(default_factory=dict)
    stored: list[dict[str, object]] = field(default_factory=list)
    #: What the open file is, and whether it is only compared.
    current: tuple[object, ...] = ()

    def open(self, imei: str | None, offer: fx.Open) -> int:
        """Return the packet boundary from which on the file is missing; a packet is asked for twice by identifier."""
        self.current = (imei, offer.device_path, offer.size_bytes, offer.start_crc, offer.in_packets, offer.qualifier)
        part = self.parts.setdefault(self.current, bytearray())
        known = len(part) // c.PACKET_BYTES - (offer.qualifier is not None)
        del part[max(0, known) * c.PACKET_BYTES if offer.qualifier != "" else 0 :]
        return len(part)

    def append(self, write: fx.Append) -> None:
        """Write at the offset, never beyond the end."""
        part = self.parts[self.current]
        assert write.offset_bytes <= len(part), "a hole"
        part[write.offset_bytes :] = write.data

    def finish(self, finish: fx.Finish) -> tuple[str, int]:
        """Keep the file; return its name and size."""
        imei, device_path, size_bytes, _, in_packets, _ = self.current
        body = bytes(self.parts.pop(self.current))
        assert isinstance(size_bytes, int) and isinstance(device_path, bytes)
        assert size_bytes - c.PACKET_BYTES < len(body) <= size_bytes if in_packets else len(body) == size_bytes
        metadata = finish.metadata.to_json() if finish.metadata else None
        family = family_of(device_path).value
        self.stored.append(
            {"imei": imei, "device_path": device_path, "content": body, "family": family, "metadata": metadata}
        )
        return f"media/{len(self.stored)}", len(body)


class Conversation:
    """One connection without a socket: bytes in, the gateway's bytes and the store's content out."""

    def __init__(self, store: MemoryStore | None = None, options: SessionOptions | None = None) -> None:
        self.session = Session(options or SessionOptions())
        self.decoder = DeviceDecoder()
        self.store = store or MemoryStore()
        self.sent = bytearray()
        self.noted: list[str] = []
        self.end: fx.End | None = None

    def feed(self, data: bytes) -> None:
        """Take bytes of the device."""
        if self.end is None:
            self.decoder.feed(data)
            self.advance()

    def advance(self) -> None:
        """Give the session all that is decoded."""
        try:
            while self.session.reads and (event := self.decoder.next_event()) is not None:
                self.perform(self.session.receive(event))
        except PeerError as error:
            self.perform(self.session.broke_protocol(str(error)))

    def perform(self, effects: Sequence[fx.Effect]) -> None:
        """Do what the session asks for."""
        for effect in effects:
            self._perform_one(effect)

    def _perform_one(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Send(command):
                self.sent += command.encode()
            case fx.DropUntilSync():
                self.decoder.drop_until_sync()
            case fx.ExpectData(remaining_bytes, whole_packets):
                self.decoder.expect_data(remaining_bytes, whole_packets)
            case fx.Open():
                self.perform(self.session.opened(self.store.open(self.session.imei, effect), False))
            case fx.Append():
                self.store.append(effect)
            case fx.Finish():
                self.perform(self.session.stored(*self.store.finish(effect), False))
            case fx.Note(event):
                self.noted.append(event.label)
            case fx.End():
                self.end = effect

    @property
    def commands(self) -> list[c.GatewayCommand]:
        """What was sent to the device, as commands."""
        decoder = GatewayDecoder()
        decoder.feed(self.sent)
        return list(iter(decoder.next_command, None))


#: Size of the file in `session_in`: two whole packets and a short one.
SIZE = 2500


def session_in(
    state: State, options: SessionOptions | None = None, held_bytes: int = 0, comparing: bool = False
) -> Session:
    """A session that has come to this state the usual way; the store holds so much of the file already."""
    session = Session(options or SessionOptions(repeat=state is not State.FAREWELL, resume_tries=3))
    inputs: list[Callable[[], object]] = [
        lambda: session.receive(init()),
        lambda: session.receive(c.Path(PATH)),
        lambda: session.receive(c.MetadataResponse(METADATA)) if session.state is State.AWAIT_METADATA else None,
        lambda: session.receive(c.Start(SIZE, 0)),
        lambda: session.opened(held_bytes, comparing),
        lambda: session.receive(c.Sync(held_bytes)),
        lambda: session.receive(DataRun(bytes(SIZE - held_bytes), 3)),
        lambda: session.stored("media/1", SIZE, False),
        session.stop,
    ]
    for give_in in inputs:
        if session.state is not state:
            give_in()
    assert session.state is state
    return session


def acts(effects: Iterable[fx.Effect]) -> list[fx.Effect]:
    """The effects without log events."""
    return [effect for effect in effects if not isinstance(effect, fx.Note)]


def notes(effects: Iterable[fx.Effect]) -> dict[Event, dict[str, object]]:
    """The log events with their fields."""
    return {effect.event: effect.fields for effect in effects if isinstance(effect, fx.Note)}


def resume(offset_bytes: int) -> list[fx.Effect]:
    """What asking for data from here on consists of."""
    return [fx.DropUntilSync(), fx.Send(c.Resume(offset_bytes))]


def slots_of(session: Session) -> dict[str, object]:
    """Every slot of a session, and of its transfer, as they are now."""
    kept: dict[str, object] = {name: getattr(session, name) for name in (*Reception.__slots__, *Session.__slots__)}
    transfer = session.transfer
    if transfer is not None:
        kept["transfer"] = {name: getattr(transfer, name) for name in Transfer.__slots__}
    return kept


# -- the vectors


def load_vectors() -> list[dict[str, Any]]:
    """Every recorded conversation in tests/vectors, with its expected answers."""
    return [json.loads(path.read_text(encoding="ascii")) for path in sorted(VECTORS.glob("*.json"))]
