"""A gateway on a machine whose time of day is set anew while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from conftest import content
from hand_camera import HandCamera, Picture
from running import running_gateway

from dsmgateway import commands as c

#: Loaded by every interpreter that finds it: adds what stands in a file to the time of day.
_SITECUSTOMIZE = """
import pathlib, time
_real = time.time
def _set():
    try:
        return _real() + float(pathlib.Path({path!r}).read_text())
    except (OSError, ValueError):
        return _real()
time.time = _set
"""


@pytest.mark.parametrize(("workers", "step_s"), [(1, -7200), (1, 7200), (2, -7200)])
def test_time_limits_hold_when_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, step_s: int
) -> None:
    """A camera that is sending does not notice, and one that is silent has its time, no more and no less."""
    step = tmp_path / "step"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(path=str(step)))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}")
    picture = Picture(content(5000))
    with (
        running_gateway(tmp_path, f"--workers={workers}", "--init-timeout=3") as gateway,
        HandCamera(gateway.port, picture) as camera,
        HandCamera(gateway.port, picture) as silent,
    ):
        offset_bytes = camera.begin()
        step.write_text(str(step_s))
        assert silent.hear_the_end() == b""
        camera.say(*picture.frames(offset_bytes))
        camera.hear(c.RepeatInit)
        assert [row["state"] for row in gateway.events("session.silent")] == ["await_init"]
        assert not gateway.troubles()
