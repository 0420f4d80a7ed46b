"""A device opens a new connection while its old one still delivers: the newest wins, and nothing received is lost."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

from conftest import content
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import checked, running_gateway

from dsmgateway import commands as c


def test_the_old_connection_is_idle(tmp_path: Path) -> None:
    """What the old connection gave is kept to the last whole packet; it is closed; the new one goes on there."""
    picture = Picture(content(60_000))
    with (
        running_gateway(tmp_path) as gateway,
        HandCamera(gateway.port, picture) as old,
        HandCamera(gateway.port, picture) as new,
    ):
        assert old.begin() == 0
        frames = picture.frames()
        old.say(*frames[:10], frames[10][:700])
        assert new.deliver() == 10 * c.PACKET_BYTES
        assert old.hear_the_end() == b""
        assert_not_acknowledged(bytes(old.heard))
        (sidecar,) = gateway.sidecars()
        assert (sidecar["connections"], sidecar["bytes_received_twice"]) == (2, 0)
        assert gateway.media()[0].read_bytes() == picture.content
        assert [row["imei"] for row in gateway.events("device.taken_over")] == [str(picture.imei)]
        assert not gateway.troubles()
        checked(gateway)


def test_the_old_connection_goes_on_delivering(tmp_path: Path) -> None:
    """Three newer connections in a row each take over from one that delivers without a pause, and all adds up."""
    picture = Picture(content(250_000))
    frames_in_all, told = -(-len(picture.content) // c.PACKET_BYTES), [0]

    def deliver_on(camera: HandCamera, frames: list[bytes]) -> None:
        with suppress(OSError):
            for frame in frames:
                camera.say(frame)
                time.sleep(0.002)

    with running_gateway(tmp_path) as gateway:
        olds: list[tuple[HandCamera, threading.Thread]] = []
        for count in (25, 30, 35):
            camera = HandCamera(gateway.port, picture)
            told.append(camera.begin())
            frames = picture.frames(told[-1])
            camera.say(*frames[:count])
            thread = threading.Thread(target=deliver_on, args=(camera, frames[count:]))
            thread.start()
            olds.append((camera, thread))
        with HandCamera(gateway.port, picture) as newest:
            told.append(newest.deliver())
        for camera, thread in olds:
            thread.join()
            camera.hear_the_end()
            camera.socket.close()
            assert_not_acknowledged(bytes(camera.heard))
        assert told == sorted(told) and told[2] >= 25 * c.PACKET_BYTES, told
        assert told[-1] < frames_in_all * c.PACKET_BYTES
        assert [row["held"] for row in gateway.events("file.parked")] == told[2:]
        assert gateway.media()[0].read_bytes() == picture.content
        (sidecar,) = gateway.sidecars()
        assert (sidecar["connections"], sidecar["bytes_received_twice"]) == (4, 0)
        assert len(gateway.events("device.taken_over")) == 3
        assert not gateway.troubles()
        checked(gateway)
