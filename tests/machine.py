"""A small machine for end-to-end tests: a real systemd as the first process, in namespaces of its own.

It sees this machine's programs, read-only, and this source and Python in /opt; /etc, /var and /srv are folders of the
test, and its network is its own. Where that cannot be had a test is skipped and says why; with CI=true that is a
failure.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from faults import cannot
from running import eventually

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "etc" / "dsmgateway.service"
#: The user and group of the gateway.
USER = 990

_SYSTEMD = "/lib/systemd/systemd"
_NEEDED = ("systemd-analyze", "systemctl", "unshare", "nsenter", "setpriv", "mount")
#: Of the units that come with systemd only these; the others would look for hardware.
_JOURNAL = ("systemd-journald.service", "systemd-journald.socket")
_TARGETS = ("sysinit", "basic", "sockets", "network", "multi-user", "shutdown", "test")

# Run by unshare with the machine's folder, and the place of Python and of its packages.
_BOOT = """
set -e
cd "$1"
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${node%:*} c 1 ${node#*:}; done
mknod -m 666 dev/tty c 5 0; ln -s pts/ptmx dev/ptmx
mount --bind "$2" opt/python; mount --bind "$3" opt/packages; mount --bind "$4" opt/source
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
mount -t sysfs -o ro sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for place in etc var opt srv dev; do mount --rbind $place /$place; done
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount --make-rshared /
cd /
exec setpriv --bounding-set=-sys_module,-sys_boot,-sys_time,-sys_rawio env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    container=test SYSTEMD_UNIT_PATH=/etc/systemd/system \
    /lib/systemd/systemd --system --unit=test.target --log-target=journal-or-kmsg --show-status=no --dump-core=no
"""
# In place of those that pip makes; a Python that was moved finds its library by the first line.
_COMMAND = """#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/source:/opt/packages
exec {python} {arguments} "$@"
"""
_COMMANDS = {
    "python": "",
    "twistd": '-c "from twisted.scripts.twistd import run; run()"',
    "dsmgateway": "-m dsmgateway.cli",
}


@cache
def _installed() -> bool:
    if os.environ.get("CI") == "true" and os.geteuid() == 0 and not shutil.which("systemd-analyze"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "systemd"]):
            with suppress(FileNotFoundError):
                subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=300)
    return os.access(_SYSTEMD, os.X_OK) and all(map(shutil.which, _NEEDED))


def needs_systemd() -> None:
    """See that systemd and its tools are there."""
    if not _installed():
        cannot("systemd is not installed (apt-get install systemd)")


def _own_group() -> Path:
    """The folder of this process in the file system of control groups, version 2."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            own = next(row for row in Path("/proc/self/cgroup").read_text().splitlines() if row.startswith("0::/"))
            return Path(place) / own.removeprefix("0::/")
    cannot("there are no control groups of version 2 here")


class Machine:
    """A context manager: the machine is up for the block, with the gateway's unit installed and not yet started."""

    def __init__(self, folder: Path) -> None:
        needs_systemd()
        if os.geteuid() != 0:
            cannot("only root can have a machine with a systemd of its own")
        self.folder = folder
        #: The folders that it has as its own.
        self.etc, self.var, self.opt, self.srv = (folder / name for name in ("etc", "var", "opt", "srv"))
        self._group = _own_group() / f"dsmgateway-test-{os.getpid()}-{time.monotonic_ns()}"
        self._log = folder / "boot.log"
        self._lay_out()

    def _lay_out(self) -> None:
        units = self.etc / "systemd" / "system"
        for place in (units, self.var / "lib", self.var / "tmp", self.srv, self.folder / "dev"):
            place.mkdir(parents=True)
        for name in ("python", "packages", "source", "dsmgateway/bin"):
            (self.opt / name).mkdir(parents=True)
        (self.var / "tmp").chmod(0o1777)
        shutil.copy(UNIT, units)
        shutil.copy("/etc/ld.so.cache", self.etc)
        for name in _JOURNAL:
            shutil.copy(Path(_SYSTEMD).parent / "system" / name, units)
        for name in _TARGETS:
            (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        with (units / "test.target").open("a") as target:
            target.write("Wants=systemd-journald.service\nAfter=systemd-journald.service\n")
        self.write("systemd/journald.conf", "[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n")
        self.write("machine-id", "0123456789abcdef0123456789abcdef\n")
        self.write("nsswitch.conf", "passwd: files\ngroup: files\n")
        self.write("passwd", f"root:x:0:0::/:/bin/sh\ndsmgateway:x:{USER}:{USER}::/:/usr/sbin/nologin\n")
        self.write("group", f"root:x:0:\ndsmgateway:x:{USER}:\n")
        python = f"/opt/python/bin/python3.{sys.version_info.minor}"
        for name, arguments in _COMMANDS.items():
            command = self.opt / "dsmgateway" / "bin" / name
            command.write_text(_COMMAND.format(python=python, arguments=arguments))
            command.chmod(0o755)

    def write(self, name: str, text: str, mode: int = 0o644, group: int = 0) -> Path:
        """Put a file into its /etc, for root and this group, in one step."""
        path = self.etc / name
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.touch(mode=0o600)
        new.write_text(text)
        os.chown(new, 0, group)
        new.chmod(mode)
        new.rename(path)
        return path

    def drop_in(self, name: str, text: str) -> None:
        """Add to the gateway's unit."""
        self.write(f"systemd/system/dsmgateway.service.d/{name}.conf", text)

    def __enter__(self) -> Machine:
        try:
            self._group.mkdir()
        except OSError as error:
            cannot(f"no control group can be made here: {error.strerror}")
        place = ["--mount", "--pid", "--fork", "--kill-child", "--ipc", "--uts", "--net", "--cgroup"]
        join = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
        packages = sysconfig.get_paths()["purelib"]
        command = [
            "sh",
            "-c",
            join,
            str(self._group),
            "setpriv",
            "--pdeathsig=KILL",
            "unshare",
            *place,
            "sh",
            "-c",
            _BOOT,
            "boot",
        ]
        command += [str(self.folder), sys.base_prefix, packages, str(ROOT)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            eventually("systemd is up", self._is_up, 30)
        except BaseException:
            self._end()
            raise
        return self

    def _is_up(self) -> bool:
        if self._process.poll() is not None:
            cannot(f"systemd does not start here: {self._log.read_text()[-1000:].strip()}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "systemd\n":
            return False
        self._first = int(children[0])
        return self.inside("systemctl", "is-active", "test.target", good=False) == "active\n"

    def __exit__(self, *failure: object) -> None:
        self._end()

    def _end(self) -> None:
        """End its first process, with which the kernel ends all others and drops all mounts."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        self._process.wait(20)
        for group in [*sorted(self._group.rglob("*/"), reverse=True), self._group]:
            if group.is_dir():
                eventually("its control groups are empty", lambda group=group: _removed(group))  # type: ignore[misc]

    def inside(self, *command: str, good: bool = True) -> str:
        """Run a command on it as root; what it prints."""
        entered = ["nsenter", "--all", f"--target={self._first}", "--wd=/", *command]
        path = "/opt/dsmgateway/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            entered, env={"PATH": path, "LC_ALL": "C"}, capture_output=True, text=True, timeout=60, check=False
        )
        if good:
            assert done.returncode == 0, (command, done.stdout, done.stderr, self.log())
        return done.stdout

    def log(self) -> str:
        """What the gateway and systemd say of it."""
        return self.inside("journalctl", "--unit=dsmgateway", "--output=cat", "--no-pager", good=False)

    def says(self, what: str, times: int = 1) -> str:
        """Wait until the log has this, so many times; return the last line that does."""
        try:
            eventually(f"the log has {what}", lambda: self.log().count(what) >= times)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-6000:]}") from None
        return [line for line in self.log().splitlines() if what in line][-1]

    def property(self, name: str) -> str:
        """What systemd knows of the gateway."""
        return self.inside("systemctl", "show", "dsmgateway", f"--property={name}", "--value").strip()

    @contextmanager
    def network(self) -> Iterator[None]:
        """For the block, this thread's new sockets and processes are on the machine's network."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net", "rb") as ours, open(f"/proc/{self._first}/ns/net", "rb") as its:
            assert libc.setns(its.fileno(), 0) == 0
            try:
                yield
            finally:
                assert libc.setns(ours.fileno(), 0) == 0

    def process(self) -> dict[str, str]:
        """What the kernel says of the gateway's process, as this machine sees it."""
        for number in (self._group / "system.slice" / "dsmgateway.service" / "cgroup.procs").read_text().split():
            rows = Path(f"/proc/{number}/status").read_text().splitlines()
            return {name: value.strip() for name, _, value in (row.partition(":") for row in rows)}
        raise AssertionError("it does not run")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except OSError:
        return False
    return True
