"""A disk that is full or fails: no acknowledgement, one clear line in the log, and later success."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import content
from faults import day_of, fill, in_spool, log_of_index, small_disk, traced
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import AT_ONCE, DSMGATEWAY, Row, RunningGateway, checked, environment, eventually, running_gateway

from dsmgateway.commands import PACKET_BYTES, RepeatInit
from dsmgateway.store.check import State, check

FULL = os.strerror(errno.ENOSPC)
EIO = os.strerror(errno.EIO)
#: Bytes that the store holds back at most before it writes them; see `dsmgateway.lanes`.
HELD_BYTES = 16 * 1024


def failures(gateway: RunningGateway, since: int) -> list[Row]:
    """What the log says of trouble, but for what it says of the disk as a whole."""
    return [row for row in gateway.troubles(since) if row["event"] != "store.failing"]


def told(gateway: RunningGateway) -> Row:
    """What `dsmgateway check` says of the gateway and its disk."""
    command = [*DSMGATEWAY, "check", "--json", str(gateway.data)]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    row: Row = json.loads(ended.stdout.splitlines()[-1])
    return {name: row[name] for name in ("running", "failing", "full")}


def healed(gateway: RunningGateway, since: int) -> None:
    """The disk as a whole was said to fail, once, and a probe says that it does so no longer."""
    gateway.wait_for("store.healed", since)
    assert [len(gateway.events(name, since)) for name in ("store.failing", "store.healed")] == [1, 1]


def turned_away(gateway: RunningGateway, picture: Picture) -> None:
    """A camera hears CLOSE after its START, and nothing else."""
    with HandCamera(gateway.port, picture) as camera:
        with pytest.raises(AssertionError, match=r"Close\(\) instead of Resume"):
            camera.offer()
        assert camera.hear_the_end() == b""


def assert_said_once(gateway: RunningGateway, since: int, *words: str) -> None:
    """One line tells of the failure, and what it names; no traceback, no other trouble."""
    gateway.wait_for("store.failed", since, within_s=5)
    gateway.wait_for("device.disconnected", since)
    (trouble,) = failures(gateway, since)
    assert trouble["event"] == "store.failed" and "traceback" not in trouble
    for word in words:
        assert word in trouble["reason"]


def stored_after_all(gateway: RunningGateway, picture: Picture) -> int:
    """The device comes back with the same file and it is stored, whole and once; return where it went on."""
    with HandCamera(gateway.port, picture) as camera:
        offset_bytes = camera.deliver()
    (held,) = [path for path in gateway.media() if str(picture.imei) in path.parts]
    assert held.read_bytes() == picture.content
    assert [row["size"] for row in gateway.sidecars() if row["imei"] == str(picture.imei)] == [len(picture.content)]
    assert not [path for path in gateway.spool("") if path.stem == picture.key], "the spool still has something of it"
    return offset_bytes


# -- a full disk


@pytest.fixture
def gateway_on_small_disk(tmp_path: Path) -> Iterator[RunningGateway]:
    """A gateway whose data folder is on a disk of 600 KiB."""
    with small_disk("600k") as disk, running_gateway(tmp_path, "--min-free=1", data=disk / "data") as gateway:
        yield gateway
        assert gateway.stop() == 0
        checked(gateway)


def test_a_file_that_does_not_fit_is_refused(gateway_on_small_disk: RunningGateway) -> None:
    """An offer larger than what is free is refused before any data is sent, and taken when there is room."""
    gateway, picture = gateway_on_small_disk, Picture(content(80_000))
    filler = gateway.data.parent / "filler"
    fill(filler, leave_bytes=40 * 1024)
    since = gateway.log_end
    turned_away(gateway, picture)
    reason = gateway.wait_for("store.full", since)["reason"]
    assert "80000 bytes are missing" in reason and f"free on {gateway.data}" in reason
    assert len(gateway.troubles(since)) == 1
    filler.unlink()
    assert stored_after_all(gateway, picture) == 0


def test_the_disk_fills_up_in_mid_transfer(gateway_on_small_disk: RunningGateway) -> None:
    """A write that finds no room ends the session; the file goes on where it stood when there is room again."""
    gateway, picture = gateway_on_small_disk, Picture(content(80_000))
    filler, since = gateway.data.parent / "filler", gateway.log_end
    with HandCamera(gateway.port, picture) as camera:
        camera.begin()
        frames = picture.frames()
        camera.say(*frames[: 2 * HELD_BYTES // PACKET_BYTES])
        part = gateway.data / "spool" / f"{picture.key}.part"
        eventually("the data is written", lambda: part.stat().st_size == 2 * HELD_BYTES)
        fill(filler)
        camera.try_to_say(*frames[2 * HELD_BYTES // PACKET_BYTES :])
        camera.hear_the_end()
    assert_not_acknowledged(bytes(camera.heard))
    assert not gateway.media()
    assert_said_once(gateway, since, f"write {part}", FULL)
    filler.unlink()
    stored_after_all(gateway, picture)


def test_the_disk_is_full_when_the_file_is_whole(gateway_on_small_disk: RunningGateway) -> None:
    """Where the last byte fits but not what a finished file needs, nothing is acknowledged either."""
    gateway, picture = gateway_on_small_disk, Picture(content(41 * PACKET_BYTES + 100))
    filler, since = gateway.data.parent / "filler", gateway.log_end
    with HandCamera(gateway.port, picture) as camera:
        camera.begin()
        *frames, last = picture.frames()
        camera.say(*frames)
        part = gateway.data / "spool" / f"{picture.key}.part"
        eventually("the data is written", lambda: part.stat().st_size == 41 * PACKET_BYTES)
        fill(filler)
        camera.say(last)
        camera.hear_the_end()
    assert_not_acknowledged(bytes(camera.heard))
    assert not gateway.media()
    assert_said_once(gateway, since, str(gateway.data / "spool"), FULL)
    filler.unlink()
    stored_after_all(gateway, picture)


def test_one_full_disk_and_many_cameras(gateway_on_small_disk: RunningGateway) -> None:
    """All cameras under way are let go of without an acknowledgement, and all are served when there is room."""
    gateway, since = gateway_on_small_disk, gateway_on_small_disk.log_end
    pictures = [Picture(content(30_000, seed), imei=356917000000000 + seed) for seed in range(1, 9)]
    cameras = [HandCamera(gateway.port, picture) for picture in pictures]
    for camera in cameras:
        camera.begin()
    filler = gateway.data.parent / "filler"
    fill(filler)
    for camera in cameras:
        camera.try_to_say(*camera.picture.frames())
    for camera in cameras:
        camera.hear_the_end()
        camera.socket.close()
        assert_not_acknowledged(bytes(camera.heard))
    assert not gateway.media()
    lines = gateway.troubles(since)
    assert sorted(row["imei"] for row in lines) == sorted(str(picture.imei) for picture in pictures)
    assert all(row["event"] == "store.failed" and FULL in row["reason"] for row in lines)
    filler.unlink()
    for picture in pictures:
        with HandCamera(gateway.port, picture) as camera:
            camera.deliver()
    assert len(gateway.sidecars()) == len(gateway.media()) == len(pictures)


def test_a_file_under_way_is_finished_and_a_new_one_waits_for_room(tmp_path: Path) -> None:
    """What was announced is reserved: below the mark the camera under way goes on, others keep their copies."""
    under_way, new = (Picture(content(200_000, seed), imei=356917000000000 + seed) for seed in (1, 2))
    mark = 64 * 1024
    with (
        small_disk("1m") as disk,
        running_gateway(tmp_path, f"--min-free={mark}", data=disk / "data") as gateway,
        HandCamera(gateway.port, under_way) as camera,
    ):
        camera.begin()
        *frames, last = under_way.frames()
        camera.say(*frames)
        part = gateway.data / "spool" / f"{under_way.key}.part"
        eventually("the data is written", lambda: part.stat().st_size >= 180_000)
        fill(disk / "filler", leave_bytes=mark)
        for _ in range(3):
            turned_away(gateway, new)
        assert told(gateway) == {"running": True, "failing": False, "full": True}
        camera.say(last)
        camera.hear(RepeatInit)
        assert gateway.media()[0].read_bytes() == under_way.content
        turned_away(gateway, new)
        (line,) = gateway.troubles()
        assert line["event"] == "store.full" and line["suppressed"] == 0
        (disk / "filler").unlink()
        assert stored_after_all(gateway, new) == 0
        assert told(gateway) == {"running": True, "failing": False, "full": False}
        assert gateway.stop() == 0
        checked(gateway)


# -- a disk that fails


@dataclass(frozen=True)
class Fault:
    """A system call that fails once, the path it is about, and the words the log has for it."""

    name: str
    calls: str
    path: Callable[[Path, Picture], Path]
    words: str


WRITE = "pwritev,pwritev2,pwrite64,write,writev"
FAULTS = [
    Fault("write-part", WRITE, in_spool(".part"), "write {path}: "),
    Fault("fsync-part", "fsync", in_spool(".part"), "fsync {path}: "),
    Fault("write-sidecar", WRITE, in_spool(".sidecar"), "write {path}: "),
    Fault("fsync-sidecar", "fsync", in_spool(".sidecar"), "fsync {path}: "),
    Fault("fsync-spool", "fsync", lambda data, picture: data / "spool", "fsync {path}: "),
    Fault("rename-part", "rename,renameat,renameat2", in_spool(".part"), "move {path} to "),
    Fault("link-sidecar", "link,linkat", in_spool(".sidecar"), "link {path} as "),
    Fault("fsync-day", "fsync", day_of, "fsync {path}: "),
    Fault("fsync-parent", "fsync", lambda data, picture: day_of(data, picture).parent, "fsync {path}: "),
    Fault("write-index", "pwrite64", log_of_index, "index.sqlite3: "),
    Fault("commit-index", "fdatasync,fsync", log_of_index, "index.sqlite3: "),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One gateway that lives through all the faults, with checkpoints and probes soon after."""
    with running_gateway(
        tmp_path_factory.mktemp("failing"),
        "--checkpoint-interval=0.2",
        "--checkpoint-bytes=16KiB",
        "--probe-interval=0.2",
    ) as gateway:
        yield gateway
        assert gateway.stop() == 0
        assert all(row.state.is_good or row.state is State.SET_ASIDE for row in check(gateway.data))


def inject(fault: Fault, path: Path) -> list[str]:
    """What strace needs to make these calls on this path fail once in each thread."""
    injections = [word for call in fault.calls.split(",") for word in ("-e", f"inject={call}:error=EIO:when=1")]
    return ["-P", str(path), "-e", f"trace={fault.calls}", *injections]


@pytest.mark.parametrize(("number", "fault"), list(enumerate(FAULTS)), ids=[fault.name for fault in FAULTS])
def test_a_call_fails_while_a_file_is_stored(
    gateway: RunningGateway, tmp_path: Path, number: int, fault: Fault
) -> None:
    """Write, fsync, rename, link or commit fails once: no acknowledgement; the device's next try succeeds."""
    picture = Picture(content(40_000, number), imei=356917000001000 + number)
    path, since = fault.path(gateway.data, picture), gateway.log_end
    with traced(gateway.pid, tmp_path / "trace", *inject(fault, path)):
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            camera.try_to_say(*picture.frames())
            camera.hear_the_end()
        assert "(INJECTED)" in (tmp_path / "trace").read_text(), "the fault did not happen"
        assert_not_acknowledged(bytes(camera.heard))
        assert not [held for held in gateway.media() if str(picture.imei) in held.parts]
        assert_said_once(gateway, since, fault.words.format(path=path))
        (failure,) = failures(gateway, since)
        assert "disk I/O error" in failure["reason"] or EIO in failure["reason"]
        healed(gateway, since)
        stored_after_all(gateway, picture)
    assert len(failures(gateway, since)) == 1


CHECKPOINTS = [
    Fault("fdatasync-part", "fdatasync", in_spool(".part"), "fdatasync {path}: "),
    Fault("write-journal", "pwritev,pwritev2", in_spool(".journal"), "write {path}: "),
    Fault("fdatasync-journal", "fdatasync", in_spool(".journal"), "fdatasync {path}: "),
]


@pytest.mark.parametrize("lost", [False, True], ids=["then-data", "then-lost"])
@pytest.mark.parametrize(("number", "fault"), list(enumerate(CHECKPOINTS)), ids=[fault.name for fault in CHECKPOINTS])
def test_a_checkpoint_fails(gateway: RunningGateway, tmp_path: Path, number: int, fault: Fault, lost: bool) -> None:
    """A checkpoint that fails in mid-transfer ends the transfer, whether more data follows or the link is lost."""
    picture = Picture(content(60_000, number), imei=356917000002000 + 10 * number + lost)
    path, since, begun = fault.path(gateway.data, picture), gateway.log_end, HELD_BYTES // PACKET_BYTES
    trace = tmp_path / "trace"
    with HandCamera(gateway.port, picture) as camera:
        camera.begin()
        eventually("the part is there", lambda: gateway.spool(".part"))
        with traced(gateway.pid, trace, *inject(fault, path)):
            frames = picture.frames()
            camera.say(b"".join(frames[:begun]))
            eventually("the checkpoint fails", lambda: "(INJECTED)" in trace.read_text())
            if not lost:
                camera.try_to_say(*frames[begun:])
                camera.hear_the_end()
            camera.socket.close()
            assert_not_acknowledged(bytes(camera.heard))
            assert_said_once(gateway, since, fault.words.format(path=path), EIO)
            healed(gateway, since)
            stored_after_all(gateway, picture)
    assert len(failures(gateway, since)) == 1


def test_parking_fails(gateway: RunningGateway, tmp_path: Path) -> None:
    """The checkpoint that a lost connection asks for fails: the log says so, and the file is begun again."""
    picture = Picture(content(60_000), imei=356917000003000)
    fault = CHECKPOINTS[0]
    path, since = fault.path(gateway.data, picture), gateway.log_end
    with HandCamera(gateway.port, picture) as camera:
        camera.begin()
        eventually("the part is there", lambda: gateway.spool(".part"))
        with traced(gateway.pid, tmp_path / "trace", *inject(fault, path)):
            camera.say(*picture.frames()[:5])
            camera.socket.close()
            assert_said_once(gateway, since, fault.words.format(path=path), EIO)
            healed(gateway, since)
            assert stored_after_all(gateway, picture) == 0
    assert len(failures(gateway, since)) == 1


def test_the_link_is_lost_while_storing_fails(gateway: RunningGateway, tmp_path: Path) -> None:
    """A device that leaves after its last byte cannot be told anything, but the log can."""
    picture = Picture(content(40_000), imei=356917000004000)
    fault = FAULTS[1]
    path, since = fault.path(gateway.data, picture), gateway.log_end
    with traced(gateway.pid, tmp_path / "trace", *inject(fault, path)):
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            camera.say(*picture.frames())
        assert_said_once(gateway, since, fault.words.format(path=path), EIO)
        healed(gateway, since)
        assert stored_after_all(gateway, picture) == 0
    assert len(failures(gateway, since)) == 1


def test_twenty_cameras_and_a_disk_that_fails_for_a_while(tmp_path: Path) -> None:
    """One camera pays for it, the others hear CLOSE and the disk nothing; all are stored when it has healed."""
    pictures = [Picture(content(30_000, seed), imei=356917000006000 + seed) for seed in range(21)]
    everything = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    with running_gateway(tmp_path, "--probe-interval=0.5") as gateway:
        with HandCamera(gateway.port, pictures[0]) as camera, traced(gateway.pid, tmp_path / "trace", *everything):
            camera.begin()
            camera.try_to_say(*pictures[0].frames())
            camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
            for picture in pictures[1:]:
                turned_away(gateway, picture)
            assert not gateway.spool(".part") and not gateway.media()
            eventually("some probes", lambda: (tmp_path / "trace").read_text().count("(INJECTED)") >= 3)
            assert [row["event"] for row in gateway.troubles()] == ["store.failing", "store.failed"]
            assert not gateway.events("store.healed")
            assert told(gateway) == {"running": True, "failing": True, "full": False}
        assert gateway.wait_for("store.healed")["refused"] == 20
        assert told(gateway) == {"running": True, "failing": False, "full": False}
        for picture in pictures:
            assert stored_after_all(gateway, picture) == 0
        assert len(gateway.troubles()) == 2
        assert gateway.stop() == 0


# -- a disk that is slow


def delay(call: str, path: Path, seconds: float) -> list[str]:
    """What strace needs to make this call on this path slow."""
    return ["-P", str(path), "-e", f"trace={call}", "-e", f"inject={call}:delay_enter={int(seconds * 1e6)}"]


def test_a_slow_disk_pauses_the_sender(gateway: RunningGateway, tmp_path: Path) -> None:
    """What a fast sender has for a slow disk waits in the sender, not in the gateway's memory."""
    picture, since = Picture(content(24_000_000), imei=356917000005000), gateway.log_end
    part = gateway.data / "spool" / f"{picture.key}.part"
    with HandCamera(gateway.port, picture) as camera:
        camera.begin()
        before_kib = gateway.memory_kib()
        sender = threading.Thread(target=camera.say, args=(b"".join(picture.frames()),))
        with traced(gateway.pid, tmp_path / "trace", *delay("pwritev2", part, 0.3)):
            sender.start()
            eventually("some of it is written", lambda: part.stat().st_size > 200_000)
            eventually("the kernel's buffer fills up", lambda: max(gateway.connections) > 100_000)
            written_bytes, grown_kib = part.stat().st_size, gateway.memory_kib() - before_kib
        sender.join()
        camera.hear(RepeatInit)
    print(f"\n{written_bytes} bytes written, memory grown by {grown_kib} KiB, the rest waited outside")
    assert written_bytes < len(picture.content) / 4
    assert grown_kib < 8 * 1024
    (held,) = [path for path in gateway.media() if str(picture.imei) in path.parts]
    assert held.read_bytes() == picture.content
    assert not gateway.troubles(since)


def test_a_stop_does_not_wait_for_a_stuck_disk(tmp_path: Path) -> None:
    """A disk that hangs at the stop costs progress since the last checkpoint, never the stop itself."""
    picture = Picture(content(60_000))
    with running_gateway(tmp_path, AT_ONCE, "--stop-timeout=1", "--checkpoint-bytes=16KiB") as gateway:
        part = gateway.data / "spool" / f"{picture.key}.part"
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            frames = picture.frames()
            camera.say(b"".join(frames[:16]))
            eventually("a checkpoint", lambda: [row.offset_bytes for row in check(gateway.data) if row.offset_bytes])
            camera.say(*frames[16:20])
            gateway.has_read()
            with traced(gateway.pid, tmp_path / "trace", *delay("fdatasync", part, 8)):
                gateway.terminate()
                gateway.wait_for("gateway.stop_late", within_s=4)
                gateway.wait_for("log", message="Server Shut Down.", within_s=1)
            # strace itself holds the process for as long as the call is delayed.
            assert gateway.wait() == 0
            camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        assert not gateway.troubles()
        gateway.start()
        assert 16 * PACKET_BYTES <= stored_after_all(gateway, picture) <= 20 * PACKET_BYTES
        assert gateway.stop() == 0
        checked(gateway)


def test_a_stop_on_a_failing_disk(tmp_path: Path) -> None:
    """A stop that cannot park a file says so, ends all the same with exit code 0, and the file is begun again."""
    picture = Picture(content(60_000))
    with running_gateway(tmp_path, AT_ONCE) as gateway:
        part = gateway.data / "spool" / f"{picture.key}.part"
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            camera.say(*picture.frames()[:20])
            gateway.has_read()
            with traced(gateway.pid, tmp_path / "trace", *inject(CHECKPOINTS[0], part)):
                gateway.terminate()
                gateway.wait_for("gateway.stopped", within_s=5)
            assert gateway.wait() == 0
            camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        assert_said_once(gateway, 0, f"fdatasync {part}: ", EIO)
        gateway.start()
        assert stored_after_all(gateway, picture) == 0
