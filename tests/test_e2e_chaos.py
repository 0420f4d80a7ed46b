"""Cameras of all families behind a proxy that does everything to their connections that networks do (`chaos`)."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from account import Account
from chaos import ChaosProxy, Fault
from running import Row, assert_stored_exactly_once, checked, eventually, running_gateway, simulated
from soak import times

FILES = 2
#: So short that long stalls outlast them.
TIME_LIMITS = (
    "--init-timeout=2s",
    "--answer-timeout=2s",
    "--metadata-timeout=1s",
    "--sync-timeout=1s",
    "--data-timeout=1s",
    "--resume-tries=2",
)
#: One seed alone, to look at one that failed.
ONLY_SEED = os.environ.get("DSMGATEWAY_CHAOS_SEED")


@contextmanager
def told_with(seed: int, cameras: int) -> Iterator[None]:
    """Say with a failure what it takes to have it again."""
    try:
        yield
    except AssertionError as error:
        raise AssertionError(f"{cameras} cameras, DSMGATEWAY_CHAOS_SEED={seed}: {error}") from error


def chaos(folder: Path, seed: int, cameras: int) -> tuple[Row, Row]:
    """Let cameras deliver through the proxy until all is acknowledged; return what they and the proxy did."""
    options = (
        f"--cameras={cameras} --files={FILES} --mix --size=4k-16k --swap=0.3 --rewind=0.02 --seed={seed} --patience=2.5"
        " --reconnect-delay=0.1 --attempts=100000"
    )
    with running_gateway(folder, "--checkpoint-interval=0.2", *TIME_LIMITS) as gateway:
        before, account = gateway.descriptors, Account(gateway)
        with ChaosProxy(folder, gateway.port, seed) as proxy:
            report = simulated(gateway, f"--to=127.0.0.1:{proxy.port}", *options.split(), within_s=300)
            done = proxy.report()
        assert report["summary"]["acknowledged"] == FILES * cameras == len(report["files"])
        eventually("the gateway closes what it opened", lambda: gateway.descriptors <= before + 2)
        account.take()
        assert_stored_exactly_once(gateway, report)
        assert gateway.stop() == 0
        checked(gateway)
    assert done["devices"] == cameras
    assert done["too_old"] == 0
    done["takeovers"] = len(gateway.events("device.taken_over"))
    return report, done


def rounds(tmp_path: Path, cameras: int, seeds: range) -> None:
    """Do so for each seed; every kind of fault has come to pass in each."""
    begun_s, plain, total = time.monotonic(), Counter[str](), Counter[str]()
    for seed in [int(ONLY_SEED)] if ONLY_SEED else seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        with told_with(seed, cameras):
            report, done = chaos(folder, seed, cameras)
            never = {fault.value for fault in Fault} - {kind for kind, count in done["faults"].items() if count}
            assert not never, f"faults that never came to pass: {sorted(never)}"
        total += Counter(done["faults"])
        plain += Counter({"rounds": 1, "files": len(report["files"]), "connections": done["connections"]})
        plain += Counter({"takeovers": done["takeovers"]})
    about = ", ".join(f"{number:,} {name}" for name, number in plain.items())
    faults = ", ".join(f"{name}: {number:,}" for name, number in total.items())
    print(f"\n{cameras} cameras, {about}, 0 lost, 0 twice; {faults}; {time.monotonic() - begun_s:.0f} s")


def test_forty_cameras(tmp_path: Path) -> None:
    rounds(tmp_path, 40, range(1))


@pytest.mark.slow
@pytest.mark.soak
def test_two_hundred_cameras(tmp_path: Path) -> None:
    rounds(tmp_path, 200, range(1, times(1, 10) + 1))
