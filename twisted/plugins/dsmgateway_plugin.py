"""Tells twistd that there is a ``dsmgateway`` command."""

from twisted.application.service import ServiceMaker

dsmgateway = ServiceMaker("dsmgateway", "dsmgateway.tap", "Receives the files of driver-facing cameras.", "dsmgateway")
