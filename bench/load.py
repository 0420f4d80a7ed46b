"""Cameras by the thousand in one process, as cheap as they can be: the load of the benchmark.

They say what DSM cameras say, from INIT to the CLOSE after the last file, and obey RESUME wherever it comes. No
Twisted: one epoll over non-blocking sockets, frames that are made once (see `footage`) and go out one a call, and for
cameras with a rate a wheel of slots of about 1 ms, each camera in its own. The process measures itself: how late frames
went out, and its CPU time.

A job comes as a line of JSON on stdin (see `Job`); {"ready": true} goes out, `go` has it begin, and the report is one
more line of JSON.
"""

from __future__ import annotations

import gc
import heapq
import json
import random
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from enum import Enum, auto
from typing import Any

import footage
from measuring import cpu_s, percentiles

from dsmgateway.descriptors import raise_descriptor_limit
from dsmgateway.packets import PACKET_BYTES

_SLOT_S = 0.001
_READ_BYTES = 4096
#: Frames of one camera without a rate that go out, each with a call of its own, before others get their turn.
_FRAMES_A_TURN = 64
_MOST_RECONNECTS = 50
#: Seconds after which a camera whose link was lost comes back; real ones take 0.3 to 4.
_BACK_AFTER_S = (0.3, 1.0)
_RESET = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # struct linger: on, 0 s
_SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Job:
    """What the cameras ``first`` to ``first + count - 1`` shall do in run ``run``; times in seconds, sizes in bytes.

    Files have ``sizes`` (least, most); each camera sends ``files`` of them, or as many as it begins within
    ``duration_s``. ``rate`` is frames a second of each, or 0 for what TCP takes. ``damage`` is the share of frames
    that are cut or corrupt. At ``cut_at_s`` all links are lost, and all are back within ``back_s``. ``hold`` has
    cameras connect and then be silent: ``silent`` from the start, ``answered`` after INIT and its answer.
    """

    port: int
    run: int
    count: int
    first: int = 0
    files: int = 1
    sizes: tuple[int, int] = (100_000, 100_000)
    rate: float = 0.0
    spread_s: float = 0.0
    damage: float = 0.0
    cut_at_s: float = 0.0
    back_s: float = 2.0
    duration_s: float = 0.0
    hold: str = ""
    protocol: int = 5
    within_s: float = 300.0
    #: How many cameras there are in all processes, for the phases.
    of: int = 0

    def file(self, camera: int, number: int) -> footage.File:
        """Return a camera's file."""
        return footage.File(camera, self.run, number, footage.size_of(self.sizes, camera, number))


def job_from(fields: dict[str, Any]) -> Job:
    """Read a job."""
    return Job(**{**fields, "sizes": tuple(fields["sizes"])})


class State(Enum):
    """Where a camera stands."""

    WAITING = auto()
    INTRODUCED = auto()
    SENDING = auto()
    SENT = auto()
    FAREWELL = auto()
    OVER = auto()


@dataclass(eq=False, slots=True)
class Camera:
    """One camera and its connection."""

    id: int
    slot: int
    state: State = State.WAITING
    socket: socket.socket | None = None
    number: int = 0
    #: What goes out next of the file, and what could not go out at once.
    pieces: Any = ()
    next: int = 0
    rest: bytes = b""
    heard: bytes = b""
    writable: bool = True
    reconnects: int = 0
    connecting_s: float = 0.0
    answered: bool = False
    offered_s: float | None = None
    sent_s: float = 0.0


@dataclass(slots=True)
class Measured:
    """What is reported."""

    acknowledged: int = 0
    reconnects: int = 0
    resumes: int = 0
    held: int = 0
    data_bytes: int = 0
    wrong: list[str] = field(default_factory=list)
    answer_s: list[float] = field(default_factory=list)
    file_s: list[float] = field(default_factory=list)
    ack_s: list[float] = field(default_factory=list)
    late: list[tuple[float, int]] = field(default_factory=list)

    def late_report(self) -> dict[str, float]:
        """Return how late frames with a rate went out, each frame counted."""
        frames = sum(count for _, count in self.late)
        report: dict[str, float] = {"count": frames}
        seen, shares = 0, list(_SHARES)
        for late_s, count in sorted(self.late):
            seen += count
            while shares and seen > shares[0] * frames:
                report[f"p{shares.pop(0) * 100:g}"] = late_s
            report["max"] = late_s
        return report


class Crowd:
    """All cameras of this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.measured = Measured()
        self._random = random.Random(job.run * 7919 + job.first)
        self._slots = max(1, round(1 / job.rate / _SLOT_S)) if job.rate else 1
        self._slot_s = 1 / job.rate / self._slots if job.rate else 1.0
        of = job.of or job.count
        self.cameras = [
            Camera(number, (number * self._slots // of) % self._slots)
            for number in range(job.first, job.first + job.count)
        ]
        self._wheel: list[dict[Camera, None]] = [{} for _ in range(self._slots)]
        self._sending = 0
        self._turn = 0
        #: Cameras without a rate that can send, in turn.
        self._eager: dict[Camera, None] = {}
        self._agenda: list[tuple[float, int, Camera | None]] = []
        self._by_descriptor: dict[int, Camera] = {}
        self._epoll = select.epoll()
        self._left = len(self.cameras)
        self._began_s = 0.0
        self._make_frames()

    def _make_frames(self) -> None:
        """Have all frames made before anything is measured; the files of one camera have all the sizes there are."""
        job = self.job
        for size in {footage.size_of(job.sizes, job.first, number) for number in range(64)}:
            footage.frames_from(size, 1, job.protocol)

    # -- time

    def run(self) -> None:
        """Do all that the job says; raises TimeoutError."""
        self._began_s = time.monotonic()
        spread_s, count = self.job.spread_s, len(self.cameras)
        for number, camera in enumerate(self.cameras):
            self._plan(self._began_s + spread_s * number / count, camera)
        if self.job.cut_at_s:
            self._plan(self._began_s + self.job.cut_at_s, None)
        deadline_s = self._began_s + self.job.within_s
        while self._left:
            now = time.monotonic()
            if now > deadline_s:
                states = Counter(camera.state.name for camera in self.cameras)
                raise TimeoutError(f"not done after {self.job.within_s:g} s: {dict(states)}")
            for descriptor, events in self._epoll.poll(self._patience_s(now)):
                ready = self._by_descriptor.get(descriptor)
                if ready is not None:
                    self._ready(ready, events)
            self._turn_wheel()
            eager, self._eager = self._eager, {}
            for one in eager:
                self._send_pieces(one)
            self._do_what_is_due()

    def _plan(self, when_s: float, camera: Camera | None) -> None:
        heapq.heappush(self._agenda, (when_s, id(camera), camera))

    def _patience_s(self, now: float) -> float:
        if self._eager:
            return 0.0
        due_s = self._agenda[0][0] if self._agenda else now + 1.0
        if self._sending:
            due_s = min(due_s, self._slot_due_s())
        return max(0.0, min(1.0, due_s - now))

    def _do_what_is_due(self) -> None:
        # A part at a time, so that connecting does not make frames late.
        for _ in range(20):
            if not self._agenda or self._agenda[0][0] > time.monotonic():
                return
            _, _, who = heapq.heappop(self._agenda)
            if who is None:
                self._cut_all()
            else:
                self._connect(who)

    def _slot_due_s(self) -> float:
        return self._began_s + self._turn * self._slot_s

    def _turn_wheel(self) -> None:
        """Send a frame of each camera whose slots have come."""
        now = time.monotonic()
        if not self._sending:
            self._turn = int((now - self._began_s) / self._slot_s) + 1
            return
        while (due_s := self._slot_due_s()) <= now:
            slot = self._wheel[self._turn % self._slots]
            self._turn += 1
            if slot:
                self.measured.late.append((now - due_s, len(slot)))
                self._send_slot(list(slot))
                now = time.monotonic()

    def _send_slot(self, cameras: list[Camera]) -> None:
        sent_bytes = 0
        for camera in cameras:
            if camera.rest and not self._flush(camera):
                self.measured.held += 1
                continue
            piece = camera.pieces[camera.next]
            try:
                sent = camera.socket.send(piece)  # type: ignore[union-attr]
            except BlockingIOError:
                self.measured.held += 1
                continue
            except OSError:
                self._lost(camera)
                continue
            sent_bytes += sent
            if sent < len(piece):
                camera.rest = piece[sent:]
                self._flush(camera)
            camera.next += 1
            if camera.next == len(camera.pieces):
                self._has_sent(camera)
        self.measured.data_bytes += sent_bytes

    def _send_pieces(self, camera: Camera) -> None:
        """Send as much of a camera without a rate as TCP takes, but not all at once."""
        for _ in range(_FRAMES_A_TURN):
            if camera.state is not State.SENDING:
                return
            if camera.rest and not self._flush(camera):
                return
            piece = camera.pieces[camera.next]
            camera.next += 1
            self.measured.data_bytes += len(piece)
            camera.rest = piece
            whole = self._flush(camera)
            if camera.next == len(camera.pieces):
                self._has_sent(camera)
                return
            if not whole:
                return
        self._eager[camera] = None

    def _flush(self, camera: Camera) -> bool:
        """Send what could not go out before; return whether all of it did."""
        if camera.socket is None:
            return False
        try:
            sent = camera.socket.send(camera.rest)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost(camera)
            return False
        camera.rest = camera.rest[sent:]
        if camera.rest and camera.writable:
            camera.writable = False
            self._epoll.modify(camera.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return not camera.rest

    # -- links

    def _connect(self, camera: Camera) -> None:
        if camera.state is State.OVER:
            return
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setsockopt(socket.IPPROTO_IP, getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24), 1)
        link.bind((source_of(camera.id), 0))
        error = link.connect_ex(("127.0.0.1", self.job.port))
        if error not in (0, 115):  # EINPROGRESS
            raise OSError(error, "connect")
        camera.socket, camera.writable = link, False
        camera.connecting_s, camera.answered = time.monotonic(), False
        camera.heard = camera.rest = b""
        camera.pieces, camera.next = (), 0
        camera.state = State.WAITING
        self._by_descriptor[link.fileno()] = camera
        self._epoll.register(link.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _ready(self, camera: Camera, events: int) -> None:
        if events & select.EPOLLOUT and not camera.writable:
            camera.writable = True
            self._epoll.modify(camera.socket.fileno(), select.EPOLLIN)  # type: ignore[union-attr]
            if camera.state is State.WAITING:
                self._introduce(camera)
            elif camera.rest and not self._flush(camera):
                return
            elif camera.state is State.SENDING and not self.job.rate:
                self._eager[camera] = None
        if events & ~select.EPOLLOUT and camera.socket is not None:
            self._read(camera)

    def _read(self, camera: Camera) -> None:
        try:
            data = camera.socket.recv(_READ_BYTES)  # type: ignore[union-attr]
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost(camera)
            return
        if not camera.answered:
            camera.answered = True
            self.measured.answer_s.append(time.monotonic() - camera.connecting_s)
            if self.job.hold:
                self._done(camera)
                return
        camera.heard += data
        while camera.socket is not None and (taken := self._obey(camera, camera.heard)):
            camera.heard = camera.heard[taken:]

    def _lost(self, camera: Camera) -> None:
        """The link has gone: come back, unless all was said."""
        self._unlink(camera)
        if camera.state is State.FAREWELL:
            self._over(camera)
            return
        camera.state = State.WAITING
        camera.reconnects += 1
        self.measured.reconnects += 1
        if camera.reconnects > _MOST_RECONNECTS:
            self._wrong(camera, f"lost its link {camera.reconnects} times")
            self._over(camera)
            return
        self._plan(time.monotonic() + self._random.uniform(*_BACK_AFTER_S), camera)

    def _unlink(self, camera: Camera, resets: bool = False) -> None:
        self._stop_sending(camera)
        link, camera.socket = camera.socket, None
        if link is None:
            return
        self._by_descriptor.pop(link.fileno(), None)
        if resets:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        link.close()

    def _cut_all(self) -> None:
        """All links are lost at once, and the cameras come back in any order."""
        now = time.monotonic()
        for camera in self.cameras:
            if camera.state not in (State.OVER, State.FAREWELL) and camera.socket is not None:
                self._unlink(camera, resets=True)
                camera.state = State.WAITING
                self._plan(now + self._random.uniform(0, self.job.back_s), camera)

    # -- what is said

    def _introduce(self, camera: Camera) -> None:
        if self.job.hold == "silent":
            self._done(camera)
        else:
            self._offer(camera)

    def _offer(self, camera: Camera) -> None:
        """Say INIT, with the next file or without one."""
        now, job = time.monotonic(), self.job
        more = now - self._began_s < job.duration_s if job.duration_s else camera.number < job.files
        if more or camera.offered_s is not None:
            camera.offered_s = camera.offered_s or now
            camera.state = State.INTRODUCED
            self._say(camera, footage.init(job.file(camera.id, camera.number), job.protocol))
        else:
            camera.state = State.FAREWELL
            self._say(camera, footage.init(camera.id, job.protocol))

    def _say(self, camera: Camera, data: bytes) -> None:
        camera.rest += data
        self._flush(camera)

    def _obey(self, camera: Camera, heard: bytes) -> int:
        """Obey the command at the head of ``heard``; return its length, 0 if it is not all there."""
        if heard[:2] == b"\0\x09":
            self._take_acknowledgement(camera)
            return 2
        if len(heard) < 4:
            return 0
        command, length = int.from_bytes(heard[:2], "big"), int.from_bytes(heard[2:4], "big")
        if len(heard) < 4 + length:
            return 0
        file = self.job.file(camera.id, camera.number)
        match command:
            case 0x000C:
                self._say(camera, footage.path(file))
            case 0x000A:
                self._say(camera, footage.metadata(self.job.protocol))
            case 0x0008 if heard[4 : 4 + length] == file.path + b"\0":
                self._say(camera, footage.start(file))
            case 0x0002 if camera.state is not State.FAREWELL:
                self._resume(camera, file, int.from_bytes(heard[4:8], "big"))
            case 0x0000 if camera.state is State.FAREWELL:
                self._unlink(camera)
                self._over(camera)
            case 0x0000:
                self._lost(camera)
            case _:
                self._wrong(camera, f"was told {heard[: 4 + length].hex()} in state {camera.state.name}")
                self._lost(camera)
        return 4 + length

    def _resume(self, camera: Camera, file: footage.File, offset: int) -> None:
        """Say SYNC and go on from there."""
        if offset >= file.size or offset % PACKET_BYTES:
            self._wrong(camera, f"was asked for offset {offset} of {file.size}")
            self._lost(camera)
            return
        if offset or camera.state in (State.SENDING, State.SENT):
            self.measured.resumes += 1
        packet = offset // PACKET_BYTES
        self._stop_sending(camera)
        camera.state, camera.pieces, camera.next = State.SENDING, self._pieces(file, packet), 0
        self._sending += 1
        self._say(camera, footage.sync(packet))
        if camera.state is not State.SENDING:
            return
        if self.job.rate:
            self._wheel[camera.slot][camera] = None
        elif not camera.rest:
            self._eager[camera] = None

    def _pieces(self, file: footage.File, packet: int) -> Any:
        frames = footage.frames_from(file.size, max(packet, 1), self.job.protocol)
        if not packet:
            frames = (footage.first_frame(file, self.job.protocol), *frames)
        return list(self._damaged(frames)) if self.job.damage else frames

    def _damaged(self, frames: tuple[bytes, ...]) -> Any:
        """Have some frames cut, and sent again whole, and as many with a wrong byte."""
        for frame in frames:
            fate = self._random.random()
            if fate < self.job.damage / 2:
                yield frame[: self._random.randrange(1, len(frame))]
                yield frame
            elif fate < self.job.damage:
                place = self._random.randrange(len(frame))
                yield frame[:place] + bytes([frame[place] ^ self._random.randrange(1, 256)]) + frame[place + 1 :]
            else:
                yield frame

    def _has_sent(self, camera: Camera) -> None:
        self._stop_sending(camera)
        if camera.state is State.SENDING:
            camera.state, camera.sent_s = State.SENT, time.monotonic()

    def _stop_sending(self, camera: Camera) -> None:
        if camera.state is State.SENDING and camera.pieces:
            self._sending -= 1
            self._wheel[camera.slot].pop(camera, None)
            camera.pieces = ()

    def _take_acknowledgement(self, camera: Camera) -> None:
        if camera.state is not State.SENT:
            self._wrong(camera, f"acknowledged in state {camera.state.name}")
        now = time.monotonic()
        measured = self.measured
        measured.acknowledged += 1
        measured.ack_s.append(now - camera.sent_s)
        measured.file_s.append(now - (camera.offered_s or now))
        camera.number += 1
        camera.offered_s = None
        self._offer(camera)

    def _wrong(self, camera: Camera, what: str) -> None:
        self.measured.wrong.append(f"camera {camera.id}, file {camera.number}: {what}")

    def _over(self, camera: Camera) -> None:
        camera.state = State.OVER
        self._left -= 1

    def _done(self, camera: Camera) -> None:
        """A camera that only holds its connection has got as far as it goes."""
        camera.state = State.FAREWELL
        self._left -= 1

    # -- the report

    def report(self) -> dict[str, Any]:
        """Return what was measured; ``files`` is how many each camera delivered."""
        measured = asdict(self.measured)
        del measured["late"]
        for name in ("answer_s", "file_s", "ack_s"):
            measured[name] = percentiles(measured[name], _SHARES)
        measured["wrong"] = measured["wrong"][:10]
        return {
            **measured,
            "late_s": self.measured.late_report(),
            "files": [camera.number for camera in self.cameras],
        }


def source_of(camera: int) -> str:
    """Return the loopback address that a camera connects from, its own: no port runs out."""
    return f"127.{1 + (camera >> 16)}.{camera >> 8 & 255}.{camera & 255}"


def main() -> None:
    raise_descriptor_limit()
    crowd = Crowd(job_from(json.loads(sys.stdin.readline())))
    gc.freeze()
    gc.disable()
    _tell({"ready": True})
    sys.stdin.readline()
    used_s, wall_s = sum(cpu_s()), time.monotonic()
    failure = ""
    try:
        crowd.run()
    except TimeoutError as error:
        failure = str(error)
    wall_s, used_s = time.monotonic() - wall_s, sum(cpu_s()) - used_s
    _tell({**crowd.report(), "failure": failure, "wall_s": wall_s, "cpu_s": used_s})
    if crowd.job.hold:
        sys.stdin.readline()


def _tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
