"""The demo: a real gateway, five cameras with three pictures each on bad links, and a look at what was stored.

``python -m dsmgateway.simulator.demo [--keep DIR]``. Gateway and cameras are processes of their own; this one only
compares files. Ends with 0 when every picture is there once, whole, and the gateway stopped as it should.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from dsmgateway.errors import GatewayError
from dsmgateway.simulator.pictures import draw_picture

_CAMERAS = 5
_PICTURES = 3
_FAULTS = "--cut-every 60 --truncate 0.02 --corrupt 0.01 --rate 60k --reconnect-delay 0.3 --seed 1 --timeout 300"
_START_S = 20.0
_STOP_S = 20.0
#: The folder that holds the package, so that the demo also runs from a checkout that is not installed.
_HOME = Path(__file__).resolve().parents[2]


class DemoError(GatewayError):
    """The demo cannot go on."""


def draw_pictures(folder: Path) -> list[Path]:
    """Draw the pictures of all cameras into ``folder``, in the order in which cameras take them."""
    folder.mkdir(parents=True)
    paths = []
    for camera in range(1, _CAMERAS + 1):
        for picture in range(1, _PICTURES + 1):
            lines = [f"Camera {camera}", f"Picture {picture} of {_PICTURES}"]
            paths.append(folder / f"cam{camera}-pic{picture}.jpg")
            paths[-1].write_bytes(draw_picture(lines, 100 * camera + picture))
    return paths


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _environment() -> dict[str, str]:
    path = [str(_HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}


@contextlib.contextmanager
def gateway(port: int, data: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a gateway that listens on ``port``, from when it does so; killed at the end if it is still there."""
    options = ["--port", f"tcp:{port}:interface=127.0.0.1", "--data", str(data)]
    command = [sys.executable, "-m", "twisted", "dsmgateway", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=log.parent, env=_environment(), stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_for(process, port, log)
        yield process
    finally:
        process.kill()
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise DemoError(f"the gateway does not listen; its log {log} ends with:\n{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    return "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])


def stop(process: subprocess.Popen[bytes]) -> int:
    """Ask the gateway to stop; return its exit code, or -9 where it took too long."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def simulate(port: int, pictures: list[Path], result: Path) -> list[dict[str, Any]]:
    """Run the cameras as a command of their own; return a row for each file."""
    options = ["--to", f"127.0.0.1:{port}", "--cameras", str(_CAMERAS), "--files", str(_PICTURES)]
    for picture in pictures:
        options += ["--picture", str(picture)]
    command = [sys.executable, "-m", "dsmgateway.cli", "simulate", *options, *_FAULTS.split(), "--json", str(result)]
    subprocess.run(command, env=_environment(), check=False)
    if not result.exists():
        raise DemoError("the simulated cameras did not finish")
    rows: list[dict[str, Any]] = json.loads(result.read_text("utf-8"))["files"]
    return rows


@dataclass(frozen=True, slots=True)
class Compared:
    """One picture: what the camera had, what the gateway has (a path or nothing), and how they compare."""

    row: dict[str, Any]
    stored: Path | None
    verdict: str

    @property
    def is_good(self) -> bool:
        """Whether the stored file is the original, once, and an image."""
        return self.verdict == "same"


def stored_files(data: Path) -> dict[tuple[str, str], list[Path]]:
    """Return the files stored under ``data``, by IMEI and path on the device, as their sidecars tell."""
    found: dict[tuple[str, str], list[Path]] = {}
    for sidecar in sorted((data / "media").rglob("*.json")):
        about = json.loads(sidecar.read_text("utf-8"))
        media = [path for path in sidecar.parent.glob(f"{sidecar.stem}.*") if path != sidecar]
        found.setdefault((about["imei"], about["device_path"]), []).extend(media)
    return found


def compare(row: dict[str, Any], stored: list[Path], original: Path) -> Compared:
    """Compare what was stored of one file with its original, byte for byte, and decode it."""
    if not stored:
        return Compared(row, None, "missing")
    if len(stored) > 1:
        return Compared(row, stored[0], f"stored {len(stored)} times")
    if stored[0].read_bytes() != original.read_bytes():
        return Compared(row, stored[0], "differs")
    return Compared(row, stored[0], "same" if _is_image(stored[0]) else "no image")


def _is_image(path: Path) -> bool:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, UnidentifiedImageError):
        return False
    return True


def table(compared: list[Compared]) -> Table:
    """Return the table of stored files."""
    result = Table(title="Stored by the gateway", box=SIMPLE, pad_edge=False)
    result.add_column("picture")
    result.add_column("stored as", no_wrap=True, min_width=39)
    for heading in ("bytes", "links"):
        result.add_column(heading, justify="right")
    result.add_column("compared")
    for one in compared:
        row, colour = one.row, "green" if one.is_good else "red"
        name = one.stored.name if one.stored else "-"
        figures = [str(row[key]) for key in ("size", "connections")]
        result.add_row(row["source"].removesuffix(".jpg"), name, *figures, f"[{colour}]{one.verdict}[/]")
    return result


def run(folder: Path, console: Console) -> bool:
    """Run the demo in ``folder``; return whether all went well."""
    console.print(f"Drawing {_CAMERAS * _PICTURES} pictures ...")
    pictures = draw_pictures(folder / "originals")
    port, data, log = free_port(), folder / "data", folder / "gateway.log"
    with gateway(port, data, log) as process:
        console.print(f"Gateway on port {port}; {_CAMERAS} cameras on links with faults: {_FAULTS}", soft_wrap=True)
        rows = simulate(port, pictures, folder / "cameras.json")
        exit_code = stop(process)
    stored = stored_files(data)
    originals = {picture.name: picture for picture in pictures}
    compared = [
        compare(row, stored.pop((row["imei"], row["device_path"]), []), originals[row["source"]]) for row in rows
    ]
    console.print(table(compared))
    good = sum(one.is_good for one in compared)
    console.print(f"{good} of {len(compared)} pictures are stored, identical and readable.")
    if stored:
        console.print(f"[red]{len(stored)} files were stored that no camera had.[/]")
    if exit_code:
        console.print(f"[red]The gateway ended with {exit_code}; its log ends with:[/]\n{_last_lines(log)}")
    return good == len(compared) == _CAMERAS * _PICTURES and not stored and exit_code == 0


@click.command()
@click.option("--keep", type=click.Path(path_type=Path), help="Work in this new folder and leave everything there.")
def main(keep: Path | None) -> None:
    """Show a gateway at work: pictures from cameras on bad links, compared with the originals."""
    console = Console()
    if keep and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise click.ClickException(f"{keep} is there already, and not empty")
    with contextlib.ExitStack() as stack:
        folder = (keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dsm-demo-")))).resolve()
        try:
            good = run(folder, console)
        except GatewayError as error:
            raise click.ClickException(str(error)) from error
        where = f"They are in {folder / 'data' / 'media'}" if keep else "--keep DIR keeps them, with the gateway's log"
        console.print(f"{where}.", soft_wrap=True, highlight=False)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
