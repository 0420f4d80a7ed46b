"""The gateway in a twistd application of one's own: twistd --nodaemon --python etc/dsmgateway.tac.

Add further services to `application` in the same way. See docs/embedding.md.
"""

from pathlib import Path

from twisted.application.service import Application
from twisted.internet import reactor

from dsmgateway.config import Settings
from dsmgateway.monotonic import use_monotonic_clock
from dsmgateway.service import gateway_service

use_monotonic_clock(reactor)
application = Application("dsmgateway")
gateway_service(Settings(ports=("10014",), data=Path("dsm-data").absolute()), reactor).setServiceParent(application)
