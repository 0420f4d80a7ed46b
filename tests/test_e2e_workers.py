"""A real gateway of several processes (setting workers): one owner a device, nothing lost whichever of them ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from balancer import balancer
from certificate import Authority
from conftest import content, init
from faults import small_disk, traced
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import (
    AT_ONCE,
    PYTHON,
    TWISTD,
    Row,
    RunningGateway,
    Simulation,
    assert_stored_exactly_once,
    checked,
    environment,
    eventually,
    free_port,
    has_gone,
    running_gateway,
    simulated,
)

from dsmgateway import commands as c
from dsmgateway.workers.owners import owner_of

#: Below the time that a stop may take in all, see `Settings.stop_timeout`.
STOP_S = 5.0


def devices_of(owner: int, count: int, workers: int = 2) -> list[int]:
    """So many IMEIs that belong to one worker process."""
    numbers = (number for number in range(356917000000000, 356917000100000) if owner_of(str(number), workers) == owner)
    return [number for number, _ in zip(numbers, range(count), strict=False)]


def pids(gateway: RunningGateway, since: int = 0) -> dict[int, int]:
    """The process of each worker that was started last."""
    return {row["worker"]: row["pid"] for row in gateway.events("worker.started", since)}


def assert_lines_are_the_owners(rows: list[Row], workers: int) -> None:
    """Every line about a device was written by the process that it belongs to."""
    named = [row for row in rows if "imei" in row]
    assert named
    assert [row for row in named if row["worker"] != owner_of(row["imei"], workers)] == []


def assert_each_is_over_before_its_port_comes_again(rows: list[Row]) -> None:
    """No connection has two lines; the system gives a port out again a second after its connection has ended."""
    begun: set[str] = set()
    for row in rows:
        if row["event"] == "device.connected":
            assert row["peer"] not in begun
            begun.add(row["peer"])
        elif row["event"] == "device.disconnected":
            begun.remove(row["peer"])


@pytest.mark.parametrize("workers", [2, 3])
def test_a_mixed_fleet_on_bad_links_is_served_by_all(tmp_path: Path, workers: int) -> None:
    """Each device by its owner, wherever its connections came in; each connection is logged once."""
    faults = [
        "--cut-every=60",
        "--silent-cut",
        "--corrupt=0.01",
        "--truncate=0.01",
        "--reconnect-delay=0.1",
        "--seed=1",
    ]
    with running_gateway(tmp_path, f"--workers={workers}") as gateway:
        report = simulated(gateway, "--cameras=18", "--files=3", "--mix", *faults)
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles()
        rows = gateway.rows()
        assert_lines_are_the_owners(rows, workers)
        assert {row["worker"] for row in gateway.events("file.stored")} == set(range(workers))
        connected = [row["peer"] for row in gateway.events("device.connected")]
        assert len(connected) == report["summary"]["connections"]
        assert not gateway.events("handover.failed")
        assert gateway.stop() == 0
        assert sorted(connected) == sorted(row["peer"] for row in gateway.events("device.disconnected"))
        assert_each_is_over_before_its_port_comes_again(gateway.rows())
        assert [len(gateway.events(name)) for name in ("gateway.started", "gateway.stopped")] == [1, 1]
        checked(gateway)


def test_a_newer_connection_takes_over_wherever_it_comes_in(tmp_path: Path) -> None:
    """The kernel gives each of these to either process, and the last packet of the older one is where it goes on."""
    picture = Picture(content(100_000))
    connections, packets_each = 16, 5
    with running_gateway(tmp_path, "--workers=2", AT_ONCE) as gateway, ExitStack() as opened:
        for number in range(connections):
            camera = opened.enter_context(HandCamera(gateway.port, picture))
            begins_at = number * packets_each * c.PACKET_BYTES
            assert camera.begin() == begins_at
            camera.say(*picture.frames(begins_at)[:packets_each])
            gateway.has_read()
        newest = opened.enter_context(HandCamera(gateway.port, picture))
        assert newest.deliver() == connections * packets_each * c.PACKET_BYTES
        assert len(gateway.events("device.taken_over")) == connections
        (sidecar,) = gateway.sidecars()
        assert (sidecar["connections"], sidecar["bytes_received_twice"]) == (connections + 1, 0)
        assert not gateway.troubles()
        checked(gateway)


def test_what_comes_with_an_init_is_handed_over_with_it(tmp_path: Path) -> None:
    """Also when it is all that is said, in one piece, and the device closes its side after that."""
    with running_gateway(tmp_path, "--workers=2") as gateway:
        for owner in (0, 1):
            for imei in devices_of(owner, 8):
                picture = Picture(b"", imei=imei)
                with HandCamera(gateway.port, picture) as camera:
                    camera.say(init(imei=imei).encode() + c.Path(picture.path + b"\0").encode())
                    camera.socket.shutdown(socket.SHUT_WR)
                    camera.hear(c.PathRequest)
                    camera.hear(c.MetadataRequest)
                    camera.hear_the_end()
        eventually("all is logged", lambda: len(gateway.events("device.disconnected")) == 16)
        assert_lines_are_the_owners(gateway.rows(), 2)
        assert len(gateway.events("device.connected")) == 16
        received = [row["received"] for row in gateway.events("device.disconnected")]
        assert received == [len(init().encode() + c.Path(picture.path + b"\0").encode())] * 16


def test_one_worker_is_killed_in_mid_upload_of_many_cameras(tmp_path: Path) -> None:
    """The devices of the other are not disturbed; its own come back, go on at their checkpoints, and lose nothing."""
    options = ["--cameras=24", "--files=2", "--size=60k-120k", "--rate=60k", "--reconnect-delay=0.1", "--seed=3"]
    with running_gateway(tmp_path, "--workers=2", "--checkpoint-interval=0.2") as gateway:
        first = pids(gateway)
        with Simulation(gateway, *options, "--attempts=1000") as simulation:
            eventually("files are under way", lambda: len(gateway.events("file.opened")) >= 24)
            time.sleep(0.8)
            since = gateway.log_end
            os.kill(first[1], signal.SIGKILL)
            died = gateway.wait_for("worker.ended", since)
            gateway.wait_for("worker.started", since, worker=1)
            assert simulation.runs
            report = simulation.report()
        assert_stored_exactly_once(gateway, report)
        assert (died["worker"], died["reason"], died["pause"]) == (1, "killed by SIGKILL", 0)
        connections = [row["imei"] for row in gateway.events("device.connected")]
        undisturbed = {imei for imei in connections if owner_of(imei, 2) == 0}
        assert undisturbed and all(connections.count(imei) == 1 for imei in undisturbed)
        again = [row for row in gateway.events("file.opened", since) if owner_of(row["imei"], 2) == 1]
        assert any(row["offset"] > 0 for row in again), "no file went on at a checkpoint"
        assert [row["event"] for row in gateway.troubles()] == ["worker.ended"]
        assert pids(gateway)[0] == first[0] and pids(gateway)[1] != first[1]
        assert gateway.stop() == 0
        assert not gateway.spool(".part") and not gateway.spool(".sidecar")
        checked(gateway)


def test_workers_are_killed_again_and_again(tmp_path: Path) -> None:
    """In turn, in the middle of everything: at the end all is stored, once."""
    options = [
        "--cameras=16",
        "--files=4",
        "--size=20k-60k",
        "--rate=60k",
        "--reconnect-delay=0.1",
        "--seed=4",
        "--mix",
    ]
    with running_gateway(tmp_path, "--workers=2", "--checkpoint-interval=0.2") as gateway:
        with Simulation(gateway, *options, "--attempts=100000") as simulation:
            for number in (0, 1, 0):
                since = gateway.log_end
                eventually("files are stored", lambda since=since: len(gateway.events("file.stored", since)) >= 4)
                os.kill(pids(gateway)[number], signal.SIGKILL)
                gateway.wait_for("worker.started", since, worker=number)
            report = simulation.report()
        assert_stored_exactly_once(gateway, report)
        ended = [row["worker"] for row in gateway.events("worker.ended")]
        assert ended == [0, 1, 0]
        assert gateway.stop() == 0
        checked(gateway)


@pytest.mark.parametrize(
    ("calls", "name"),
    [
        ("rename,renameat,renameat2", "spool/{}.part"),
        ("link,linkat", "spool/{}.sidecar"),
        ("fdatasync,fsync", "index.sqlite3-wal"),
        pytest.param("unlink,unlinkat", "spool/{}.sidecar", marks=pytest.mark.slow),
    ],
)
def test_a_worker_is_killed_in_the_middle_of_a_finish(tmp_path: Path, calls: str, name: str) -> None:
    """Nobody recovers the folder, and yet the file is there whole and once when its device has offered it again."""
    picture = Picture(content(40_000))
    with running_gateway(tmp_path, "--workers=2") as gateway:
        owner = pids(gateway)[owner_of(str(picture.imei), 2)]
        options = ["-P", str(gateway.data / name.format(picture.key)), "-e", f"trace={calls}"]
        options += [word for call in calls.split(",") for word in ("-e", f"inject={call}:signal=KILL:when=1")]
        with HandCamera(gateway.port, picture) as camera:
            camera.begin()
            with traced(owner, tmp_path / "trace", *options):
                camera.try_to_say(*picture.frames())
                camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        assert gateway.wait_for("worker.ended")["reason"] == "killed by SIGKILL"
        with HandCamera(gateway.port, picture) as camera:
            camera.deliver()
        assert [path.read_bytes() for path in gateway.media()] == [picture.content]
        assert len(gateway.sidecars()) == 1
        assert [row["event"] for row in gateway.troubles()] == ["worker.ended"]
        assert gateway.stop() == 0
        assert gateway.spool("") == [gateway.data / "spool" / "aside"]
        checked(gateway)


def test_connections_wait_for_the_successor_of_a_worker(tmp_path: Path) -> None:
    """What comes in while it is away, at its own port or by another process, is served when it is there again."""
    with running_gateway(tmp_path, "--workers=2") as gateway:
        mine = devices_of(1, 12)
        os.kill(pids(gateway)[1], signal.SIGSTOP)
        with ExitStack() as opened:
            cameras = [opened.enter_context(HandCamera(gateway.port, Picture(content(3000), imei))) for imei in mine]
            for camera in cameras:
                camera.say(init(imei=camera.picture.imei))
            others = [HandCamera(gateway.port, Picture(content(3000), imei)) for imei in devices_of(0, 12)]
            served = 0
            for other in others:  # those that came in at the one that stands still wait, too
                other.say(init(imei=other.picture.imei))
                other.socket.settimeout(0.4)
                try:
                    other.hear(c.PathRequest)
                    served += 1
                except TimeoutError:
                    pass
                other.socket.close()
            assert 0 < served < len(others)
            since = gateway.log_end
            os.kill(pids(gateway)[1], signal.SIGKILL)
            gateway.wait_for("worker.started", since)
            for camera in cameras:
                camera.hear(c.PathRequest)
            assert not gateway.events("handover.failed")
        assert_lines_are_the_owners(gateway.rows(), 2)


def test_one_worker_is_asked_to_end(tmp_path: Path) -> None:
    """SIGTERM to it alone: it parks all it has, and another takes its place."""
    picture = Picture(content(50_000), imei=devices_of(1, 1)[0])
    with running_gateway(tmp_path, "--workers=2", AT_ONCE) as gateway, HandCamera(gateway.port, picture) as camera:
        camera.begin()
        camera.say(*picture.frames()[:20])
        gateway.has_read()
        since = gateway.log_end
        os.kill(pids(gateway)[1], signal.SIGTERM)
        camera.hear_the_end()
        assert_not_acknowledged(bytes(camera.heard))
        assert gateway.wait_for("worker.ended")["reason"] == "exit code 0"
        gateway.wait_for("worker.started", since)
        with HandCamera(gateway.port, picture) as again:
            assert again.deliver() == 20 * c.PACKET_BYTES


def test_the_supervisor_is_killed(tmp_path: Path) -> None:
    """Its workers park all they have and end; a new gateway goes on there."""
    pictures = [Picture(content(70_000), imei=imei) for imei in (*devices_of(0, 3), *devices_of(1, 3))]
    with running_gateway(tmp_path, "--workers=2", AT_ONCE) as gateway, ExitStack() as opened:
        cameras = [opened.enter_context(HandCamera(gateway.port, picture)) for picture in pictures]
        for camera in cameras:
            camera.begin()
            camera.say(*camera.picture.frames()[:30])
        gateway.has_read()
        workers = pids(gateway).values()
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.wait()
        for camera in cameras:
            camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
        eventually("the workers end", lambda: all(map(has_gone, workers)))
        gateway.start()
        for picture in pictures:
            with HandCamera(gateway.port, picture) as camera:
                assert camera.deliver() == 30 * c.PACKET_BYTES
        assert len(gateway.sidecars()) == len(pictures)
        assert not gateway.troubles()
        assert gateway.stop() == 0
        checked(gateway)


def test_a_stop_ends_all_processes_in_time(tmp_path: Path) -> None:
    """With uploads under way in each; every packet is kept, and nothing is left behind."""
    pictures = [Picture(content(70_000), imei=imei) for imei in (*devices_of(0, 4), *devices_of(1, 4))]
    with running_gateway(tmp_path, "--workers=2", AT_ONCE) as gateway, ExitStack() as opened:
        for picture in pictures:
            camera = opened.enter_context(HandCamera(gateway.port, picture))
            camera.begin()
            camera.say(*picture.frames()[:30])
        gateway.has_read()
        workers = pids(gateway).values()
        began = time.monotonic()
        assert gateway.stop() == 0
        assert time.monotonic() - began < STOP_S
        assert all(map(has_gone, workers))
        assert [row["held"] for row in gateway.events("file.parked")] == [30 * c.PACKET_BYTES] * len(pictures)
        assert len(gateway.events("gateway.stopped")) == 1
        assert not gateway.troubles()


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    """After stop-timeout and a little more; the other one stops as ever."""
    with running_gateway(tmp_path, "--workers=2", "--stop-timeout=0.5") as gateway:
        worker = pids(gateway)[0]
        os.kill(worker, signal.SIGSTOP)
        assert gateway.stop() == 0
        assert has_gone(worker)
        assert len(gateway.events("gateway.stop_late")) == 1
        assert [row["reason"] for row in gateway.events("worker.ended")] == ["killed by SIGKILL"]
        assert len(gateway.events("gateway.stopped")) == 1


#: Read by every Python process at its start: SIGUSR2 has its main thread do nothing more.
HANG = """
import signal, time
signal.signal(signal.SIGUSR2, lambda number, frame: time.sleep(3600))
"""


def test_a_worker_that_hangs_is_ended_and_another_takes_its_place(tmp_path: Path) -> None:
    """It says where it hung if it still can; another one, which works, is left alone."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(HANG)
    more = environment(PYTHONPATH=f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    with running_gateway(tmp_path, "--workers=3", "--worker-timeout=4", env=more) as gateway:
        before = pids(gateway)
        os.kill(before[0], signal.SIGUSR2)
        os.kill(before[1], signal.SIGSTOP)
        eventually("others take their places", lambda: len(gateway.events("worker.started")) == 5)
        ended = {row["worker"]: row["reason"] for row in gateway.events("worker.ended")}
        assert ended == {0: "killed by SIGABRT", 1: "killed by SIGKILL"}
        assert [row["text"] for row in gateway.events("worker.said") if "sitecustomize.py" in row["text"]]
        with HandCamera(gateway.port, Picture(content(50_000), imei=devices_of(1, 1, workers=3)[0])) as camera:
            camera.deliver()
        after = pids(gateway)
        assert after[2] == before[2] and {row["pid"] for row in gateway.events("worker.hangs")} == {
            before[0],
            before[1],
        }


#: As above: who starts while a file is there waits until it is not.
WAIT = """
import os, time
while os.path.exists({path!r}):
    time.sleep(0.05)
"""


def test_a_worker_that_does_not_come_to_listen_is_told_of_and_not_ended(tmp_path: Path) -> None:
    """It may have a reason; once it listens, it is as good as any."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WAIT.format(path=str(tmp_path / "wait")))
    more = environment(PYTHONPATH=f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    with running_gateway(tmp_path, "--workers=2", "--worker-timeout=4", env=more) as gateway:
        (tmp_path / "wait").touch()
        os.kill(pids(gateway)[0], signal.SIGKILL)
        late = [gateway.wait_for("worker.starts_late")]
        late.append(gateway.wait_for("worker.starts_late", gateway.log_end))
        assert {row["worker"] for row in late} == {0} and 3 < late[0]["after"] < late[1]["after"] - 3
        (tmp_path / "wait").unlink()
        eventually("it listens", lambda: len(gateway.events("worker.started")) == 3)
        assert late[0]["pid"] == late[1]["pid"] == pids(gateway)[0]
        with HandCamera(gateway.port, Picture(content(50_000), imei=devices_of(0, 1)[0])) as camera:
            assert camera.deliver() == 0
        assert not gateway.events("worker.hangs") and len(gateway.events("worker.ended")) == 1


def test_a_list_of_known_devices_is_read_anew_by_all(tmp_path: Path) -> None:
    """At SIGHUP; and devices that are approved while the gateway runs get in, whichever process refused them."""
    one, other = devices_of(0, 1)[0], devices_of(1, 1)[0]
    known = tmp_path / "known"
    known.write_text(f"{one}\n")
    options = ["--workers=2", "--admission=approve", f"--known-devices={known}"]
    with running_gateway(tmp_path, *options) as gateway:

        def gets_in(imei: int, number: int) -> bool:
            with HandCamera(gateway.port, Picture(content(2000), imei, b"dsm/%d.jpg" % number)) as camera:
                camera.say(init(imei=imei))
                return camera.socket.recv(4)[:2] == b"\0\x0c"

        assert gets_in(one, 1) and not gets_in(other, 1)
        since = gateway.log_end
        known.write_text(f"{one}\n{other}\n")
        os.kill(gateway.pid, signal.SIGHUP)
        eventually(
            "both have read it", lambda: len({row["worker"] for row in gateway.events("devices.known", since)}) == 2
        )
        assert gets_in(one, 2) and gets_in(other, 2)
        third = devices_of(0, 2)[1]
        assert not gets_in(third, 1)
        decide = [*PYTHON, "-m", "dsmgateway.cli", "devices", str(gateway.data)]

        def is_listed() -> bool:
            listed = subprocess.run([*decide, "--json"], capture_output=True, text=True, env=environment(), check=True)
            return str(third) in listed.stdout

        eventually("it is listed", is_listed)
        subprocess.run([*decide, "--approve", str(third)], capture_output=True, env=environment(), check=True)
        eventually("it gets in", lambda: gets_in(third, 2))
        assert not gateway.troubles()


def test_the_log_is_rotated_with_the_lines_of_all(tmp_path: Path) -> None:
    """SIGUSR1 begins a new file: lines of the worker processes, too, are whole and go there."""
    log, port = tmp_path / "gateway.log", free_port()
    command = [*TWISTD, f"--logfile={log}", "dsmgateway", f"--port={port}", "--workers=2", "--log-format=json"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment())
    try:
        eventually("it has started", lambda: log.exists() and "gateway.started" in log.read_text())
        with HandCamera(port, Picture(content(2000), devices_of(0, 1)[0])) as camera:
            camera.deliver()
        process.send_signal(signal.SIGUSR1)
        eventually("it is rotated", (tmp_path / "gateway.log.1").exists)
        with HandCamera(port, Picture(content(2000), devices_of(1, 1)[0])) as camera:
            camera.deliver()
        eventually("it is logged", lambda: "device.disconnected" in log.read_text())
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait(10)
    old, new = (
        [json.loads(line) for line in path.read_text().splitlines()] for path in (tmp_path / "gateway.log.1", log)
    )
    assert [row["worker"] for row in old if row["event"] == "file.stored"] == [0]
    assert [row["worker"] for row in new if row["event"] == "file.stored"] == [1]


# -- TLS, and balancers


def tls_options(folder: Path, port: int, *more: str) -> tuple[list[str], Authority]:
    """Options of a gateway with a TLS port, and the authority that its cameras trust."""
    authority = Authority()
    authority.write(folder / "ca.pem")
    authority.issue(folder / "own.pem", "gateway")
    tls = [f"--tls-port=tcp:{port}:interface=127.0.0.1", f"--tls-cert={folder}/own.pem"]
    return ["--workers=2", *tls, *more], authority


def trusting(folder: Path, certificate: Path | None = None) -> ssl.SSLContext:
    """A camera's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(folder / "ca.pem")
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def test_cameras_with_tls_are_served_by_their_owners(tmp_path: Path) -> None:
    """Whichever process has the TLS; takeover, the acknowledgement and the end get through."""
    port = free_port()
    options, _ = tls_options(tmp_path, port)
    context = trusting(tmp_path)
    pictures = [Picture(content(150_000), imei=imei) for imei in (*devices_of(0, 3), *devices_of(1, 3))]
    with running_gateway(tmp_path, *options) as gateway, ExitStack() as opened:
        for picture in pictures:
            old = opened.enter_context(HandCamera(port, picture, context))
            old.begin()
            old.say(*picture.frames()[:40])
            gateway.has_read()
            with HandCamera(port, picture, context) as new:
                assert new.deliver() <= 40 * c.PACKET_BYTES
            assert old.hear_the_end() == b""
        assert len(gateway.sidecars()) == len(pictures)
        assert len(gateway.events("device.taken_over")) == len(pictures)
        assert_lines_are_the_owners(gateway.rows(), 2)
        assert not gateway.troubles() and not gateway.events("tls.failed")
        assert gateway.stop() == 0
        peers = [row["peer"] for row in gateway.events("device.connected")]
        assert sorted(peers) == sorted(row["peer"] for row in gateway.events("device.disconnected"))
        checked(gateway)


def test_a_connection_with_tls_is_aborted_by_its_owner(tmp_path: Path) -> None:
    """Whichever process has the TLS: it does not wait for the device to take its leave, and reads no more of it."""
    port = free_port()
    options, _ = tls_options(tmp_path, port)
    context = trusting(tmp_path)
    with running_gateway(tmp_path, *options) as gateway:
        for imei in (*devices_of(0, 6), *devices_of(1, 6)):
            with HandCamera(port, Picture(b"", imei), context) as camera:
                camera.say(init(imei=imei))
                camera.hear(c.PathRequest)
                camera.say(b"\xff" * 4)
                with pytest.raises(ConnectionResetError):  # no word of TLS, which takes its leave at a usual end
                    socket.socket.recv(camera.socket, 1)
        eventually("all is logged", lambda: len(gateway.events("peer.error")) == 12)


def test_a_fleet_with_tls_and_bad_links(tmp_path: Path) -> None:
    """More than a socket holds goes through the process with the TLS, and cuts and resets do, too."""
    port = free_port()
    options, _ = tls_options(tmp_path, port, "--proxy-protocol=127.0.0.1")
    faults = ["--cut-every=80", "--corrupt=0.01", "--reconnect-delay=0.1", "--seed=2"]
    with (
        running_gateway(tmp_path, *options) as gateway,
        balancer(tmp_path, gateway.port, port, encrypts=True) as (_, secret),
    ):
        report = simulated(gateway, "--to", f"127.0.0.1:{secret}", "--cameras=12", "--files=2", *faults)
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles() and not gateway.events("tls.failed") and not gateway.events("proxy.failed")
        assert_lines_are_the_owners(gateway.rows(), 2)
        assert gateway.stop() == 0
        checked(gateway)


def test_a_certificate_is_held_against_the_imei_wherever_the_device_belongs(tmp_path: Path) -> None:
    """By the process that has shown it its own; who is another device does not get to the owner."""
    port = free_port()
    ca = f"--tls-client-ca={tmp_path}/ca.pem"
    options, authority = tls_options(tmp_path, port, ca, "--tls-match-imei")
    with running_gateway(tmp_path, *options) as gateway:
        for imei in (*devices_of(0, 4), *devices_of(1, 4)):
            context = trusting(tmp_path, authority.issue(tmp_path / f"{imei}.pem", str(imei)))
            with HandCamera(port, Picture(content(3000), imei), context) as camera:
                camera.deliver()
            with HandCamera(port, Picture(content(3000), imei + 1), context) as camera:
                camera.say(init(imei=imei + 1))
                assert camera.hear_the_end() == b""
        assert len(gateway.sidecars()) == 8
        assert len(gateway.events("tls.other_device")) == 8
        assert len(gateway.events("device.connected")) == 8


def test_a_certificate_is_renewed_by_all_and_a_broken_one_by_none(tmp_path: Path) -> None:
    """Not even by a process that is started while it is there: it goes on with what the others use."""
    port = free_port()
    options, authority = tls_options(tmp_path, port)
    context = trusting(tmp_path)
    beside = b"# More than a socket between two processes holds.\n" * 8000

    def shown(count: int) -> set[str]:
        names = set()
        for number in range(count):
            with HandCamera(port, Picture(content(2000, number)), context) as camera:
                assert isinstance(camera.socket, ssl.SSLSocket)
                names.add(str(camera.socket.getpeercert()["subject"][0][0][1]))  # type: ignore[index]
        return names

    def hang_up(event: str) -> None:
        since = gateway.log_end
        os.kill(gateway.pid, signal.SIGHUP)
        eventually("both have read it", lambda: {row["worker"] for row in gateway.events(event, since)} == {0, 1})

    with running_gateway(tmp_path, *options) as gateway:
        renewed = authority.issue(tmp_path / "new.pem", "renewed")
        renewed.write_bytes(beside + renewed.read_bytes())
        renewed.rename(tmp_path / "own.pem")
        assert shown(12) == {"gateway"}
        hang_up("tls.certificate")
        assert shown(12) == {"renewed"}
        (tmp_path / "own.pem").write_bytes(beside)
        hang_up("reload.failed")
        since = gateway.log_end
        os.kill(pids(gateway)[0], signal.SIGKILL)
        gateway.wait_for("worker.started", since, worker=0)
        assert shown(12) == {"renewed"}
        for owner in range(2):
            with HandCamera(port, Picture(content(3000), devices_of(owner, 1)[0]), context) as camera:
                camera.deliver()
        assert len(gateway.events("worker.ended")) == 1
        assert gateway.stop() == 0


def test_balancers_tell_every_process_who_the_device_is(tmp_path: Path) -> None:
    """Plain and before TLS."""
    port = free_port()
    options, _ = tls_options(tmp_path, port, "--proxy-protocol=127.0.0.1")
    context = trusting(tmp_path)
    with running_gateway(tmp_path, *options) as gateway:
        for number, imei in enumerate((*devices_of(0, 6), *devices_of(1, 6)), 1):
            header = b"PROXY TCP4 192.0.2.%d 10.0.0.1 40000 10014\r\n" % number
            with HandCamera(gateway.port, Picture(content(3000), imei), before=[header]) as camera:
                camera.deliver()
            with HandCamera(port, Picture(content(3000), imei, b"dsm/2.jpg"), context, before=[header]) as camera:
                camera.deliver()
        peers = [row["peer"] for row in gateway.sidecars()]
        assert sorted(peers) == sorted([f"192.0.2.{number}:40000" for number in range(1, 13)] * 2)
        assert not gateway.troubles() and not gateway.events("proxy.failed")


# -- limits that count over all


def test_max_connections_counts_over_all(tmp_path: Path) -> None:
    """Whichever process has them."""
    with running_gateway(tmp_path, "--workers=2", "--max-connections=6") as gateway, ExitStack() as opened:
        for imei in (*devices_of(0, 3), *devices_of(1, 3)):
            opened.enter_context(HandCamera(gateway.port, Picture(content(3000), imei))).begin()
        for _ in range(6):
            # It may have been ended before we have seen that it is there.
            with suppress(ConnectionResetError), HandCamera(gateway.port, Picture(content(3000))) as camera:
                assert camera.hear_the_end() == b""
        assert {row["setting"] for row in gateway.events("limit.connections")} == {"max-connections"}
        opened.close()
        eventually("they have gone", lambda: len(gateway.events("device.disconnected")) == 6)
        with HandCamera(gateway.port, Picture(content(3000))) as camera:
            camera.deliver()


def test_a_day_of_a_device_is_counted_wherever_it_comes_in(tmp_path: Path) -> None:
    """By its owner, and by nobody else."""
    with running_gateway(tmp_path, "--workers=2", "--device-files-per-day=2") as gateway:
        for imei in (devices_of(0, 1)[0], devices_of(1, 1)[0]):
            for number in range(8):
                with HandCamera(gateway.port, Picture(content(2000), imei, b"dsm/%d.jpg" % number)) as camera:
                    if number < 2:
                        camera.deliver()
                    else:
                        camera.say(init(imei=imei))
                        camera.hear(c.Close)
                        camera.hear_the_end()
        assert {row["setting"] for row in gateway.events("limit.device_day")} == {"device-files-per-day"}
        assert {row["worker"] for row in gateway.events("limit.device_day")} == {0, 1}
        assert len(gateway.media()) == 4


def taken(port: int, picture: Picture) -> HandCamera | None:
    """A camera whose file has begun; None as long as the room for it is not free."""
    camera = HandCamera(port, picture)
    try:
        camera.begin()
    except AssertionError:
        camera.socket.close()
        return None
    return camera


def test_a_full_disk_is_full_for_all(tmp_path: Path) -> None:
    """Room for one file is not given twice: what one process has reserved is not free for another."""
    one, other = (Picture(content(3_000_000), imei=devices_of(owner, 1)[0]) for owner in (0, 1))
    with (
        small_disk("8m") as disk,
        running_gateway(tmp_path, "--workers=2", "--min-free=4MiB", data=disk / "data") as gateway,
    ):
        for first, second in ((one, other), (other, one)):
            # What was parked last has given its room back once that is on the disk, a moment after the log says so.
            with eventually("there is room", lambda first=first: taken(gateway.port, first)) as camera:
                camera.say(*first.frames()[:100])
                with HandCamera(gateway.port, second) as refused:
                    refused.say(init(imei=second.imei))
                    refused.hear(c.PathRequest)
                    refused.say(c.Path(second.path + b"\0"))
                    refused.hear(c.MetadataRequest)
                    refused.say(c.MetadataResponse(b""))
                    refused.hear(c.FileRequest)
                    refused.say(c.Start(len(second.content), 0))
                    refused.hear(c.Close)
            eventually("it is parked", lambda first=first: gateway.events("file.parked"))
            for path in gateway.spool(".part"):
                assert path.stat().st_size <= 200_000
        eventually("both say it", lambda: {row["worker"] for row in gateway.events("store.full")} == {0, 1})
        assert {row["event"] for row in gateway.troubles()} == {"store.full"}


def test_a_disk_that_fails_one_takes_no_file_from_all(tmp_path: Path) -> None:
    """Until the one that has found out has written to it again."""
    one, other = (Picture(content(3000), imei=devices_of(owner, 1)[0]) for owner in (0, 1))
    with running_gateway(tmp_path, "--workers=2", "--probe-interval=0.2") as gateway:
        failing = ["-P", str(gateway.data / "spool"), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
        with traced(pids(gateway)[0], tmp_path / "trace", *failing):
            with HandCamera(gateway.port, one) as camera:
                camera.begin()
                camera.try_to_say(*one.frames())
                camera.hear_the_end()
            assert_not_acknowledged(bytes(camera.heard))
            closed = pytest.raises(AssertionError, match=r"Close\(\) instead of Resume")
            with HandCamera(gateway.port, other) as refused, closed:
                refused.offer()
            ended = gateway.wait_for("device.disconnected", within_s=5, imei=str(other.imei))
            assert ended["reason"] == "the disk is failing"
        assert gateway.wait_for("store.healed")["worker"] == 0
        for picture in (one, other):
            with HandCamera(gateway.port, picture) as camera:
                camera.deliver()
        assert {(row["event"], row["worker"]) for row in gateway.troubles()} == {
            ("store.failing", 0),
            ("store.failed", 0),
        }


def test_a_worker_that_has_ended_holds_nothing_back(tmp_path: Path) -> None:
    """It had found the disk to fail, and the next one cannot start: those that are left go on."""
    known = tmp_path / "known.txt"
    one, other = (Picture(content(3000), imei=devices_of(owner, 1)[0]) for owner in (0, 1))
    known.write_text(f"{one.imei}\n{other.imei}\n")
    options = ("--workers=2", "--admission=known", f"--known-devices={known}", "--max-connections=2")
    with running_gateway(tmp_path, *options) as gateway, ExitStack() as opened:
        failing = ["-P", str(gateway.data / "spool"), "-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
        with traced(pids(gateway)[0], tmp_path / "trace", *failing), HandCamera(gateway.port, one) as camera:
            camera.begin()
            camera.try_to_say(*one.frames())
            camera.hear_the_end()
        gateway.wait_for("store.failing")
        opened.enter_context(HandCamera(gateway.port, one)).say(init(imei=one.imei).encode())
        gateway.has_read()
        known.write_text("no list\n")
        gateway.wait_for("devices.unreadable", worker=1)
        os.kill(pids(gateway)[0], signal.SIGKILL)
        eventually("its successor cannot start", lambda: len(gateway.events("worker.ended")) > 1)
        assert "known.txt" in gateway.events("worker.ended")[1]["reason"]
        delivered = False
        for _ in range(20):  # the kernel gives the one that is not there its share of all connections
            with HandCamera(gateway.port, other) as camera, suppress(TimeoutError):
                camera.socket.settimeout(1)
                camera.deliver()
                delivered = True
                break
        assert delivered


# -- what goes wrong at the start


def started_in_vain(folder: Path, *options: str) -> str:
    """The one line with which a start fails."""
    done = subprocess.run(
        [*TWISTD, "dsmgateway", *options],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(("first", "second"), [(2, 2), (1, 2), (2, 1)])
def test_a_busy_port_is_one_line(tmp_path: Path, first: int, second: int) -> None:
    """Also when it is busy with a gateway that would share it among its own."""
    with running_gateway(tmp_path, f"--workers={first}") as gateway:
        said = started_in_vain(tmp_path, f"--port={gateway.port}", f"--workers={second}", "--data=other")
        line = f"twistd dsmgateway: port {gateway.port}: Address already in use (option --port)"
        assert said == line
        said = started_in_vain(tmp_path, "--port=0", f"--workers={second}", f"--data={gateway.data}")
        assert said.endswith("another gateway is using it (option --data)")


@pytest.mark.parametrize("port", ["unix:gateway.sock", "tcp6:10014", "tcp:10014:interface=localhost", "tls:1:a=b"])
def test_a_port_that_cannot_be_shared_is_one_line(tmp_path: Path, port: str) -> None:
    tls = [] if not port.startswith("tls") else ["--tls-cert=none"]
    said = started_in_vain(tmp_path, f"--port={port}", "--workers=2", *tls)
    assert said.startswith(f"twistd dsmgateway: endpoint {port!r}: several processes (setting workers) share ")
    assert said.endswith("(option --port)")


def test_workers_that_cannot_start_are_one_line(tmp_path: Path) -> None:
    """And the gateway, with all of its processes, is not there."""
    port = free_port()
    (tmp_path / "data").mkdir()
    with sqlite3.connect(tmp_path / "data" / "devices.sqlite3") as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    options = [f"--port={port}", "--workers=2", "--data=data", "--admission=approve"]
    assert "made by another version of the gateway" in started_in_vain(tmp_path, *options)
    (tmp_path / "data" / "devices.sqlite3").unlink()
    with running_gateway(tmp_path, "--workers=2", "--admission=approve", port=port):
        pass  # neither port nor data folder is held by what was started in vain


def test_a_crash_that_says_something_says_it_in_the_log(tmp_path: Path) -> None:
    """A line each, as JSON where the log is."""
    with running_gateway(tmp_path, "--workers=2") as gateway:
        os.kill(pids(gateway)[0], signal.SIGABRT)
        ended = gateway.wait_for("worker.ended")
        assert ended["reason"] == "killed by SIGABRT"
        said = [row["text"] for row in gateway.events("worker.said")]
        assert said[0] == "Fatal Python error: Aborted" and len(said) > 3
