"""Many cameras on bad links at once: everything stored, once, whole, and hardly anything received twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import METADATA
from running import Row, RunningGateway, assert_stored_exactly_once, checked, eventually, running_gateway, simulated

from dsmgateway.commands import PACKET_BYTES

#: Bytes of a DATA frame beside the file data.
FRAME_BYTES = 6
#: What a cut may cost beside the packet that was in flight.
ALLOWED_AGAIN_BYTES = 2048
#: Far above what these fleets need (some 60 MiB), far below what holding their files in memory would take.
ALLOWED_MEMORY_KIB = 200 * 1024

FLEETS = [
    pytest.param(40, id="40-cameras"),
    pytest.param(300, id="300-cameras", marks=pytest.mark.slow),
]


def fleet(gateway: RunningGateway, cameras: int, *options: str) -> Row:
    """Run cameras with three files each until all is acknowledged; look at what that leaves behind."""
    before = gateway.descriptors
    report = simulated(gateway, f"--cameras={cameras}", "--files=3", "--reconnect-delay=0.2", *options, within_s=240)
    assert report["summary"]["acknowledged"] == 3 * cameras
    assert_stored_exactly_once(gateway, report)
    assert not gateway.troubles()
    # The index keeps one more file open once it was written to.
    eventually("the gateway closes what it opened", lambda: gateway.descriptors <= before + 2)
    peak_kib, now_kib = gateway.memory_kib("VmHWM"), gateway.memory_kib()
    print(
        f"\ngateway with {cameras} cameras: {peak_kib} KiB at most, {now_kib} KiB after, {before} descriptors before,"
        f" {gateway.descriptors} after; {report['summary']['seconds']} s"
    )
    assert peak_kib < ALLOWED_MEMORY_KIB
    assert not gateway.spool(".part") and not gateway.spool(".sidecar") and not gateway.spool(".journal")
    assert gateway.stop() == 0
    checked(gateway)
    return report


@pytest.mark.parametrize("cameras", FLEETS)
def test_cut_corrupt_and_truncated(tmp_path: Path, cameras: int) -> None:
    """Cameras whose links cut, corrupt and truncate deliver every file exactly once, SHA-256 equal."""
    with running_gateway(tmp_path) as gateway:
        report = fleet(gateway, cameras, "--cut-every=60", "--corrupt=0.01", "--truncate=0.01", "--seed=1")
    assert {"cut", "corrupt", "truncate"} <= {kind for kind, count in report["summary"]["faults"].items() if count}


@pytest.mark.parametrize("cameras", FLEETS)
def test_silent_cuts_rewinds_and_stalls(tmp_path: Path, cameras: int) -> None:
    """The same where old sockets go on delivering beside the new connection, devices rewind, and links stall."""
    options = ["--silent-cut", "--cut-every=60", "--rewind=0.2", "--stall=0.3", "--corrupt=0.005", "--seed=2"]
    with running_gateway(tmp_path) as gateway:
        report = fleet(gateway, cameras, *options)
    assert {"cut", "rewind", "stall"} <= {kind for kind, count in report["summary"]["faults"].items() if count}
    assert gateway.events("device.taken_over")


@dataclass
class Connection:
    """What the log tells of one connection: every file on it from where to where, and all bytes that came."""

    received_bytes: int = 0
    inits: int = 0
    #: Device path, first and last byte taken of it.
    stretches: list[tuple[str, int, int]] = field(default_factory=list)
    parked: bool = False

    @property
    def needed_bytes(self) -> int:
        """What a device has to send to bring just these stretches."""
        return 16 * self.inits + sum(_stretch_bytes(*stretch) for stretch in self.stretches)


def _stretch_bytes(path: str, begin: int, end: int) -> int:
    """PATH with its NUL, METADATA, START, SYNC, and the frames."""
    frames = -(-(end - begin) // PACKET_BYTES)
    return (4 + len(path) + 1) + (4 + len(METADATA)) + 10 + 8 + (end - begin) + FRAME_BYTES * frames


def connections_of(rows: list[Row]) -> list[tuple[str, Connection]]:
    """The device and what is told of each connection of the log, in order of their beginning."""
    found: list[tuple[str, Connection]] = []
    #: By device and peer: a port may come again after its connection has ended.
    current: dict[tuple[str, str], Connection] = {}
    for row in rows:
        if "imei" not in row:
            continue
        if row["event"] == "device.connected":
            current[row["imei"], row["peer"]] = Connection(inits=1)
            found.append((row["imei"], current[row["imei"], row["peer"]]))
            continue
        connection = current[row["imei"], row["peer"]]
        match row["event"]:
            case "device.offers":
                connection.inits += 1
            case "file.opened":
                connection.stretches.append((row["device_path"], row["offset"], row["offset"]))
            case "file.stored" | "file.known" | "file.parked":
                path, begin, _ = connection.stretches.pop()
                assert path == row["device_path"]
                connection.stretches.append((path, begin, row.get("held", row.get("size"))))
                connection.parked |= row["event"] == "file.parked"
            case "device.disconnected":
                connection.received_bytes = row["received"]
                # The INIT after the last file, which offers nothing, has no line of its own.
                connection.inits += row["reason"] == "nothing to send" and bool(connection.stretches)
    return found


def received_again(rows: list[Row]) -> tuple[list[int], list[int]]:
    """For each cut: bytes that came and were not kept, and bytes that were kept and asked for again all the same."""
    connections = connections_of(rows)
    unkept = [one.received_bytes - one.needed_bytes for _, one in connections if one.parked]
    whole = [one.received_bytes - one.needed_bytes for _, one in connections if not one.parked]
    assert set(whole) == {0}, "the accounting is wrong where nothing was cut"
    held: dict[tuple[str, str], int] = {}
    again = []
    for imei, connection in connections:
        for path, begin, end in connection.stretches:
            if (imei, path) in held:
                again.append(held[imei, path] - begin)
            held[imei, path] = end
    return unkept, again


@pytest.mark.parametrize("cameras", FLEETS)
def test_bytes_received_again_after_a_cut(tmp_path: Path, cameras: int) -> None:
    """A cut link costs the packet in flight and under 2 KB more, by the gateway's own account and the camera's."""
    with running_gateway(tmp_path) as gateway:
        report = fleet(gateway, cameras, "--cut-every=40", "--rate=60k", "--start-crc=never", "--seed=3")
    cuts = report["summary"]["faults"]["cut"]
    unkept, again = received_again(gateway.rows())
    assert len(unkept) == len(again) == cuts > cameras
    told_twice = sum(row["bytes_received_twice"] for row in gateway.sidecars())
    sent_again = report["summary"]["bytes_sent_again"]
    print(
        f"{cuts} cuts: of the packet in flight {sum(unkept) / cuts:.0f} bytes came in vain a cut ({max(unkept)} at"
        f" most), beyond it {sum(again) / cuts:.0f} bytes came twice ({max(again)} at most; sidecars:"
        f" {told_twice / cuts:.0f}); the cameras sent {sent_again / cuts:.0f} bytes again a cut"
    )
    assert max(unkept) < PACKET_BYTES + FRAME_BYTES, "more than the packet in flight was received and thrown away"
    assert max(again) < ALLOWED_AGAIN_BYTES
    assert told_twice < ALLOWED_AGAIN_BYTES * cuts
    assert sent_again < (PACKET_BYTES + ALLOWED_AGAIN_BYTES) * cuts
