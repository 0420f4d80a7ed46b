"""Debian's HAProxy with etc/haproxy.cfg, for end-to-end tests.

Where it is not installed and cannot be, a test is skipped and says why; with CI=true that is a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from faults import cannot
from running import eventually, free_port

CONFIGURATION = Path(__file__).parent.parent / "etc" / "haproxy.cfg"


@cache
def _haproxy() -> str | None:
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None and os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["apt-get", "update", "-q"], ["apt-get", "install", "-qy", "haproxy"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL, timeout=300)
        found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    return found


def haproxy() -> str:
    """The path of haproxy."""
    found = _haproxy()
    if found is None:
        cannot("haproxy is not installed (apt-get install haproxy)")
    return found


@contextmanager
def balancer(
    folder: Path, plain: int, tls: int, version: int = 2, check_interval: str = "5s", encrypts: bool = False
) -> Iterator[tuple[int, int]]:
    """HAProxy in front of these two ports of a gateway, with nothing but the ports changed; gives its own two.

    With ``encrypts`` it speaks TLS itself on behalf of cameras that cannot.
    """
    ports = {"20014": str(free_port()), "20015": str(free_port()), "10014": str(plain), "10015": str(tls)}
    text = "\n".join(line for line in CONFIGURATION.read_text().splitlines() if not line.startswith("#"))
    for known, ours in ports.items():
        assert text.count(f":{known}") == 1
        text = text.replace(f":{known}", f":{ours}")
    text = text.replace("inter 5s", f"inter {check_interval}")
    if encrypts:
        text = text.replace(f":{ports['10015']} ", f":{ports['10015']} ssl verify none ")
    if version == 1:
        text = text.replace("send-proxy-v2", "send-proxy")
    path, log = folder / "haproxy.cfg", folder / "haproxy.log"
    path.write_text(text + "\n")
    with log.open("w") as output:
        process = subprocess.Popen([haproxy(), "-db", "-f", str(path)], stdout=output, stderr=output)
    try:
        for port in (int(ports["20014"]), int(ports["20015"])):
            eventually("haproxy listens", lambda port=port: _listens(port, process))  # type: ignore[misc]
        assert "WARNING" not in log.read_text(), log.read_text()
        yield int(ports["20014"]), int(ports["20015"])
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Look without a connection, which HAProxy would begin to hand on: the gateway's log would tell of its end."""
    assert process.poll() is None, "haproxy does not run"
    rows = (row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:])
    listening = "0A"
    return any(row[1].endswith(f":{port:04X}") and row[3] == listening for row in rows)
