"""One connection's bytes in a file."""

import errno
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from dsmgateway.trace import Trace

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")


def ticking(*seconds: float) -> Callable[[], float]:
    """A clock that shows these times one after the other."""
    times = iter(seconds)
    return lambda: next(times)


class FullDisk(io.StringIO):
    """A file on a disk that is full: for the first write, or only when the rest is written at the end."""

    def __init__(self, *, at_close: bool) -> None:
        super().__init__()
        self._at_close = at_close

    def write(self, text: str) -> int:
        """Fail, unless writes are kept back."""
        if not self._at_close:
            raise NO_SPACE
        return len(text)

    def close(self) -> None:
        """Fail the first time."""
        was_closed = self.closed
        super().close()
        if not was_closed:
            raise NO_SPACE


def the_file(folder: Path) -> Path:
    """The only file there."""
    (path,) = folder.iterdir()
    return path


def test_a_line_for_each_read_and_write(tmp_path: Path) -> None:
    """A line is the time since the connection began, who sent, and the bytes in hex."""
    complaints: list[str] = []
    trace = Trace(tmp_path / "a" / "b", "192.0.2.1:40000", ticking(100.0, 100.25, 107.0), complaints.append)
    trace.write("device", b"\0\0\0\5")
    trace.write("gateway", b"\0\x0c\0\2\0\0")
    trace.close()
    path = the_file(tmp_path / "a" / "b")
    assert path.read_text() == "0.250 device 00000005\n7.000 gateway 000c00020000\n"
    assert path.name.endswith(".trace") and "_192.0.2.1-40000_" in path.name
    assert complaints == []


def test_same_peer_in_the_same_second(tmp_path: Path) -> None:
    """Each connection gets a file of its own."""
    traces = [Trace(tmp_path, "192.0.2.1:40000", ticking(0.0), pytest.fail) for _ in range(3)]
    for trace in traces:
        trace.close()
    assert len(list(tmp_path.iterdir())) == 3


def test_peer_cannot_leave_the_folder(tmp_path: Path) -> None:
    """The peer's name is taken over only as far as it is harmless in a file name."""
    Trace(tmp_path / "in", "../../etc/[::1]:9", ticking(0.0), pytest.fail).close()
    assert "/" not in the_file(tmp_path / "in").name
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A trace that cannot begin says so once and lets everything else go on."""
    (tmp_path / "file").touch()
    complaints: list[str] = []
    trace = Trace(tmp_path / "file", "peer", ticking(0.0), complaints.append)
    trace.write("device", b"a")
    trace.close()
    assert len(complaints) == 1
    assert complaints[0].startswith(f"cannot write {tmp_path / 'file'}/")
    assert complaints[0].endswith("File exists")


@pytest.mark.parametrize("at_close", [False, True])
def test_disk_full(tmp_path: Path, at_close: bool) -> None:
    """A trace that cannot go on says so once, lets go of its file, and lets everything else go on."""
    complaints: list[str] = []
    trace = Trace(tmp_path, "peer", ticking(0.0, 1.0, 2.0), complaints.append)
    trace.close()
    full = FullDisk(at_close=at_close)
    trace._file = full
    trace.write("device", b"a")
    trace.close()
    trace.write("device", b"b")
    trace.close()
    assert complaints == ["tracing ended: No space left on device"]
    assert full.closed


def test_closed_twice(tmp_path: Path) -> None:
    """The end of a connection may be told more than once, and bytes after it are not written."""
    trace = Trace(tmp_path, "peer", ticking(0.0), pytest.fail)
    trace.close()
    trace.close()
    trace.write("device", b"late")
    assert the_file(tmp_path).read_text() == ""


def test_what_is_traced_elsewhere_is_not_kept(tmp_path: Path) -> None:
    """And one that could not be written has nothing to delete."""
    trace = Trace(tmp_path, "peer", ticking(0.0, 1.0), pytest.fail)
    trace.write("device", b"a")
    trace.discard()
    trace.write("device", b"late")
    trace.discard()
    assert list(tmp_path.iterdir()) == []
