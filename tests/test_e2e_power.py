"""Power cuts under load: a real gateway on a real ext4 that is stopped at random moments."""

from __future__ import annotations

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
from account import Account
from power import PoweredDisk, powered_disk
from running import RunningGateway, Simulation, assert_stored_exactly_once, checked, eventually, simulated
from soak import times

from dsmgateway.store.check import State, check

CAMERAS = 24
#: Cuts of one run of the cameras, on one file system.
CUTS = 10
#: What the log may tell of while the disk is away.
DISK_IS_AWAY = frozenset({"store.failed", "store.failing", "store.slow"})
#: A worker process may end of it, too: where ext4 has its data in the journal it cannot let SQLite write to the memory
#: that its processes share as a file; and the one that follows finds no index to open.
WORKER_ENDS = frozenset({"worker.said", "worker.ended"})


def _write(path: Path, content: bytes, *, sync: bool) -> None:
    with path.open("wb") as file:
        file.write(content)
        if sync:
            file.flush()
            os.fsync(file.fileno())


@pytest.mark.slow
@pytest.mark.parametrize("options", ["data=ordered", "data=writeback"])
def test_a_cut_takes_what_was_not_synced_and_nothing_else(tmp_path: Path, options: str) -> None:
    """What the test below stands on: this is a power cut, and no orderly end."""
    with powered_disk(tmp_path, options) as disk:
        _write(disk.folder / "synced", b"x" * 5000, sync=True)
        _write(disk.folder / "not-synced", b"y" * 5000, sync=False)
        disk.cut()
        with pytest.raises(OSError, match="Input/output error"):
            _write(disk.folder / "synced", b"too late", sync=True)
        disk.power_on()
        assert (disk.folder / "synced").read_bytes() == b"x" * 5000
        assert not (disk.folder / "not-synced").exists()
    assert not os.path.ismount(disk.folder)


def _cut(disk: PoweredDisk, gateway: RunningGateway, chance: random.Random) -> None:
    """Cut the power; the gateway goes at the same moment, or has to live without its disk for a while."""
    disk.cut(log_is_lost=chance.random() < 0.75)
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0.1, 0.8))
    assert gateway.process is not None and gateway.process.poll() is None
    gateway.kill()
    disk.power_on()


def _assert_ended_of_it(gateway: RunningGateway, since: int) -> None:
    """Worker processes that ended by themselves did so because the disk was away."""
    reasons = [row["reason"] for row in gateway.events("worker.ended", since)]
    others = [one for one in reasons if one != "killed by SIGBUS" and not one.startswith(f"open {gateway.data}/index.")]
    assert not others, others
    said = [row["text"] for row in gateway.events("worker.said", since)]
    assert not said or "Fatal Python error: Bus error" in said, said


def _assert_readable(gateway: RunningGateway) -> None:
    """Every file in the tree is whole and every part can go on, or begin anew: `check` has no complaint."""
    found = [row for row in check(gateway.data) if not row.state.is_good and row.state is not State.SET_ASIDE]
    assert not found, found


def _run_of_cuts(disk: PoweredDisk, gateway: RunningGateway, cuts: int, seed: int) -> Account:
    """Cameras of all families deliver, through these cuts; afterwards every file is there, once."""
    chance, account = random.Random(seed), Account(gateway)
    worker_ends = WORKER_ENDS if "--workers=1" not in gateway.command else frozenset()
    options = f"--cameras={CAMERAS} --files={3 * cuts} --mix --size=10k-60k --rate=60k --cut-every=100 --corrupt=0.002"
    more = f"--truncate=0.002 --swap=0.3 --reconnect-delay=0.1 --attempts=100000 --seed={seed}"
    gateway.start()
    with Simulation(gateway, *options.split(), *more.split()) as simulation:
        for _ in range(cuts):
            since = gateway.log_end
            eventually(
                "files are under way", lambda since=since: len(gateway.events("file.opened", since)) >= CAMERAS // 2
            )
            time.sleep(chance.uniform(0.1, 2.0))
            assert simulation.runs, "the cameras were done before the last cut"
            _cut(disk, gateway, chance)
            account.take(troubles=DISK_IS_AWAY | worker_ends)
            _assert_ended_of_it(gateway, since)
            _assert_readable(gateway)
            gateway.start()
        report = simulation.report()
    account.close()
    assert_stored_exactly_once(gateway, report)
    assert not gateway.troubles(account.log_ends[-1])
    assert gateway.stop() == 0
    return account


@pytest.mark.slow
def test_a_gateway_of_one_process_lives_on_without_its_disk(tmp_path: Path) -> None:
    """Also on an ext4 that ends who writes to memory that is one of its files: there is no such memory."""
    with powered_disk(tmp_path, "data=journal") as disk:
        gateway = RunningGateway(tmp_path, "--workers=1", "--min-free=1", data=disk.folder / "data").start()
        try:
            simulated(gateway, "--cameras=12", "--files=2", "--size=10k", "--reconnect-delay=0.1", "--seed=0")
            subprocess.run(["sync", "-f", str(disk.folder)], check=True)
            disk.cut()
            with Simulation(gateway, "--cameras=12", "--files=2", "--size=10k", "--attempts=1000", "--seed=100"):
                eventually("the gateway knows of it", lambda: gateway.events("store.failing"))
                time.sleep(2)
            assert gateway.process is not None and gateway.process.poll() is None
        finally:
            gateway.kill()


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize(("workers", "least_cuts"), [(1, 5), (2, 3)], ids=["one-process", "two-workers"])
def test_no_acknowledged_file_is_lost_in_a_power_cut(tmp_path: Path, workers: int, least_cuts: int) -> None:
    """After every cut what was acknowledged is there and whole, and the cameras deliver the rest, once.

    Also where several processes write to the disk that goes away under all of them at once.
    """
    cuts = times(least_cuts, 60)
    begun_s, accounts, recovered = time.monotonic(), [], 0
    for number, first in enumerate(range(0, cuts, CUTS)):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        with powered_disk(scratch, ("data=ordered", "data=writeback", "data=journal")[number % 3]) as disk:
            options = (f"--workers={workers}", "--checkpoint-interval=0.3", "--min-free=1")
            gateway = RunningGateway(scratch, *options, data=disk.folder / "data")
            try:
                accounts.append(_run_of_cuts(disk, gateway, min(CUTS, cuts - first), seed=number))
                checked(gateway)
            finally:
                gateway.kill()
            recovered += sum(row["rolled_forward"] + row["rolled_back"] for row in gateway.events("store.recovered"))
    acknowledged = sum(len(account.acknowledged) for account in accounts)
    stored = sum(len(account.gateway.events("file.stored")) for account in accounts)
    print(
        f"\n{cuts} cuts, workers = {workers}: {acknowledged} acknowledged files, 0 lost;"
        f" {sum(row.unfinished for row in accounts)} parts looked at, {sum(row.resumed for row in accounts)} gone on"
        f" with at their checkpoint; {recovered} finishes cut off; {stored} files stored in all;"
        f" {time.monotonic() - begun_s:.0f} s"
    )
    assert acknowledged > cuts
