"""SIGKILL of the gateway in mid-transfer, again and again, under load."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from conftest import content
from faults import traced
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import Row, RunningGateway, Simulation, assert_stored_exactly_once, checked, eventually

from dsmgateway.commands import PACKET_BYTES
from dsmgateway.crc import crc16
from dsmgateway.store.check import Kind, check

Key = tuple[str, str]


def proven_offset(part: Path) -> tuple[Key, int]:
    """Whose part this is, and where its latest checkpoint that holds lets the device go on: reckoned from bytes."""
    content, records = part.read_bytes(), []
    for line in part.with_suffix(".journal").read_bytes().split(b"\n")[:-1]:
        checksum, _, text = line.partition(b" ")
        if int(checksum, 16) != zlib.crc32(text):
            break
        records.append(json.loads(text))
    header, *checkpoints = records
    path = bytes.fromhex(header["device_path"]).decode()
    for point in reversed(checkpoints):
        end = point["offset"]
        if end <= len(content) and zlib.crc32(content[:end]) == point["crc32"]:
            last_packet = (header["size"] - 1) // PACKET_BYTES
            return (header["imei"], path), min(end // PACKET_BYTES, last_packet) * PACKET_BYTES
    return (header["imei"], path), 0


@dataclass
class Account:
    """What was seen at the kills, to be compared with what comes after them."""

    gateway: RunningGateway
    log_ends: list[int] = field(default_factory=list)
    #: SHA-256 of each acknowledged file at the first kill after it, by its path in the data folder.
    acknowledged: dict[str, str] = field(default_factory=dict)
    unfinished: int = 0
    resumable: int = 0
    resumed: int = 0
    #: What each part proves since the last kill, until its file is opened again.
    due: dict[Key, int] = field(default_factory=dict)

    def take_at_kill(self) -> None:
        """Look at the disk between a kill and the next start: nothing acknowledged may be missing."""
        gateway = self.gateway
        assert not gateway.troubles(self.log_ends[-1] if self.log_ends else 0)
        for row in gateway.events("file.stored", self.log_ends[-1] if self.log_ends else 0):
            self.acknowledged[row["path"]] = self._whole(row)
        for path, sha256 in self.acknowledged.items():
            assert hashlib.sha256((gateway.data / path).read_bytes()).hexdigest() == sha256, path
        self._check_resumed()
        self._take_parts()
        self.log_ends.append(gateway.log_end)

    def _whole(self, row: Row) -> str:
        """The file is there with its size, and its sidecar says the same as its bytes."""
        path = self.gateway.data / row["path"]
        content, sidecar = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())
        assert len(content) == row["size"] == sidecar["size"]
        assert hashlib.sha256(content).hexdigest() == sidecar["sha256"]
        return str(sidecar["sha256"])

    def _take_parts(self) -> None:
        finishing = {path.stem for path in self.gateway.spool(".sidecar")}
        parts = [path for path in self.gateway.spool(".part") if path.with_suffix(".journal").exists()]
        told = {row.path: row.offset_bytes for row in check(self.gateway.data) if row.kind is Kind.PART}
        self.due = {}
        for part in parts:
            if part.stem in finishing:
                continue
            key, offset_bytes = proven_offset(part)
            assert told[f"spool/{part.name}"] == offset_bytes
            self.due[key] = offset_bytes
        self.unfinished += len(self.due)
        self.resumable += sum(offset_bytes > 0 for offset_bytes in self.due.values())

    def _check_resumed(self) -> None:
        """Each part that was there at the last kill went on exactly where it was proven when it was next opened."""
        if not self.log_ends:
            return
        for row in self.gateway.events("file.opened", self.log_ends[-1]):
            expected_bytes = self.due.pop((row["imei"], row["device_path"]), None)
            if expected_bytes is not None:
                assert row["offset"] == expected_bytes, row
                self.resumed += expected_bytes > 0

    def close(self) -> None:
        """After the end: the last parts went on as they should, and all that was acknowledged is still there."""
        self._check_resumed()
        assert not self.due, "unfinished files that no camera went on with"
        for path, sha256 in self.acknowledged.items():
            assert hashlib.sha256((self.gateway.data / path).read_bytes()).hexdigest() == sha256, path


@pytest.mark.parametrize(
    ("kills", "cameras", "files"),
    [pytest.param(5, 12, 3, id="5-kills"), pytest.param(20, 24, 12, id="20-kills", marks=pytest.mark.slow)],
)
def test_killed_in_mid_transfer(tmp_path: Path, kills: int, cameras: int, files: int) -> None:
    """After every SIGKILL what was acknowledged is there; every unfinished file goes on at its last checkpoint."""
    chance = random.Random(4)
    gateway = RunningGateway(tmp_path, "--checkpoint-interval=0.2")
    account = Account(gateway)
    options = [f"--cameras={cameras}", f"--files={files}", "--size=30k-90k", "--rate=25k", "--reconnect-delay=0.1"]
    try:
        gateway.start()
        with Simulation(gateway, *options, "--attempts=100000", "--seed=5") as simulation:
            for _ in range(kills):
                since = gateway.log_end
                eventually(
                    "files are under way", lambda since=since: len(gateway.events("file.opened", since)) >= cameras // 2
                )
                time.sleep(chance.uniform(0.3, 1.6))
                assert simulation.runs, "the cameras were done before the last kill"
                gateway.kill()
                account.take_at_kill()
                gateway.start()
            report = simulation.report()
        account.close()
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles()
        assert gateway.stop() == 0
    finally:
        gateway.kill()
    checked(gateway)
    print(
        f"\n{kills} kills: {len(account.acknowledged)} files acknowledged before one of them, all there;"
        f" {account.unfinished} unfinished, {account.resumable} of them with a checkpoint, {account.resumed} seen to go"
        f" on there; rolled forward: {sum(row['rolled_forward'] for row in gateway.events('store.recovered'))};"
        f" {report['summary']['connections']} connections, {report['summary']['seconds']:.0f} s"
    )
    assert account.acknowledged
    assert account.resumable > account.unfinished / 3, "hardly any part had a checkpoint"
    assert account.resumed >= kills


def _spool(suffix: str) -> Callable[[Path, Picture], Path]:
    return lambda data, picture: data / "spool" / f"{picture.key}{suffix}"


def _day(data: Path, picture: Picture) -> Path:
    return data / "media" / str(picture.imei) / f"{datetime.now(UTC):%Y/%m/%d}"


def _wal(data: Path, picture: Picture) -> Path:
    return data / "index.sqlite3-wal"


NOTHING, UNDONE, COMPLETED = (0, 0), (1, 0), (0, 1)
#: Steps of a finish: the system call, its path, and what the next start may have to do.
STEPS = [
    pytest.param("fsync", _spool(".part"), {NOTHING}, id="fsync-part", marks=pytest.mark.slow),
    pytest.param("fsync", _spool(".sidecar"), {UNDONE}, id="fsync-sidecar", marks=pytest.mark.slow),
    pytest.param("rename,renameat,renameat2", _spool(".part"), {UNDONE, COMPLETED}, id="rename"),
    pytest.param("link,linkat", _spool(".sidecar"), {COMPLETED}, id="link"),
    pytest.param("fsync", _day, {COMPLETED}, id="fsync-day", marks=pytest.mark.slow),
    pytest.param("pwrite64", _wal, {COMPLETED}, id="write-index", marks=pytest.mark.slow),
    pytest.param("fdatasync,fsync", _wal, {NOTHING, COMPLETED}, id="commit-index"),
    pytest.param("unlink,unlinkat", _spool(".journal"), {NOTHING}, id="unlink-journal", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("calls", "path", "recoveries"), STEPS)
@pytest.mark.parametrize("states_crc", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["no-crc", "crc"])
def test_killed_in_the_middle_of_a_finish(
    tmp_path: Path,
    calls: str,
    path: Callable[[Path, Picture], Path],
    recoveries: set[tuple[int, int]],
    states_crc: bool,
) -> None:
    """Killed at any step between the last byte and the acknowledgement: the file ends up whole, once, acknowledged."""
    body = content(40_000)
    picture = Picture(body, start_crc=crc16(body) if states_crc else 0)
    gateway = RunningGateway(tmp_path)
    try:
        gateway.start()
        options = ["-P", str(path(gateway.data, picture)), "-e", f"trace={calls}"]
        options += [word for call in calls.split(",") for word in ("-e", f"inject={call}:signal=KILL:when=1")]
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            with traced(gateway.pid, tmp_path / "trace", *options):
                camera.try_to_say(*picture.frames())
                camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        assert gateway.wait() == -signal.SIGKILL
        gateway.start()
        found = gateway.events("store.recovered")[-1]
        assert (found["rolled_back"], found["rolled_forward"]) in recoveries
        with HandCamera(gateway.port, picture) as camera:
            camera.deliver()
        assert [path.read_bytes() for path in gateway.media()] == [body]
        assert len(gateway.sidecars()) == 1
        assert not gateway.troubles()
        assert gateway.stop() == 0
        assert gateway.spool("") == [gateway.data / "spool" / "aside"]
    finally:
        gateway.kill()
    checked(gateway)
