"""Both ways to install, each in an environment of its own: the twistd plugin is there, from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from running import environment

from dsmgateway import __version__

ROOT = Path(__file__).parent.parent


def test_there_is_no_package_of_our_own_in_twisteds_place() -> None:
    assert not list((ROOT / "twisted").rglob("__init__.py"))


def test_the_plugin_is_a_few_lines() -> None:
    lines = (ROOT / "twisted" / "plugins" / "dsmgateway_plugin.py").read_text().splitlines()
    assert len([line for line in lines if line]) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("style", [[], ["--editable"]], ids=["regular", "editable"])
def test_an_installed_gateway_is_a_twistd_command_and_a_command(style: list[str], tmp_path: Path) -> None:
    source, elsewhere, home = tmp_path / "source", tmp_path / "elsewhere", tmp_path / "venv"
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    for name in ("dsmgateway", "twisted"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    elsewhere.mkdir()
    venv.create(home, with_pip=True)

    def run(*command: str) -> str:
        clean = environment(PATH=f"{home / 'bin'}:{os.defpath}")
        clean.pop("PYTHONPATH", None)
        done = subprocess.run(
            [str(home / "bin" / command[0]), *command[1:]],
            cwd=elsewhere,
            env=clean,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    run("python", "-m", "pip", "install", "--quiet", *style, str(source))
    assert "--init-timeout=" in run("twistd", "dsmgateway", "--help")
    assert run("twistd", "dsmgateway", "--version") == f"dsmgateway {__version__}\n"
    assert "dsmgateway" in run("twistd", "--help")
    assert "web" in run("twistd", "--help")
    assert run("dsmgateway", "--help")
    assert run("python", "-c", "import dsmgateway.store, dsmgateway.simulator; print('there')") == "there\n"
    _lives_as_a_daemon(home / "bin", elsewhere)


def _lives_as_a_daemon(folder: Path, elsewhere: Path) -> None:
    """Start, stop, daemon, wrong settings, busy port: all of tests/test_daemon.py with this twistd."""
    tests = ROOT / "tests" / "test_daemon.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(ROOT / "setup.cfg"),
        "-p",
        "no:cacheprovider",
        str(tests),
    ]
    clean = environment(TWISTD_FOLDER=str(folder))
    done = subprocess.run(command, cwd=elsewhere, env=clean, capture_output=True, text=True, timeout=600)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
