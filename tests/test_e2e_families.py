"""Every camera family against a real gateway: mixed fleets, and DualCam played by hand on a real socket."""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import IDLE, IMEI, content, data_frames, init
from hand_camera import HandCamera, Picture, assert_not_acknowledged
from running import (
    Row,
    RunningGateway,
    assert_stored_exactly_once,
    checked,
    eventually,
    running_gateway,
    simulated,
)

from dsmgateway import commands as c
from dsmgateway.commands import Offer
from dsmgateway.families import IDENTIFIERS

FRONT_PHOTO, REAR_PHOTO, FRONT_VIDEO = Offer.FRONT_PHOTO, Offer.REAR_PHOTO, Offer.FRONT_VIDEO
FAULTS = ("--cut-every=60", "--corrupt=0.01", "--truncate=0.01", "--rewind=0.1", "--swap=0.5", "--reconnect-delay=0.2")

FLEETS = [
    pytest.param(40, id="40-trackers"),
    pytest.param(200, id="200-trackers", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("cameras", FLEETS)
def test_a_fleet_of_all_families(tmp_path: Path, cameras: int) -> None:
    """All families and both protocol generations at once on bad links: every file whole, once, named by its family."""
    with running_gateway(tmp_path) as gateway:
        report = simulated(gateway, "--mix", f"--cameras={cameras}", "--files=4", "--seed=3", *FAULTS, within_s=240)
        assert_stored_exactly_once(gateway, report)
        assert not gateway.troubles()
        assert not gateway.spool(".part") and not gateway.spool(".sidecar")
        faults = {kind for kind, count in report["summary"]["faults"].items() if count}
        assert {"cut", "corrupt", "truncate", "rewind", "swap"} <= faults
        generations = Counter((row["family"], row["protocol"] >= 6) for row in report["files"])
        assert set(generations) == {
            (name, new) for name in ("dsm", "adas", "dualcam", "dashcam") for new in (False, True)
        }
        sent = {(row["imei"], row["sha256"]): row["family"] for row in report["files"]}
        for sidecar in gateway.sidecars():
            family = sent[sidecar["imei"], sidecar["sha256"]]
            assert sidecar["family"] == family
            assert Path(sidecar["path"]).name.split("_")[1].startswith(f"{family}-")
            assert sidecar["metadata"]["kind"] == sidecar["kind"]
        checked(gateway)


# -- DualCam by hand


@dataclass(frozen=True)
class DualCamFile:
    """One file of a DualCam: its content, its offer, and when it was taken."""

    content: bytes = field(repr=False)
    offer: Offer = FRONT_PHOTO
    time_ms: int = 1_763_800_000_123

    @property
    def packets(self) -> int:
        """What START says."""
        return -(-len(self.content) // 1024)

    @property
    def metadata(self) -> bytes:
        """The 32 bytes of version 3; file types are the bits of the offers."""
        return struct.pack(">BBQBHBhdd", 3, self.offer, self.time_ms, 9, 0, 25, 120, 54.687157, 25.279652)

    def frames(self, packet: int = 1) -> list[bytes]:
        """The DATA frames from a SYNC at this packet on."""
        return data_frames(self.content, (packet - 1) * 1024)


class HandDualCam(HandCamera):
    """A DualCam up to protocol 5 on one connection."""

    def __init__(self, gateway: RunningGateway) -> None:
        super().__init__(gateway.port, Picture(b""))

    def offer_file(self, file: DualCamFile) -> int:
        """Say everything up to START, from INIT on; return what the gateway asks for."""
        identifier = IDENTIFIERS[file.offer]
        self.say(init(int(file.offer) << 24))
        assert self.hear(c.MetadataRequest).identifier == identifier
        self.say(c.MetadataResponse(file.metadata))
        assert self.hear(c.FileRequest).path == identifier
        self.say(c.Start(file.packets, 0))
        return self.hear(c.Resume).offset

    def send_rest(self, file: DualCamFile, offset: int) -> None:
        """Send all from this packet on, to the acknowledgement."""
        packet = max(offset, 1)
        self.say(c.Sync(packet), *file.frames(packet))
        self.hear(c.RepeatInit)

    def leave(self) -> None:
        """Have nothing more to send."""
        self.say(init(IDLE))
        self.hear(c.Close)
        self.hear_the_end()


def stored(gateway: RunningGateway, *files: DualCamFile) -> list[Row]:
    """The sidecars, after seeing that these files are what is stored, once each, and nothing is left over."""
    sidecars = gateway.sidecars()
    assert sorted(row["sha256"] for row in sidecars) == sorted(
        hashlib.sha256(file.content).hexdigest() for file in files
    )
    assert not gateway.spool(".part")
    assert not gateway.troubles()
    checked(gateway)
    return sidecars


def begin_and_lose(gateway: RunningGateway, file: DualCamFile, packets: int) -> None:
    """Deliver so many packets, then lose the link."""
    with HandDualCam(gateway) as camera:
        assert camera.offer_file(file) == 0
        camera.say(c.Sync(1), *file.frames()[:packets])
    gateway.wait_for("file.parked", held=packets * 1024)


def test_photo(tmp_path: Path) -> None:
    """A photo whose size nobody says: the last packet settles it."""
    photo = DualCamFile(content(37 * 1024 + 300))
    with running_gateway(tmp_path) as gateway:
        with HandDualCam(gateway) as camera:
            camera.send_rest(photo, camera.offer_file(photo))
            camera.leave()
        (row,) = stored(gateway, photo)
    assert row["size"] == 37 * 1024 + 300
    assert (row["family"], row["camera"], row["kind"]) == ("dualcam", "front", "photo")
    assert row["device_path"] == "%photof"
    assert Path(row["path"]).name.split("_")[1] == "dualcam-front-photo"
    assert row["metadata"]["captured"] == "2025-11-22T08:26:40.123Z"


def test_video_with_all_that_can_go_wrong(tmp_path: Path) -> None:
    """584 packets with a truncated frame, a repeated RESUME, two SYNCs and a rewind in mid-file: byte-equal."""
    video = DualCamFile(content(583 * 1024 + 77, seed=584), FRONT_VIDEO)
    frames = video.frames()
    with running_gateway(tmp_path, "--data-timeout=1", "--sync-timeout=1") as gateway:
        with HandDualCam(gateway) as camera:
            assert camera.offer_file(video) == 0
            camera.say(c.Start(video.packets, 0))  # a device repeats START until RESUME comes
            assert camera.hear(c.Resume).offset == 0
            camera.say(c.Sync(1), c.Sync(1), *frames[:100])
            camera.say(frames[100][:580], *frames[100:200])
            assert camera.hear(c.Resume).offset == 201  # silence
            assert camera.hear(c.Resume).offset == 201  # more of it
            camera.say(c.Sync(201), *video.frames(201)[:3], c.Sync(201), *video.frames(201)[:50])
            camera.say(c.Sync(150), *video.frames(150))
            camera.hear(c.RepeatInit)
            camera.leave()
        (row,) = stored(gateway, video)
    assert row["size"] == 583 * 1024 + 77
    assert row["path"].endswith(".h265")


def test_resume_on_the_next_connection(tmp_path: Path) -> None:
    """The same photo goes on one packet before what is held, which is compared."""
    photo = DualCamFile(content(20 * 1024 + 5))
    with running_gateway(tmp_path) as gateway:
        begin_and_lose(gateway, photo, 12)
        with HandDualCam(gateway) as camera:
            offset = camera.offer_file(photo)
            assert offset == 12
            camera.send_rest(photo, offset)
            camera.leave()
        (row,) = stored(gateway, photo)
    assert row["connections"] == 2


@pytest.mark.parametrize("what", ["time", "packets", "type", "content"])
def test_the_identifier_names_another_photo(tmp_path: Path, what: str) -> None:
    """Whatever tells that it is another photo than before, not a byte of the two is mixed; both are stored at last."""
    first = DualCamFile(content(20 * 1024 + 5, seed=1))
    other = {
        "time": DualCamFile(content(20 * 1024 + 9, seed=2), time_ms=first.time_ms + 1000),
        "packets": DualCamFile(content(25 * 1024 + 9, seed=2)),
        "type": DualCamFile(content(20 * 1024 + 9, seed=2), REAR_PHOTO),
        "content": DualCamFile(content(20 * 1024 + 9, seed=2)),
    }[what]
    with running_gateway(tmp_path) as gateway:
        begin_and_lose(gateway, first, 12)
        with HandDualCam(gateway) as camera:
            offset = camera.offer_file(other)
            if what == "content":  # all that is said of them is the same: only the bytes can tell
                assert offset == 12
                camera.say(c.Sync(12), *other.frames(12)[:2])
                offset = camera.hear(c.Resume).offset
            assert offset == 0
            camera.send_rest(other, offset)
            offset = camera.offer_file(first)
            assert offset == (0 if what == "content" else 12)
            camera.send_rest(first, offset)
            camera.leave()
        stored(gateway, first, other)


def test_another_photo_found_only_at_the_end(tmp_path: Path) -> None:
    """Even when all its bytes have come before the difference is seen, nothing is acknowledged that was mixed."""
    first, other = DualCamFile(content(20 * 1024 + 5, seed=1)), DualCamFile(content(20 * 1024 + 9, seed=2))
    with running_gateway(tmp_path) as gateway:
        begin_and_lose(gateway, first, 19)
        with HandDualCam(gateway) as camera:
            assert camera.offer_file(other) == 19
            camera.say(c.Sync(19), *other.frames(19))
            assert camera.hear(c.Resume).offset == 0
            camera.send_rest(other, 1)
            camera.leave()
        stored(gateway, other)


def test_without_metadata_a_photo_begins_anew(tmp_path: Path) -> None:
    """Where nothing but the identifier is known, bytes of an earlier connection are not trusted, nor kept."""
    photo = DualCamFile(content(20 * 1024 + 5))
    with running_gateway(tmp_path, "--metadata-timeout=1") as gateway:
        for last in (False, True):
            with HandDualCam(gateway) as camera:
                camera.say(init(int(FRONT_PHOTO) << 24))
                camera.hear(c.MetadataRequest)
                camera.hear(c.FileRequest)
                camera.say(c.Start(photo.packets, 0))
                assert camera.hear(c.Resume).offset == 0
                if last:
                    camera.send_rest(photo, 1)
                    camera.leave()
                else:
                    camera.say(c.Sync(1), *photo.frames()[:12])
        stored(gateway, photo)


def test_a_lost_acknowledgement_makes_no_second_copy(tmp_path: Path) -> None:
    """The same photo offered again is known; the same bytes taken at another time are another file."""
    photo = DualCamFile(content(5 * 1024 + 5))
    twin = DualCamFile(photo.content, time_ms=photo.time_ms + 60_000)
    with running_gateway(tmp_path) as gateway:
        for file in (photo, photo, twin, twin):
            with HandDualCam(gateway) as camera:
                camera.send_rest(file, camera.offer_file(file))
        stored(gateway, photo, twin)
        assert len(gateway.events("file.known")) == 2


def test_a_photo_is_stored_across_a_restart(tmp_path: Path) -> None:
    """What was held when the gateway was killed is compared with what comes after it."""
    photo = DualCamFile(content(700 * 1024 + 5), FRONT_VIDEO)
    with running_gateway(tmp_path, "--checkpoint-bytes=256KiB") as gateway:
        with HandDualCam(gateway) as camera:
            assert camera.offer_file(photo) == 0
            camera.say(c.Sync(1), *photo.frames()[:600])
            (journal,) = eventually("the file's journal", lambda: gateway.spool(".journal"))
            eventually("a checkpoint", lambda: journal.read_bytes().count(b"\n") > 1)  # more than its header
            gateway.kill()
            assert_not_acknowledged(camera.hear_the_end())
        gateway.start()
        with HandDualCam(gateway) as camera:
            offset = camera.offer_file(photo)
            assert 0 < offset <= 600
            camera.send_rest(photo, offset)
            camera.leave()
        stored(gateway, photo)


@pytest.mark.slow
def test_sizes_that_broke_others(tmp_path: Path) -> None:
    """A DSM snapshot of 5,000 bytes and a DualCam video of 9,000 packets: neither is taken for the other."""
    snapshot = Picture(content(5000))
    video = DualCamFile(content(8999 * 1024 + 1), FRONT_VIDEO)
    with running_gateway(tmp_path) as gateway:
        with HandCamera(gateway.port, snapshot) as camera:
            assert camera.deliver() == 0
        with HandDualCam(gateway) as camera:
            camera.send_rest(video, camera.offer_file(video))
            camera.leave()
        sizes = {row["device_path"]: row["size"] for row in gateway.sidecars()}
    assert sizes == {snapshot.path.decode(): 5000, "%videof": 8999 * 1024 + 1}


def test_dsm_and_dualcam_on_one_tracker(tmp_path: Path) -> None:
    """Both deliver on one connection: the path's file first, then what has an identifier."""
    snapshot = Picture(content(5000))
    photo = DualCamFile(content(9 * 1024 + 1))
    both = (int(Offer.FILE) | int(FRONT_PHOTO)) << 24
    with running_gateway(tmp_path) as gateway:
        with HandDualCam(gateway) as camera:
            camera.say(init(both))
            camera.hear(c.PathRequest)
            camera.say(c.Path(snapshot.path + b"\0"))
            camera.hear(c.MetadataRequest)
            camera.say(c.MetadataResponse(b""))
            camera.hear(c.FileRequest)
            camera.say(c.Start(5000, 0))
            assert camera.hear(c.Resume).offset == 0
            camera.say(c.Sync(0), *snapshot.frames())
            camera.hear(c.RepeatInit)
            camera.send_rest(photo, camera.offer_file(photo))
            camera.leave()
        families = {row["device_path"]: row["family"] for row in gateway.sidecars()}
    assert families == {snapshot.path.decode(): "dsm", "%photof": "dualcam"}


def test_only_some_families(tmp_path: Path) -> None:
    """What is not accepted is refused with a line that names the family, and nothing of it is stored."""
    with running_gateway(tmp_path, "--families=dualcam") as gateway:
        with HandCamera(gateway.port, Picture(content(5000))) as camera:
            camera.say(init())
            camera.hear(c.PathRequest)
            camera.say(c.Path(camera.picture.path + b"\0"))
            camera.hear(c.Close)
            camera.hear_the_end()
        row = gateway.wait_for("offer.refused", family="dsm")
        assert row["imei"] == str(IMEI) and row["device_path"] == camera.picture.path.decode()
        photo = DualCamFile(content(9 * 1024 + 1))
        with HandDualCam(gateway) as dual:
            dual.send_rest(photo, dual.offer_file(photo))
            dual.leave()
        stored(gateway, photo)
