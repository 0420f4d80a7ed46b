"""A disk whose power can be cut: an ext4 file system in a file, stopped at once by EXT4_IOC_SHUTDOWN.

What ext4 had not written by then is lost, its journal ends where it was, and the next mount replays it: what a real
power cut leaves, but for a disk that itself forgets what it said was flushed. Where the machine cannot do it (not root,
no loop devices, no mkfs.ext4) a test is skipped and says why; with CI=true that is a failure.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults import cannot
from running import eventually

#: _IOR('X', 125, __u32), and what its argument says of the journal: one that is in memory is written first, or not.
_EXT4_IOC_SHUTDOWN = 0x8004587D
_LOG_IS_WRITTEN, _LOG_IS_LOST = 1, 2
_SIZE_BYTES = 192 * 1024 * 1024


class PoweredDisk:
    """One ext4 file system, mounted at ``folder`` while it has power."""

    def __init__(self, image: Path, folder: Path, options: str) -> None:
        self.folder = folder
        self._image = image
        self._options = ",".join(["loop", *([options] if options else [])])

    def make(self) -> None:
        """Make the file system and mount it, or skip the test."""
        if os.geteuid() != 0:
            cannot("only root can mount an ext4 file system and cut its power")
        mkfs = shutil.which("mkfs.ext4")
        if mkfs is None:
            cannot("mkfs.ext4 is not installed (apt-get install e2fsprogs)")
        with self._image.open("wb") as image:
            image.truncate(_SIZE_BYTES)
        subprocess.run([mkfs, "-q", "-F", str(self._image)], check=True)
        self.folder.mkdir()
        done = self._mount()
        if done.returncode:
            cannot(f"an ext4 file system cannot be mounted from a file here: {done.stderr.strip()}")

    def cut(self, *, log_is_lost: bool = True) -> None:
        """Cut the power: from now on nothing reaches the disk, and every write and sync fails.

        With ``log_is_lost`` not even what ext4 was about to write into its journal.
        """
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            flags = _LOG_IS_LOST if log_is_lost else _LOG_IS_WRITTEN
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, struct.pack("I", flags))
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM):
                cannot(f"this kernel does not stop an ext4 file system: {error}")
            raise
        finally:
            os.close(descriptor)

    def power_on(self) -> None:
        """Mount it again, which replays its journal; nobody may have a file open on it any more."""
        eventually("the disk is unmounted and has its power again", self._is_on_again)

    def _is_on_again(self) -> bool:
        """Unmount and mount it; where some other namespace of mounts has it still, what is mounted is without power."""
        if self._unmount() != 0:
            return False
        done = self._mount()
        assert done.returncode == 0, f"not mounted after a power cut: {done.stderr}"
        try:
            with tempfile.TemporaryFile(dir=self.folder):
                return True
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return False

    def remove(self) -> None:
        """Leave no mount and no image behind, whatever still has a file open on it."""
        if os.path.ismount(self.folder) and self._unmount() != 0:
            self._unmount("--lazy")
        assert not os.path.ismount(self.folder), f"{self.folder} is still mounted"
        self._image.unlink(missing_ok=True)

    def _mount(self) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "ext4", "-o", self._options, str(self._image), str(self.folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _unmount(self, *options: str) -> int:
        return subprocess.run(["umount", *options, str(self.folder)], capture_output=True, check=False).returncode


@contextmanager
def powered_disk(scratch: Path, options: str = "") -> Iterator[PoweredDisk]:
    """A disk for the block, with these mount options (``data=writeback``), in files below ``scratch``."""
    disk = PoweredDisk(scratch / "disk.img", scratch / "disk", options)
    try:
        disk.make()
        yield disk
    finally:
        disk.remove()
