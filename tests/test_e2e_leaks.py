"""Sessions of all kinds without end: memory, open files and living objects of a real gateway stay as they are."""

from __future__ import annotations

import asyncio
import random
import socket
import statistics
import struct
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import FILE_BIT, IDLE, METADATA, data_frames, init
from running import checked
from soak import SOAK, times
from watching import Life, life_of, watched

from dsmgateway import commands as c
from dsmgateway.framing import GatewayDecoder
from dsmgateway.simulator.identity import imei_of

#: Devices that come: each comes in the first tenth, since what is remembered of a device is bounded, and no leak.
DEVICES = 200
#: Sessions at a time, and looks at the gateway.
AT_ONCE, LOOKS = 24, 20
#: All come from one address, as fast as they can.
ANY_RATE = ("--accept-rate=100000", "--accept-rate-per-address=100000")
#: What the index may cache in a process: two connections with SQLite's default.
INDEX_CACHES_KIB = 2 * 2048


class Sessions:
    """Comes to a gateway as whatever comes to it, one after the other."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._serial = 0
        self.done: Counter[str] = Counter()

    async def run(self, count: int) -> None:
        """So many sessions, some at a time."""
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                self._serial += 1
                await asyncio.wait_for(self._session(self._serial), 60)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    async def _session(self, serial: int) -> None:
        imei = int(imei_of(serial * 7 % DEVICES + 1))
        kinds = (self._nothing, self._garbage, self._refused, self._nothing, self._whole)
        kinds += (self._known, self._aborted, self._garbage, self._silent, self._huge)
        kind = kinds[serial % len(kinds)]
        self.done[kind.__name__[1:]] += 1
        with suppress(ConnectionError):
            await kind(serial, imei)

    async def _nothing(self, serial: int, imei: int) -> None:
        await self._talk(imei, settings=IDLE)

    async def _garbage(self, serial: int, imei: int) -> None:
        await self._say(random.Random(serial % 50).randbytes(200))

    async def _refused(self, serial: int, imei: int) -> None:
        """Its IMEI has a wrong check digit."""
        await self._talk(imei // 10 * 10 + (imei + 5) % 10)

    async def _whole(self, serial: int, imei: int) -> None:
        await self._talk(imei, b"dsm/picture/%06d/%06d.jpg" % divmod(serial, 10**6), b"%010d" % serial * 70)

    async def _known(self, serial: int, imei: int) -> None:
        await self._talk(imei, b"dsm/picture/251102/081601.jpg", b"%d" % imei * 100)

    async def _aborted(self, serial: int, imei: int) -> None:
        """Brings two packets more each time."""
        await self._talk(imei, b"dsm/video/251102/081601.mp4", b"%d" % imei * 100_000, packets=2)

    async def _silent(self, serial: int, imei: int) -> None:
        await self._say(b"\0")

    async def _huge(self, serial: int, imei: int) -> None:
        await self._talk(imei, size=0xFFFFFFFF)

    async def _say(self, words: bytes) -> None:
        """Say that and leave."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(words)
        await self._leave(writer)

    async def _leave(self, writer: asyncio.StreamWriter) -> None:
        """Reset the connection."""
        with suppress(OSError):
            await writer.drain()
            made: socket.socket = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def _talk(
        self,
        imei: int,
        path: bytes = b"dsm/picture/251102/081602.jpg",
        content: bytes = b"",
        *,
        settings: int = FILE_BIT,
        size: int = 0,
        packets: int | None = None,
    ) -> None:
        """Be a camera with this file, up to the gateway's end or the end of so many packets."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        decoder = GatewayDecoder()
        writer.write(init(settings, imei).encode())
        while said := await reader.read(65536):
            decoder.feed(said)
            for command in iter(decoder.next_command, None):
                match command:
                    case c.PathRequest():
                        writer.write(c.Path(path + b"\0").encode())
                    case c.MetadataRequest():
                        writer.write(c.MetadataResponse(METADATA).encode())
                    case c.FileRequest():
                        writer.write(c.Start(size or len(content), 0).encode())
                    case c.Resume(offset=offset):
                        end = len(content) if packets is None else offset + packets * c.PACKET_BYTES
                        writer.write(b"".join([c.Sync(offset).encode(), *data_frames(content[:end], offset)]))
                        if packets is not None:
                            await self._leave(writer)
                            return
                    case c.RepeatInit():
                        writer.write(init(IDLE, imei).encode())
        writer.close()
        await writer.wait_closed()


def stays(name: str, lives: list[Life], tolerance: float) -> str:
    """Compare a figure in the last tenth with the third, when all caches are full; return it in words."""
    figures = [getattr(life, name) for life in lives]
    tenth = max(len(figures) // 10, 1)
    before, after = statistics.median(figures[2 * tenth : 3 * tenth]), statistics.median(figures[-tenth:])
    grown = after / max(before, 1) - 1
    told = f"{name} {before:.0f} in the third tenth, {after:.0f} in the last ({grown:+.2%})"
    kinds = (lives[-1].kinds - lives[2 * tenth].kinds).most_common(8)
    assert grown < tolerance, f"{told}; more than before: {kinds}"
    return told


@pytest.mark.soak
def test_nothing_is_left_behind_by_sessions_without_end(tmp_path: Path) -> None:
    """Whole, known, aborted, refused, silent, garbage: 50,000 in the long form, some at a time.

    The collector's objects and Python's blocks vary by a few hundred from look to look, with what is just cached: one
    object left behind by each session would be 1,050 more in the short form, 35,000 in the long one. The heap besides
    those has what threads hold just then. Several processes have more objects, and the same sessions. Resident memory
    grows by what SQLite caches of the index (2 MiB for each of its two connections, never more) and by the gaps between
    what is held, in pieces of 1 MiB where Python's are.
    """
    gateway = watched(tmp_path, "--imei-check=luhn", *ANY_RATE).start()
    try:
        sessions = Sessions(gateway.port)
        looks = LOOKS if SOAK else 10
        lives = []
        for _ in range(looks):
            asyncio.run(sessions.run(times(1500, 50_000) // looks))
            lives.append(life_of(gateway))
        caches_kib = INDEX_CACHES_KIB * len(gateway.pids)
        told = [stays("objects", lives, 0.006 if gateway.has_workers else 0.01)]
        told += [stays("blocks", lives, 0.005 if SOAK else 0.01)]
        told += [stays("heap_kib", lives, 0.05)]
        told += [stays("memory_kib", lives, 0.06 + caches_kib / lives[0].memory_kib)]
        assert lives[-1].sqlite_kib < 1.2 * caches_kib
        descriptors = [life.descriptors for life in lives]
        assert set(descriptors[1:]) == {descriptors[-1]}, descriptors
        sqlite = f"SQLite {lives[0].sqlite_kib} to {lives[-1].sqlite_kib} KiB"
        print(f"\n{dict(sessions.done)}; {'; '.join(told)}; {sqlite}; {descriptors[-1]} descriptors")
        stored = {row["sha256"] for row in gateway.sidecars()}
        assert len(stored) == len(gateway.media())
        assert sessions.done["whole"] <= len(stored) <= sessions.done["whole"] + DEVICES
        assert not gateway.troubles()
        assert gateway.stop() == 0
        checked(gateway)
    finally:
        gateway.kill()
