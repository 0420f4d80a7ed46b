"""The program ffmpeg: found, fed with a stream of H.265, listened to, and ended in any case.

It is a program of its own, never in the gateway's process, started with a list of arguments and without a shell. Knows
nothing of cameras and containers.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dsmgateway.errors import GatewayError
from dsmgateway.escape import one_line, one_line_of

#: Last complaints that are kept; the one before the last often has the cause.
_COMPLAINTS = 2
#: What ends a program.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: For reading what it said before it was ended: somebody who left its process group may keep the pipe open for ever.
_LAST_WORDS_S = 5.0
_LONGEST_LINE_BYTES = 4096
#: ``[hevc @ 0x55d71b339440] [error] Invalid NAL``: who says it, where in memory, how bad it is, and what.
_LINE = re.compile(r"(?:\[(?P<who>[^\]@]*?)(?: @ [^\]]*)?\] )?\[(?P<level>[a-z]+)\] (?P<what>.*)")
_COMPLAINS = {"panic", "fatal", "error"}
#: The MP4 writer's words when pictures are stored in another order than shown: a plain stream does not tell times.
_OUT_OF_ORDER = "pts has no value"


class FfmpegError(GatewayError):
    """ffmpeg could not make the file; the sentence has its own last words."""


class FfmpegMissing(GatewayError):
    """There is no ffmpeg that can be run."""


def find(given: str | None = None) -> str:
    """Return the path of ffmpeg: the one that was ``given``, or else the first on PATH."""
    found = shutil.which(given or "ffmpeg")
    if found is not None:
        return found
    if given is not None:
        raise FfmpegMissing(f"{one_line(given)}: no program that can be run")
    raise FfmpegMissing("ffmpeg is not installed (apt install ffmpeg), or give --ffmpeg PATH")


def arguments(output: Path, frame_rate: float, h264: bool) -> list[str]:
    """Return what makes ffmpeg write its standard input to the absolute path ``output``, as MP4."""
    # As an option of the input, -r also holds against a frame rate that the stream tells itself; -framerate does not.
    source = ["-r", f"{frame_rate:g}", "-f", "hevc", "-i", "pipe:0"]
    video = ["-c:v", "h264", "-pix_fmt", "yuv420p"] if h264 else ["-c:v", "copy", "-tag:v", "hvc1"]
    # With file: in front of it, no character of a path means anything else.
    target = ["-movflags", "+faststart", "-f", "mp4", "-y", f"file:{output}"]
    return ["-hide_banner", "-nostdin", "-loglevel", "level+warning", *source, *video, *target]


def run(program: str, options: list[str], blocks: Iterable[bytes]) -> list[str]:
    """Feed ffmpeg with ``blocks`` and wait for its end; return its last complaints, if it came to a good end with some.

    Raises `FfmpegError`, or `FfmpegMissing` if it cannot be started. Whatever else ends this, ffmpeg is ended with it.
    """
    heard = _Heard()
    with _held_back() as let_through:
        process = _started(program, options)
        listener = threading.Thread(target=heard.listen, args=(process.stderr,), daemon=True)
        try:
            listener.start()
            let_through()
            took_all = _feed(process, blocks)
            _await_end(process)
        finally:
            _end(process, listener)
    status = process.returncode
    if status or not took_all:
        raise FfmpegError(f"ffmpeg failed: {heard.words or f'exit code {status}'}")
    if heard.out_of_order:
        raise FfmpegError("its pictures are not stored in the order they are shown in, use --h264")
    return list(heard.complaints)


@contextmanager
def _held_back() -> Iterator[Callable[[], None]]:
    """Hold back what ends a program until the yielded function is called.

    Handlers raise wherever the program is, and in the middle of starting ffmpeg there is nothing yet to end it by. They
    are held back in Python alone: ffmpeg would inherit a mask of signals.
    """
    came: list[int] = []
    handlers = {number: handler for number in _ENDING if callable(handler := signal.getsignal(number))}

    def let_through() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        while came:
            signal.raise_signal(came.pop(0))

    try:
        for number in handlers:
            signal.signal(number, lambda number, _frame: came.append(number))
        yield let_through
    finally:
        let_through()


def _started(program: str, options: list[str]) -> subprocess.Popen[bytes]:
    try:
        # In a session of its own it does not hear the terminal's Ctrl-C, on which it would finish half a file.
        return subprocess.Popen(
            [program, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise FfmpegMissing(f"{one_line(program)}: {error.strerror}") from None


class _Heard:
    """What ffmpeg says, as much of it as is of use."""

    def __init__(self) -> None:
        self.complaints: deque[str] = deque(maxlen=_COMPLAINTS)
        self.out_of_order = False
        self._last = ""

    def listen(self, stream: IO[bytes]) -> None:
        """Read until it says no more, so that it never has to wait for us."""
        while line := stream.readline(_LONGEST_LINE_BYTES):
            self._take(one_line_of(line.strip()))

    def _take(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            self._last = line or self._last
            return
        self.out_of_order = self.out_of_order or match["what"] == _OUT_OF_ORDER
        if match["level"] in _COMPLAINS and match["what"]:
            self.complaints.append(f"{match['who']}: {match['what']}" if match["who"] else match["what"])

    @property
    def words(self) -> str:
        """Its complaints on one line; of a program that does not mark them, the last line."""
        return "; ".join(self.complaints) or self._last


def _feed(process: subprocess.Popen[bytes], blocks: Iterable[bytes]) -> bool:
    """Write all blocks; return False if ffmpeg wanted no more of them."""
    assert process.stdin is not None
    try:
        for block in blocks:
            process.stdin.write(block)
        process.stdin.close()
    except BrokenPipeError:
        return False
    return True


def _await_end(process: subprocess.Popen[bytes]) -> None:
    """Wait for its end; its number stays its own until `_end`."""
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _end(process: subprocess.Popen[bytes], listener: threading.Thread) -> None:
    """End what is still there of it, the children of a wrapper script too; close the pipes to it."""
    assert process.stdin is not None and process.stderr is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(BrokenPipeError):
        process.stdin.close()
    process.wait()
    if listener.is_alive():
        listener.join(_LAST_WORDS_S)
    # Closing waits for whoever reads.
    if not listener.is_alive():
        process.stderr.close()
