"""SIGTERM in mid-transfer: every transfer is parked with all it had received, and goes on there after a start."""

from __future__ import annotations

import time
from pathlib import Path

from conftest import content
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import RunningGateway, Simulation, assert_stored_exactly_once, checked, eventually, running_gateway

from dsmgateway import commands as c
from dsmgateway.store.check import Kind, State, check

STOP_S = 5.0


def stop_in_time(gateway: RunningGateway) -> None:
    """SIGTERM ends the gateway within its time, with exit code 0."""
    began = time.monotonic()
    assert gateway.stop(within_s=STOP_S) == 0
    assert time.monotonic() - began < STOP_S


def parked_offsets(gateway: RunningGateway) -> list[int]:
    """Where the parts in the spool go on."""
    rows = [row for row in check(gateway.data) if row.kind is Kind.PART]
    assert all(row.state is State.RESUMABLE for row in rows)
    return sorted(row.offset_bytes for row in rows)


def test_a_stop_parks_all_whole_packets(tmp_path: Path) -> None:
    """Every packet that was received whole counts, also those not yet written or read; half a packet does not."""
    pictures = [Picture(content(70_000, number), imei=356917000000000 + number) for number in range(1, 7)]
    packets = [1, 3, 17, 40, 48, 67]
    with running_gateway(tmp_path) as gateway:
        cameras = [HandCamera(gateway.port, picture) for picture in pictures]
        for camera, count in zip(cameras, packets, strict=True):
            assert camera.begin() == 0
            *frames, half = camera.picture.frames()[: count + 1]
            camera.say(*frames, half[:500])
        stop_in_time(gateway)
        for camera in cameras:
            camera.hear_the_end()
            camera.socket.close()
            assert_not_acknowledged(bytes(camera.heard))
        assert parked_offsets(gateway) == [count * c.PACKET_BYTES for count in packets]
        assert not gateway.media() and not gateway.troubles()

        gateway.start()
        for picture, count in zip(pictures, packets, strict=True):
            with HandCamera(gateway.port, picture) as camera:
                assert camera.deliver() == count * c.PACKET_BYTES
        assert len(gateway.sidecars()) == len(gateway.media()) == len(pictures)
        assert all(row["connections"] == 2 and row["bytes_received_twice"] == 0 for row in gateway.sidecars())
        assert not gateway.troubles()
        stop_in_time(gateway)
        checked(gateway)


def test_a_stop_under_load(tmp_path: Path) -> None:
    """With thirty cameras at work, what the log says is parked is what the spool holds, and all goes on after that."""
    options = ["--cameras=30", "--files=1", "--rate=60k", "--size=60k-120k", "--reconnect-delay=0.1", "--seed=6"]
    with running_gateway(tmp_path) as gateway, Simulation(gateway, *options, "--attempts=1000") as simulation:
        eventually("files are under way", lambda: len(gateway.events("file.opened")) >= 30)
        time.sleep(0.7)
        stop_in_time(gateway)
        parked = sorted(row["held"] for row in gateway.events("file.parked"))
        assert len(parked) >= 20 and parked[0] > 0
        assert parked_offsets(gateway) == parked
        since = gateway.log_end
        due = {(row["imei"], row["device_path"]): row["held"] for row in gateway.events("file.parked")}
        gateway.start()
        report = simulation.report()
        for row in gateway.events("file.opened", since):
            assert row["offset"] == due.pop((row["imei"], row["device_path"]), row["offset"])
        assert not due
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles()
        stop_in_time(gateway)
        checked(gateway)
