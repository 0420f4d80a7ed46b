"""Cameras that speak the device's side of the protocol, with the faults of real links.

Used by the demo, the tests and the benchmarks. The core, which makes files, devices and conversations, knows no
Twisted and no clock; link and fleet put it on sockets; command is the command line.
"""
