"""Hostile clients of all kinds around honest cameras: these get through, and afterwards the gateway is as before."""

from __future__ import annotations

import statistics
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from besieged import Cameras, Comparison, besieging, compare
from hostile import FIRST_NUMBER, KINDS, paths
from running import Row, RunningGateway, checked, eventually, running_gateway
from soak import SOAK, times

from dsmgateway.crowd import BURST_S
from dsmgateway.quiet import LINES_PER_S, SAY_EVERY_S
from dsmgateway.simulator.identity import imei_of

#: The long form: connections, cameras, connections a second at most, seconds before what speaks does so.
CLIENTS, CAMERAS, RATE, BIDE_S = 2000, 100, 500, (5.0, 9.0)
#: How much longer the honest may take, and how much more memory be held than after the warm-up.
MORE_TIME, MORE_MEMORY = 0.25, 0.10
#: How much more than before any crowd: the first one leaves arenas of Python's behind that have become half empty.
MORE_MEMORY_IN_ALL = 0.20
#: Bytes of the log for a hostile connection at most, over all kinds: some say who they are, and have all their lines.
LOG_BYTES = 450
#: What the log says of each kind that never says who it is: event, and how its reason ends.
SAID = {
    "TLS": ("peer.error", "(TLS)"),
    "HTTP": ("peer.error", "(HTTP)"),
    "RDP": ("peer.error", "(RDP)"),
    "0009": ("peer.error", "(REPEAT_INIT)"),
    "garbage": ("peer.error", ""),
    "silence": ("device.disconnected", "silence"),
}
#: The first digits of every hostile device.
HOSTILE = imei_of(FIRST_NUMBER)[:9]


def is_hostile(row: Row) -> bool:
    return bool(row.get("imei", "").startswith(HOSTILE))


def assert_the_log_is_clear(gateway: RunningGateway, since: int) -> None:
    """A line for each kind, few of those that have no end, and nothing that a terminal would obey."""
    rows = gateway.rows(since)
    assert not gateway.troubles()
    for what, (event, end) in SAID.items():
        lines = [row for row in rows if row["event"] == event and row.get("reason", "").endswith(end)]
        assert [row for row in lines if "imei" not in row], f"no line about {what}"
    assert any(row["event"] == "session.silent" for row in rows)
    assert any("4294967295" in row["reason"] for row in rows if row["event"] == "file.refused" and is_hostile(row))
    shown = {row["device_path"] for row in rows if row["event"] == "file.stored" and is_hostile(row)}
    assert len(shown) == len(paths(gateway.folder / "outside")), shown
    nameless = [row for row in rows if "imei" not in row]
    seconds = (datetime.fromisoformat(rows[-1]["time"]) - datetime.fromisoformat(rows[0]["time"])).total_seconds()
    for process, lines in Counter(row.get("worker") for row in nameless).items():
        assert lines < LINES_PER_S * (seconds + BURST_S), process
    assert any(row.get("suppressed") for row in nameless) or seconds < SAY_EVERY_S
    raw = gateway.log_path.read_bytes()[since:]
    assert not set(raw) - set(range(0x20, 0x7F)) - {0x0A}, "the log has control characters, or what is not ASCII"


def assert_nothing_is_elsewhere(gateway: RunningGateway) -> None:
    """Everything that was written is in the data folder, the folder of tests has only what tests put there."""
    assert list((gateway.folder / "outside").iterdir()) == []
    strange = {path.name.split("-")[0] for path in gateway.folder.iterdir()}
    assert strange <= {"data", "gateway.log", "outside", "hostile", "simulation"}, strange
    assert {path.name for path in gateway.data.iterdir()} >= {"media", "spool"}
    for path in (gateway.data / "media").rglob("*"):
        assert path.name.isascii() and path.name.isprintable() and len(path.name) < 128, path


def assert_all_is_stored_once(gateway: RunningGateway, cameras: Cameras) -> None:
    """What honest cameras sent, once, and of hostile devices one file each at most."""
    keys = ("imei", "sha256", "device_path", "size")
    sidecars = gateway.sidecars()
    honest = sorted(tuple(row[key] for key in keys) for row in sidecars if not is_hostile(row))
    assert honest == sorted(tuple(row[key] for key in keys) for row in cameras.files)
    others = Counter(row["imei"] for row in sidecars if is_hostile(row))
    assert others and set(others.values()) == {1}
    assert len(gateway.media()) == len(sidecars)


def test_honest_cameras_get_through_a_crowd(tmp_path: Path) -> None:
    """The short form: 200 and 20; nothing is timed."""
    with running_gateway(tmp_path, "--init-timeout=2") as gateway:
        cameras = Cameras(gateway, 20, ["--files=2", "--size=10k"])
        cameras.upload()
        descriptors, since = gateway.descriptors, gateway.log_end
        with besieging(gateway, 200, 300, (0.2, 1.0)) as crowd:
            cameras.upload()
            # Both lines have a ration, so one may come much later than the other.
            gateway.wait_for("device.disconnected", since, reason="silence")
            gateway.wait_for("session.silent", since)
            done = crowd.report()
        eventually("it has closed what it opened", lambda: gateway.descriptors == descriptors)
        assert set(done["made_of"]) == {kind.kind for kind in KINDS} and not done["failed"]
        assert gateway.log_end - since < LOG_BYTES * done["made"] + 100_000
        assert_the_log_is_clear(gateway, since)
        assert_nothing_is_elsewhere(gateway)
        assert_all_is_stored_once(gateway, cameras)
        assert gateway.stop() == 0
        checked(gateway)


@pytest.mark.slow
@pytest.mark.soak
def test_honest_cameras_hardly_notice_a_crowd_of_two_thousand(tmp_path: Path) -> None:
    """Files take less than a quarter longer, and afterwards all is as it was after a first crowd.

    What it takes is the median of several rounds, and asked for in the long form only: other work on the machine can
    make more of a difference than the crowd does.
    """
    with running_gateway(tmp_path) as gateway:
        since = gateway.log_end
        cameras = Cameras(gateway, CAMERAS, ["--files=3", "--size=40k", "--rate=20k"])
        cameras.upload()
        cameras.upload()
        untouched_kib = gateway.memory_kib()
        with besieging(gateway, CLIENTS, RATE, BIDE_S):
            cameras.upload()
        descriptors, memory_kib = gateway.descriptors, gateway.memory_kib()
        rounds: list[Comparison] = []
        for _ in range(times(1, 5)):
            rounds.append(compare(cameras, CLIENTS, RATE, BIDE_S))
            held_kib = gateway.memory_kib()
            print(f"\n{rounds[-1]}\nmemory {memory_kib} KiB after the warm-up, {held_kib} now", flush=True)
        growth = {name: statistics.median(one.growth[name] for one in rounds) for name in rounds[0].growth}
        made, log_bytes = sum(one.made for one in rounds), sum(one.log_bytes for one in rounds)
        print(
            f"{len(rounds)} rounds: {', '.join(f'{name} {share:+.1%}' for name, share in growth.items())};"
            f" memory {held_kib / memory_kib - 1:+.1%} since the first crowd,"
            f" {memory_kib / untouched_kib - 1:+.1%} by that one,"
            f" {made} hostile connections,"
            f" {log_bytes / made:.0f} bytes of log for each, with the cameras' own lines"
        )
        eventually("it has closed what it opened", lambda: gateway.descriptors == descriptors)
        assert log_bytes < LOG_BYTES * made + len(rounds) * 3 * CAMERAS * 2000
        assert_the_log_is_clear(gateway, since)
        assert_nothing_is_elsewhere(gateway)
        assert_all_is_stored_once(gateway, cameras)
        assert held_kib < memory_kib * (1 + MORE_MEMORY)
        assert held_kib < untouched_kib * (1 + MORE_MEMORY_IN_ALL)
        assert not SOAK or all(share < MORE_TIME for share in growth.values()), growth
