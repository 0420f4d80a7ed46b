"""The gateway as it is measured: what twistd runs, from the options to the log file, with the runner's channel to it.

    python bench/gateway.py FOLDER [option of twistd dsmgateway]...

Options and service are those of `dsmgateway.tap`, which also takes the descriptors and opens the log file, at the level
that it has by default; only twistd's own shell (daemon, pid file) is not there.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any

from control import Control, serve_control
from twisted.application.app import startApplication
from twisted.application.service import Application
from twisted.logger import ILogObserver, globalLogBeginner

from dsmgateway.factory import CameraFactory
from dsmgateway.tap import Options, makeService

#: What was raised for the bench, where all cameras are on one machine and come at once; everything else is as it is by
#: default.
RAISED = ("--backlog=4096", "--accept-rate=1000000", "--accept-rate-per-address=1000000")
_TWISTD = {"nodaemon": True, "pidfile": "", "logger": None, "syslog": None}


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _observe_sweeps(control: Control) -> None:
    """Have the gateway's own sweep over all connections noted, as it is what every time limit hangs on."""
    sweep = CameraFactory.sweep

    def observed(self: CameraFactory) -> None:
        control.ticks.swept()
        sweep(self)

    CameraFactory.sweep = observed  # type: ignore[method-assign]


def main() -> None:
    from twisted.internet import reactor

    folder, port = Path(sys.argv[1]), free_port()
    options = Options()
    twistd: Any = {**_TWISTD, "logfile": str(folder.parent / f"{folder.name}.log")}
    options.parent = twistd
    options.parseOptions([f"--port={port}", f"--data={folder}", *RAISED, *sys.argv[2:]])
    service = makeService(options)
    application = Application("dsmgateway")
    service.setServiceParent(application)
    globalLogBeginner.beginLoggingTo([application.getComponent(ILogObserver)], redirectStandardIO=False)
    startApplication(application, False)

    def ready() -> None:
        _observe_sweeps(serve_control(reactor, lambda: {"port": port}, reactor.stop, sweeps=False))

    reactor.callWhenRunning(ready)
    reactor.run()


if __name__ == "__main__":
    main()
