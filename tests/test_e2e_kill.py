"""SIGKILL of the gateway in mid-transfer, again and again, under load."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from account import Account
from conftest import content
from faults import day_of, in_spool, log_of_index, traced
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import RunningGateway, Simulation, assert_stored_exactly_once, checked, eventually, one_process

from dsmgateway.crc import crc16


@pytest.mark.parametrize(
    ("kills", "cameras", "files"),
    [
        pytest.param(3, 12, 3, id="3-kills"),
        pytest.param(5, 12, 4, id="5-kills", marks=pytest.mark.slow),
        pytest.param(20, 24, 12, id="20-kills", marks=pytest.mark.slow),
    ],
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
                time.sleep(chance.uniform(0.3, 2.3))
                assert simulation.runs, "the cameras were done before the last kill"
                gateway.kill()
                account.take()
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


NOTHING, UNDONE, COMPLETED = (0, 0), (1, 0), (0, 1)
#: Steps of a finish: the system call, its path, and what the next start may have to do.
STEPS = [
    pytest.param("fsync", in_spool(".part"), {NOTHING}, id="fsync-part", marks=pytest.mark.slow),
    pytest.param("fsync", in_spool(".sidecar"), {UNDONE}, id="fsync-sidecar", marks=pytest.mark.slow),
    pytest.param("rename,renameat,renameat2", in_spool(".part"), {UNDONE, COMPLETED}, id="rename"),
    pytest.param("link,linkat", in_spool(".sidecar"), {COMPLETED}, id="link"),
    pytest.param("fsync", day_of, {COMPLETED}, id="fsync-day", marks=pytest.mark.slow),
    pytest.param("pwrite64", log_of_index, {COMPLETED}, id="write-index", marks=pytest.mark.slow),
    pytest.param("fdatasync,fsync", log_of_index, {NOTHING, COMPLETED}, id="commit-index"),
    pytest.param("unlink,unlinkat", in_spool(".journal"), {NOTHING}, id="unlink-journal", marks=pytest.mark.slow),
]


@one_process
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
    gateway = RunningGateway(tmp_path, "--checkpoint-bytes=16KiB")
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
