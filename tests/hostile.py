"""A crowd of hostile clients in a process of its own: each kind in about equal parts, back as soon as it is thrown out.

`HostileCrowd` is that process for a test. What speaks takes its time first, within what a gateway grants, so that the
crowd is there all the time and not only where it is slow; how many come again in a second has a bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from conftest import FILE_BIT, METADATA, data_frames, init
from running import PYTHON, Row, RunningGateway, environment, eventually

from dsmgateway import commands as c
from dsmgateway.descriptors import raise_descriptor_limit
from dsmgateway.errors import PeerError
from dsmgateway.framing import GatewayDecoder
from dsmgateway.simulator.identity import imei_of

#: Number of the first IMEI of hostile devices, far from those of simulated cameras.
FIRST_NUMBER = 700_000
#: Seconds between two reports, and between two rounds of those that come again.
_REPORT_S, _ROUND_S = 0.25, 0.02


def paths(outside: Path) -> dict[str, bytes]:
    """What must never become a name on our disk; some would write into the folder ``outside``."""
    return {
        "upwards": b"../" * 20 + bytes(outside).lstrip(b"/") + b"/upwards.jpg\0",
        "absolute": bytes(outside) + b"/absolute.jpg\0",
        "nul": b"dsm/picture/\0/" + bytes(outside) + b"/nul.jpg\0",
        "newline": b"dsm/picture/231020/231452.jpg\n2026-01-01T00:00:00Z critical gateway.bug forged=\x1b[2J\r\0",
        "override": "dsm/picture/231020/\u202egpj.exe\0".encode(),
        "long": b"dsm/" + b"x" * 507 + b"\0",
        "longest": b"dsm/" + b"x" * 508,
        "invalid": b"dsm/picture/\xff\xfe\xc3(\xed\xa0\x80.jpg\0",
        "dot": b".\0",
    }


def client_hello() -> bytes:
    """What a TLS client says first."""
    said = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), said, server_hostname="gateway.example")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return said.read()


class Hostile(asyncio.Protocol):
    """One connection of one kind; subclasses say something after a while, or once a second."""

    kind: ClassVar[str]
    #: Whether it waits before it speaks.
    bides: ClassVar[bool] = True

    def __init__(self, crowd: Crowd, number: int) -> None:
        self.crowd, self.number = crowd, number
        self.transport: asyncio.Transport | None = None
        self._due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.crowd.open.add(self)
        if self.bides:
            self._due = asyncio.get_running_loop().call_later(random.uniform(*self.crowd.bide_s), self.speak)
        else:
            self.speak()

    def connection_lost(self, error: Exception | None) -> None:
        if self._due is not None:
            self._due.cancel()
        self.crowd.left(self)

    def say(self, data: bytes) -> None:
        """Send, unless more waits to be sent than anybody needs."""
        if self.transport is not None and self.transport.get_write_buffer_size() < 1 << 20:
            self.transport.write(data)

    def speak(self) -> None:
        """Say what is to be said once."""

    def tick(self) -> None:
        """Say what is to be said once a second."""


class Silent(Hostile):
    kind = "never sends"


class Trickle(Hostile):
    """An INIT that takes 16 seconds."""

    kind = "a byte a second"
    bides = False

    def speak(self) -> None:
        self._bytes = iter(init(imei=int(imei_of(FIRST_NUMBER + self.number))).encode() * 100)

    def tick(self) -> None:
        self.say(bytes([next(self._bytes)]))


class Once(Hostile):
    """Says one thing."""

    words: ClassVar[bytes]

    def speak(self) -> None:
        self.say(self.words)


class Garbage(Hostile):
    kind = "garbage"

    def speak(self) -> None:
        self.say(random.randbytes(random.randint(20, 4000)))


class Http(Once):
    kind = "HTTP"
    words = b"GET /../../etc/passwd HTTP/1.1\r\nHost: gateway.example\r\nUser-Agent: scan/1.0\r\nAccept: */*\r\n\r\n"


class Tls(Once):
    kind = "TLS"
    words = client_hello()


class Rdp(Once):
    """A connection request of X.224 with its cookie, as scanners of RDP send it."""

    kind = "RDP"
    words = b"\x03\0\0\x2b\x26\xe0\0\0\0\0\0Cookie: mstshash=Administr\r\n\x01\0\x08\0\x03\0\0\0"


class RepeatInits(Hostile):
    """REPEAT_INIT without end; every other one says who it is before."""

    kind = "0009 without end"

    def speak(self) -> None:
        if self.number % 2:
            self.say(init(imei=int(imei_of(FIRST_NUMBER + self.number))).encode())
        self.tick()

    def tick(self) -> None:
        if self._due is not None and self._due.when() <= asyncio.get_running_loop().time():
            self.say(b"\0\x09" * 8192)


class Device(Hostile):
    """Speaks the protocol as a camera does, with a path and a size of its own."""

    path = b"dsm/picture/231020/231452.jpg\0"
    size = 0xFFFFFFFF

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd, number)
        self.imei = int(imei_of(FIRST_NUMBER + number))
        self.content = b""
        self._decoder = GatewayDecoder()

    def speak(self) -> None:
        self.say(init(FILE_BIT, self.imei).encode())

    def data_received(self, data: bytes) -> None:
        self._decoder.feed(data)
        with suppress(PeerError):
            for command in iter(self._decoder.next_command, None):
                self.say(b"".join(self.answers(command)))

    def answers(self, command: c.GatewayCommand) -> Iterator[bytes]:
        """What it says to that."""
        match command:
            case c.PathRequest():
                yield c.HEADER.pack(c.CommandId.PATH, len(self.path)) + self.path
            case c.MetadataRequest():
                yield c.MetadataResponse(METADATA).encode()
            case c.FileRequest():
                yield c.Start(self.size, 0).encode()
            case c.Resume(offset=offset):
                yield c.Sync(offset).encode()
                yield from data_frames(self.content, offset)


class Huge(Device):
    kind = "START of 4 GiB - 1"


class Paths(Device):
    """Delivers a small file whole, under a path that would do harm as a name; then it stays, and says no more."""

    kind = "paths"

    def __init__(self, crowd: Crowd, number: int) -> None:
        super().__init__(crowd, number)
        self.path = crowd.paths[number // len(KINDS) % len(crowd.paths)]
        self.content = b"%06d" % number * 40
        self.size = len(self.content)


KINDS: tuple[type[Hostile], ...] = (Trickle, Silent, Garbage, Http, Tls, Rdp, RepeatInits, Huge, Paths)


class Crowd:
    """So many clients; whoever is thrown out comes again, at most ``rate`` a second in all."""

    def __init__(self, port: int, clients: int, rate: float, bide_s: tuple[float, float], outside: Path) -> None:
        self.bide_s = bide_s
        self.paths = list(paths(outside).values())
        self.open: set[Hostile] = set()
        self._port, self._rate = port, rate
        self._waiting = deque(range(clients))
        self._connecting: set[asyncio.Task[None]] = set()
        self._made: Counter[str] = Counter()
        self._failed = 0
        self._ended = False

    def left(self, one: Hostile) -> None:
        """Have one that was thrown out wait for its turn."""
        self.open.discard(one)
        self._waiting.append(one.number)

    async def run(self, report_to: Path) -> None:
        """Be there until SIGTERM; tell once in a while how many there are."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        began_s = loop.time()
        ticked_s = told_s = allowed_s = began_s
        while not stop.is_set():
            now_s = loop.time()
            while self._waiting and allowed_s < now_s:
                allowed_s += 1 / self._rate
                self._connect(self._waiting.popleft())
            allowed_s = max(allowed_s, now_s - 0.1)
            if now_s - ticked_s >= 1:
                ticked_s += 1
                for one in list(self.open):
                    one.tick()
            if now_s - told_s >= _REPORT_S:
                told_s = now_s
                self._tell(report_to, now_s - began_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _ROUND_S)
        for task in self._connecting:
            task.cancel()
        for one in list(self.open):
            if one.transport is not None:
                one.transport.abort()
        await asyncio.sleep(0.1)
        self._tell(report_to, loop.time() - began_s)

    def _connect(self, number: int) -> None:
        task = asyncio.ensure_future(self._open(KINDS[number % len(KINDS)], number))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open(self, kind: type[Hostile], number: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: kind(self, number), "127.0.0.1", self._port)
            self._made[kind.kind] += 1
        except OSError:
            self._failed += 1
            self._waiting.append(number)

    def _tell(self, report_to: Path, seconds: float) -> None:
        open_now = Counter(one.kind for one in self.open)
        report = {
            "seconds": seconds,
            "open": len(self.open),
            "open_of": open_now,
            "made": sum(self._made.values()),
            "made_of": self._made,
            "failed": self._failed,
        }
        new = report_to.with_suffix(".new")
        new.write_text(json.dumps(report))
        new.replace(report_to)


class HostileCrowd:
    """The crowd against a gateway, in the background; a context manager that sends it away."""

    def __init__(
        self, gateway: RunningGateway, clients: int, rate: float, bide_s: tuple[float, float], *, nice: int = 0
    ) -> None:
        self.clients = clients
        self.outside = gateway.folder / "outside"
        self.outside.mkdir(exist_ok=True)
        self._report_path = gateway.folder / f"hostile-{time.monotonic_ns()}.json"
        self._command = [
            *(["nice", f"-n{nice}"] if nice else []),
            *PYTHON,
            __file__,
            *map(str, (gateway.port, clients, rate, *bide_s, self.outside, self._report_path)),
        ]

    def __enter__(self) -> HostileCrowd:
        self._process = subprocess.Popen(self._command, env=environment())
        return self

    def __exit__(self, *failure: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def report(self) -> Row:
        """What it has done so far."""
        with suppress(FileNotFoundError):
            report: Row = json.loads(self._report_path.read_text())
            return report
        return {"open": 0, "made": 0}

    def gather(self, share: float = 0.9, within_s: float = 60) -> None:
        """Wait until so much of it is there at a time."""
        eventually("the crowd is there", lambda: self.report()["open"] >= share * self.clients, within_s)

    def leave(self) -> Row:
        """Send it away, and return what it did."""
        self._process.terminate()
        assert self._process.wait(20) == 0
        return self.report()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("clients", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("bide_from_s", type=float)
    parser.add_argument("bide_to_s", type=float)
    parser.add_argument("outside", type=Path)
    parser.add_argument("report", type=Path)
    given = parser.parse_args()
    raise_descriptor_limit()
    bide_s = (given.bide_from_s, given.bide_to_s)
    asyncio.run(Crowd(given.port, given.clients, given.rate, bide_s, given.outside).run(given.report))


if __name__ == "__main__":
    sys.exit(main())
