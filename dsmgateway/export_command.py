"""The command ``dsmgateway export``: a stored video in, a copy that players can show out.

Finds out where from, where to and how fast; what is in the file is `dsmgateway.h265`, the work is done by
`dsmgateway.ffmpeg`. What is stored is never touched.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from dsmgateway import ffmpeg
from dsmgateway.escape import one_line
from dsmgateway.h265 import VideoError, annex_b
from dsmgateway.store.naming import INDEX
from dsmgateway.store.sidecar import LIMIT_BYTES

#: Frames a second of a DualCam that was not set to anything else.
DEFAULT_FRAME_RATE = 30.0
_SLOWEST, _FASTEST = 1.0, 240.0
#: Bytes read at once.
_BLOCK_BYTES = 256 * 1024


class ExportError(click.ClickException):
    """It could not be tried: one line, exit code 2."""

    exit_code = 2


class NoVideoError(click.ClickException):
    """No MP4 could be made of FILE: one line, exit code 1."""

    exit_code = 1


def _checked_rate(_context: click.Context, _option: click.Parameter, value: float | None) -> float | None:
    if value is None or _is_rate(value):
        return value
    raise click.BadParameter(f"{value:g} is not from {_SLOWEST:g} to {_FASTEST:g} frames a second.")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--mp4", is_flag=True, help="Make an MP4: the same pictures, not encoded again.")
@click.option("--h264", is_flag=True, help="Encode again as H.264, for players without H.265. Slow.")
@click.option("--output", type=click.Path(path_type=Path), help="Where to; FILE's name with .mp4, in this folder.")
@click.option(
    "--frame-rate", type=float, callback=_checked_rate, help="Frames a second; as recorded beside FILE, or else 30."
)
@click.option("--force", is_flag=True, help="Replace the output if it is there.")
@click.option("--ffmpeg", "program", metavar="PATH", help="The ffmpeg to use, if not the first on PATH.")
def export(
    file: Path,
    mp4: bool,
    h264: bool,
    output: Path | None,
    frame_rate: float | None,
    force: bool,
    program: str | None,
) -> None:
    """Make a copy of the stored video FILE that players can show.

    FILE is an .h265 of a DualCam camera; it stays as it is. Needs ffmpeg. Exits with 1 when none could be made of FILE,
    with 2 when it could not be tried.
    """
    if not mp4:
        raise click.UsageError("Say what to make: --mp4 is what export can do.")
    target = output or Path(f"{file.stem}.mp4")
    try:
        with _ended_by_signals(), file.open("rb") as stream, _progress(stream) as blocks:
            video = annex_b(blocks)
            found = ffmpeg.find(program)
            _refuse_target(target, file, force)
            rate = frame_rate or _recorded_or_default_rate(file)
            with _written_at_once(target) as partial:
                complaints = ffmpeg.run(found, ffmpeg.arguments(partial, rate, h264), video)
    except (VideoError, ffmpeg.FfmpegError) as error:
        raise NoVideoError(f"{one_line(str(file))}: {error}") from None
    except ffmpeg.FfmpegMissing as error:
        raise ExportError(str(error)) from None
    except OSError as error:
        raise ExportError(f"{one_line(str(file))}: {error.strerror}") from None
    if complaints:
        click.echo(f"not all of it could be read, ffmpeg says: {'; '.join(complaints)}", err=True)
    click.echo(f"wrote {one_line(str(target))} ({target.stat().st_size} bytes, {rate:g} frames/s)")


# -- what is read


@contextmanager
def _progress(stream: BinaryIO) -> Iterator[Iterator[bytes]]:
    """Give out the blocks of a file; show on a terminal how far it is."""
    console = Console(stderr=True)
    total_bytes = os.fstat(stream.fileno()).st_size
    with Progress(
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("", total=total_bytes or None)

        def blocks() -> Iterator[bytes]:
            while block := stream.read(_BLOCK_BYTES):
                yield block
                progress.advance(task, len(block))

        yield blocks()


def _recorded_or_default_rate(file: Path) -> float:
    recorded = _recorded_rate(file.with_suffix(".json"))
    if recorded is None:
        click.echo(
            f"no frame rate is recorded beside the file: {DEFAULT_FRAME_RATE:g} frames/s are taken, the camera's "
            "default; --frame-rate says another",
            err=True,
        )
    return recorded or DEFAULT_FRAME_RATE


def _recorded_rate(sidecar: Path) -> float | None:
    """Return what the camera said, if there is a sidecar that can be read and tells it."""
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > LIMIT_BYTES:
            return None
        rate = json.loads(sidecar.read_bytes())["metadata"]["frame_rate"]
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None
    return float(rate) if _is_rate(rate) else None


def _is_rate(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and _SLOWEST <= value <= _FASTEST


# -- what is written


def _refuse_target(target: Path, file: Path, force: bool) -> None:
    shown = one_line(str(target))
    if str(target) == "-":
        raise ExportError(f"{shown}: an MP4 goes to a file only, say another --output")
    folder = _real_folder(target)
    for data in (folder, *folder.parents):
        if os.path.isfile(data / INDEX):
            raise ExportError(f"{shown}: in the gateway's data folder {one_line(str(data))}, say another --output")
    if not os.path.lexists(target):
        return
    if target.exists() and not target.is_file():
        raise ExportError(f"{shown}: is no file that could be replaced")
    if target.exists() and target.samefile(file):
        raise ExportError(f"{shown}: is the video itself, say another --output")
    if not force:
        raise ExportError(f"{shown}: is there already, --force replaces it")


@contextmanager
def _written_at_once(target: Path) -> Iterator[Path]:
    """Give a file to write that has the name of the target afterwards, or is gone if that came to nothing."""
    partial = _real_folder(target) / f".export-{secrets.token_hex(8)}.mp4"
    try:
        with _told_of(target):
            os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield partial
        with _told_of(target):
            partial.replace(target)
    finally:
        # Not there any more, or the folder never let it be.
        with suppress(OSError):
            partial.unlink()


@contextmanager
def _told_of(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ExportError(f"{one_line(str(target))}: {error.strerror}") from None


def _real_folder(target: Path) -> Path:
    """Return the folder without symbolic links; unlike `Path.resolve` it takes a loop of them as it is."""
    return Path(os.path.realpath(target.parent))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have what ends a program do so by an exception, so that nothing is left behind; what is ignored stays so."""
    came: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        # Another one must not break off what the first one has to be tidied up for.
        if not came:
            came.append(number)
            sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
