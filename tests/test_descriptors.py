"""Open files: the daemon and the simulator take all that they may have, and say when that is not enough."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from running import DSMGATEWAY, environment, running_gateway

from dsmgateway.descriptors import raise_descriptor_limit


def limited(soft: int, hard: int) -> tuple[str, ...]:
    """What to put before a command so that it may have only so many open files."""
    return "sh", "-c", f'ulimit -Sn {soft} && ulimit -Hn {hard} && exec "$@"', "sh"


def test_the_gateway_takes_all_the_open_files_that_it_may_have_and_says_nothing(tmp_path: Path) -> None:
    with running_gateway(tmp_path, prefix=limited(256, 5000)) as gateway:
        lines = Path(f"/proc/{gateway.pid}/limits").read_text().splitlines()
        (limits,) = (line.split()[3:5] for line in lines if line.startswith("Max open files"))
        assert limits == ["5000", "5000"]
        assert gateway.events("limit.low") == []


def test_the_gateway_says_for_how_many_cameras_it_has_open_files_when_these_are_few(tmp_path: Path) -> None:
    with running_gateway(tmp_path, prefix=limited(256, 1000)) as gateway:
        (row,) = gateway.events("limit.low")
        assert (row["level"], row["limit"], row["cameras"]) == ("warn", 1000, 468)


def test_the_simulator_refuses_more_cameras_than_it_may_have_open_files_for() -> None:
    command = [*limited(64, 300), *DSMGATEWAY, "simulate", "--to", "h:1", "--cameras", "200"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 2
    assert "200 cameras need 464 open files, the limit is 300 (ulimit -n)" in done.stdout + done.stderr


def test_a_system_that_does_not_grant_its_hard_limit_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_no_limit_is_more_than_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_descriptor_limit() == sys.maxsize
