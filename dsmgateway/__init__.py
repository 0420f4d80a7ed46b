"""dsmgateway: a Twisted service that receives files from Teltonika driver-facing cameras."""

__version__ = "0.1.0"
