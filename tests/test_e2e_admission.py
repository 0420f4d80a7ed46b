"""Who may come in, with a real gateway, real connections and the real command line beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import IMEI, OTHER_IMEI, content, init
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import (
    AT_ONCE,
    DSMGATEWAY,
    TWISTD,
    RunningGateway,
    checked,
    environment,
    eventually,
    free_port,
    one_process,
    running_gateway,
)

from dsmgateway import commands as c
from dsmgateway.crc import crc16
from dsmgateway.simulator.identity import imei_of

PICTURE = Picture(content(5000))
OTHER = Picture(content(5000, seed=2), imei=OTHER_IMEI)
A, B = "127.0.0.1", "127.0.0.2"
CLOSE = c.Close().encode()


def devices(gateway: RunningGateway, *arguments: str) -> list[dict[str, Any]]:
    """Run ``dsmgateway devices`` as an operator does, and return its rows."""
    command = [*DSMGATEWAY, "devices", str(gateway.data), "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def is_refused(gateway: RunningGateway, picture: Picture, source: str = A) -> bool:
    """Say INIT, and tell whether the answer is CLOSE, and nothing more."""
    with HandCamera(gateway.port, picture, source=source) as camera:
        camera.say(init(imei=picture.imei))
        if camera.socket.recv(4) != CLOSE:
            return False
        assert camera.hear_the_end() == b""
        return True


def delivers(gateway: RunningGateway, picture: Picture, source: str = A) -> None:
    with HandCamera(gateway.port, picture, source=source) as camera:
        camera.deliver()


# -- devices


@one_process
def test_known_devices_come_in_and_the_list_can_change_while_it_runs(tmp_path: Path) -> None:
    known = tmp_path / "known.txt"
    known.write_text(f"# the fleet\n{IMEI} Bus 12\n")
    with running_gateway(tmp_path, "--admission=known", f"--known-devices={known}") as gateway:
        assert gateway.events("devices.known")[0]["devices"] == 1
        delivers(gateway, PICTURE)
        assert is_refused(gateway, OTHER)
        (row,) = gateway.events("device.refused")
        assert (row["imei"], row["address"], row["level"]) == (str(OTHER_IMEI), A, "warn")
        # A wrong line: said once, and the list before holds.
        known.write_text(f"{OTHER_IMEI}\n12345 Bus 13\n")
        row = gateway.wait_for("devices.unreadable")
        assert row["reason"] == f"known devices {known}: line 2: '12345' is not an IMEI of 15 digits"
        assert is_refused(gateway, OTHER)
        delivers(gateway, PICTURE)
        # A good one, in one step; at SIGHUP.
        (tmp_path / "new").write_text(f"{OTHER_IMEI}\n")
        (tmp_path / "new").rename(known)
        os.kill(gateway.pid, signal.SIGHUP)
        eventually("the new list holds", lambda: len(gateway.events("devices.known")) > 1, within_s=5)
        delivers(gateway, OTHER)
        assert is_refused(gateway, PICTURE)
        # And one that is simply there.
        known.write_text(f"{OTHER_IMEI}\n{IMEI}\n")
        gateway.wait_for("devices.known", devices=2, within_s=6)
        assert not is_refused(gateway, PICTURE)
        assert len(gateway.events("devices.unreadable")) == 1
        assert gateway.stop() == 0


@one_process
def test_unknown_devices_are_listed_approved_and_blocked_while_the_gateway_runs(tmp_path: Path) -> None:
    with running_gateway(tmp_path, "--admission=approve") as gateway:
        assert devices(gateway) == []
        assert is_refused(gateway, PICTURE)
        assert is_refused(gateway, PICTURE, B)
        assert is_refused(gateway, OTHER)
        rows = eventually("they are listed", lambda: len(found := devices(gateway)) == 2 and found)
        one = next(row for row in rows if row["imei"] == str(IMEI))
        assert (one["state"], one["refused"], one["address"]) == ("unknown", 2, B)
        assert one["first_seen"] <= one["last_seen"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        devices(gateway, "--approve", str(IMEI), "--name", "Bus 12")
        gateway.wait_for("devices.decided", approved=1, within_s=5)
        delivers(gateway, PICTURE)
        assert is_refused(gateway, OTHER)
        devices(gateway, "--block", str(IMEI))
        gateway.wait_for("devices.decided", blocked=1, within_s=5)
        assert is_refused(gateway, PICTURE)
        assert not gateway.troubles()
        checked(gateway)
        assert gateway.stop() == 0
        # A block holds in every mode.
        gateway.command.remove("--admission=approve")
        gateway.start()
        assert is_refused(gateway, PICTURE)
        delivers(gateway, OTHER)
        devices(gateway, "--forget", str(IMEI))
        gateway.wait_for("devices.decided", blocked=0, approved=0, within_s=5)
        delivers(gateway, Picture(content(3000), path=b"dsm/picture/251102/081602.jpg"))


@one_process
def test_invented_devices_fill_neither_the_disk_nor_the_log(tmp_path: Path) -> None:
    with running_gateway(tmp_path, "--admission=approve", "--max-unknown-devices=20") as gateway:
        for number in range(200):
            assert is_refused(gateway, Picture(b"", imei=int(imei_of(number))))
        eventually("they are written down", lambda: len(devices(gateway)) == 20)
        assert len(gateway.events("device.refused")) == 1
        assert gateway.events("device.disconnected") == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--admission=known"], "admission: known needs a list, see known-devices"),
        (["--known-devices=none"], "known devices {0}/none: No such file or directory (option --known-devices)"),
        (
            ["--admission=known", "--known-devices=wrong"],
            "known devices {0}/wrong: line 1: 'x' is not an IMEI of 15 digits (option --known-devices)",
        ),
        (["--admission=all"], "option --admission: 'all' is not one of open, known or approve"),
    ],
)
def test_what_an_operator_got_wrong_is_one_line(tmp_path: Path, options: list[str], problem: str) -> None:
    (tmp_path / "wrong").write_text("x")
    done = subprocess.run(
        [*TWISTD, "dsmgateway", f"--port={free_port()}", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"twistd dsmgateway: {problem.format(tmp_path)}"]


# -- time

#: Read by every Python process at its start: the time of day is set back by an hour as long as the file is there.
TIME_OF_DAY = """
import os, time
real = time.time
time.time = lambda: real() - 3600 * os.path.exists({flag!r})
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_time_limits_hold_whatever_is_done_to_the_time_of_day(tmp_path: Path, workers: int) -> None:
    flag = tmp_path / "set-back"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(TIME_OF_DAY.format(flag=str(flag)))
    prefix = ("env", f"PYTHONPATH={tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    options = (f"--workers={workers}", "--init-timeout=1", "--data-timeout=60", AT_ONCE)
    with running_gateway(tmp_path, *options, prefix=prefix) as gateway, ExitStack() as stack:
        cameras = [stack.enter_context(HandCamera(gateway.port, picture)) for picture in (PICTURE, OTHER)]
        for camera in cameras:
            camera.begin()
            camera.say(*camera.picture.frames()[:2])
        flag.touch()
        with HandCamera(gateway.port, PICTURE) as silent:
            assert silent.hear_the_end() == b""
        flag.unlink()  # and so it is set forward
        with HandCamera(gateway.port, PICTURE) as silent:
            assert silent.hear_the_end() == b""
        for camera in cameras:
            camera.say(*camera.picture.frames()[2:])
            camera.hear(c.RepeatInit)
        assert len(gateway.events("session.silent")) == 2
        assert gateway.events("data.silent") == gateway.troubles() == []


# -- connections


def is_shut(connection: socket.socket) -> bool:
    """Whether the gateway has ended it; it says nothing of its own."""
    connection.settimeout(0.6)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def connect(port: int, source: str) -> socket.socket:
    """Return a connection; the gateway may have ended it before we have seen that it is there."""
    connection = socket.socket()
    connection.settimeout(20)
    connection.bind((source, 0))
    with suppress(ConnectionResetError):
        connection.connect(("127.0.0.1", port))
    return connection


@one_process
def test_one_address_cannot_take_the_place_of_others(tmp_path: Path) -> None:
    options = ("--max-connections-per-address=3", "--init-timeout=60")
    with running_gateway(tmp_path, *options) as gateway, ExitStack() as stack:
        held = [stack.enter_context(connect(gateway.port, A)) for _ in range(8)]
        row = gateway.wait_for("limit.connections")
        assert (row["address"], row["setting"], row["most"]) == (A, "max-connections-per-address", 3)
        assert [is_shut(one) for one in held] == [False] * 3 + [True] * 5
        delivers(gateway, PICTURE, B)
        for one in held:
            one.close()
        eventually("the place is free again", lambda: len(gateway.events("device.disconnected")) == 4)
        delivers(gateway, OTHER)
        assert len(gateway.events("limit.connections")) == 1
        assert not gateway.troubles()


def test_all_open_files_cannot_be_taken_by_connections(tmp_path: Path) -> None:
    """The store keeps its files: a camera that was there first still delivers."""
    prefix = ("sh", "-c", 'ulimit -Sn 84 && ulimit -Hn 84 && exec "$@"', "sh")
    with running_gateway(tmp_path, "--init-timeout=60", prefix=prefix) as gateway, ExitStack() as stack:
        camera = stack.enter_context(HandCamera(gateway.port, PICTURE))
        camera.begin()
        held = [stack.enter_context(connect(gateway.port, A)) for _ in range(60)]
        row = gateway.wait_for("limit.connections")
        assert (row["setting"], row["most"]) == ("max-connections", 10)
        assert [is_shut(one) for one in held[-3:]] == [True] * 3
        camera.say(*PICTURE.frames())
        camera.hear(c.RepeatInit)
        assert not gateway.troubles()


# -- time


def test_a_trickle_does_not_hold_a_connection(tmp_path: Path) -> None:
    with running_gateway(tmp_path, "--init-timeout=2") as gateway, connect(gateway.port, A) as connection:
        begun = time.monotonic()
        with suppress(ConnectionError):
            for byte in init().encode() * 10:
                connection.sendall(bytes([byte]))
                time.sleep(0.25)
                if gateway.events("session.silent"):
                    break
        assert 1.9 < time.monotonic() - begun < 4.5


def test_a_file_that_comes_too_slowly_is_kept_and_goes_on_later(tmp_path: Path) -> None:
    options = ("--min-rate=2000", "--min-rate-time=3")
    with running_gateway(tmp_path, *options) as gateway:
        with HandCamera(gateway.port, PICTURE) as camera:
            camera.begin()
            crc = 0
            for number in range(20):
                packet = PICTURE.content[number * 200 : number * 200 + 200]
                crc = crc16(packet, crc)
                camera.try_to_say(c.Data(packet, crc))
                time.sleep(0.25)
                if gateway.events("session.too_slow"):
                    break
            camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        row = gateway.wait_for("session.too_slow", imei=str(IMEI))
        assert row["rate"] < 2000
        assert gateway.wait_for("file.parked")["held"] >= 1024
        with HandCamera(gateway.port, PICTURE) as camera:
            assert camera.deliver() >= 1024
        assert gateway.media()[0].read_bytes() == PICTURE.content


# -- flapping


def test_two_senders_with_one_imei_do_not_keep_each_other_from_finishing(tmp_path: Path) -> None:
    """Each sends slowly enough to be thrown out by the other; past the limit one of them gets to its end."""
    with running_gateway(tmp_path, "--flapping-takeovers=3") as gateway, ExitStack() as stack:
        cameras = [stack.enter_context(HandCamera(gateway.port, PICTURE, source=A))]
        cameras[0].begin()
        for turn in range(1, 5):
            cameras.append(stack.enter_context(HandCamera(gateway.port, PICTURE, source=(A, B)[turn % 2])))
            cameras[-1].begin()
            assert cameras[-2].hear_the_end() == b""
        row = gateway.wait_for("device.flapping")
        assert (row["imei"], row["address"], row["other"]) == (str(IMEI), A, B)
        for _ in range(5):
            assert is_refused(gateway, PICTURE, B)
        keeper = cameras[-1]
        keeper.say(*PICTURE.frames())
        keeper.hear(c.RepeatInit)
        keeper.say(init(0x40000400))
        keeper.hear(c.Close)
        # Nobody is there any more: the other may come, too.
        keeper.hear_the_end()
        eventually("it has gone", lambda: len(gateway.events("device.disconnected")) == 5)
        delivers(gateway, Picture(content(4000), path=b"dsm/picture/251102/081602.jpg"), B)
        assert len(gateway.media()) == 2
        assert not gateway.troubles()


def test_one_device_on_a_bad_link_is_never_refused(tmp_path: Path) -> None:
    """Twenty connections in a row on one address, each taking over from the one before, and then it delivers."""
    with running_gateway(tmp_path, "--flapping-takeovers=3") as gateway, ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(HandCamera(gateway.port, PICTURE)).begin()
        delivers(gateway, PICTURE)
        assert len(gateway.events("device.taken_over")) == 20
        assert gateway.events("device.flapping") == gateway.events("device.refused") == []
