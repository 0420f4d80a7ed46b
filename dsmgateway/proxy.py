"""Connections from balancers: the PROXY header first, then the protocol as if the device had connected itself.

Only for peers in the networks that are named; all others are handed on untouched, so that nobody else can say who they
are. Where the real address is known is one place: the call of the other factory's ``buildProtocol``. Until then a
connection counts in all, and for no address. Knows nothing of what comes after the header, be it TLS or INIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address as PlainIPv4
from typing import Any

import txaio
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from dsmgateway.addresses import shown_address, source_of
from dsmgateway.door import Door
from dsmgateway.errors import HeaderError
from dsmgateway.events import Event, log_event
from dsmgateway.framing import FIRST_READ_BYTES
from dsmgateway.kinds import Network
from dsmgateway.proxy_header import Header, HeaderParser, Source, plain_address
from dsmgateway.quiet import Quiet

txaio.use_twisted()

#: Lines about connections from a balancer without a header that are written at once; after these, one a minute.
FAILED_AT_ONCE = 5
#: Whom a connection without a header is counted for: a balancer may have more than one address may.
COUNTED_IN_ALL = ""


@implementer(IHalfCloseableProtocol)
class ProxiedProtocol(Protocol):
    """One connection of a balancer; owns the transport until the header is whole, then only hands on what comes."""

    factory: ProxyFactory
    #: Provides ITCPTransport.
    transport: Any

    def __init__(self, factory: ProxyFactory, balancer: IAddress) -> None:
        self.factory = factory
        self._balancer = balancer
        self._waiting_since = factory.clock.seconds()
        self._parser: HeaderParser | None = HeaderParser()
        self._inner: IProtocol | None = None
        self._is_counted = False

    def connectionMade(self) -> None:
        """Begin to wait for the header."""
        self.factory.waiting.add(self)
        self.factory.crowd.entered(COUNTED_IN_ALL)
        self._is_counted = True
        self.transport.bufferSize = FIRST_READ_BYTES

    def dataReceived(self, data: bytes) -> None:
        """Take what comes; of any length, cut anywhere."""
        if self._inner is not None:
            self._inner.dataReceived(data)
        elif self._parser is not None:
            self._take(self._parser, data)
        elif self in self.factory.waiting:
            self._hand_over(self._balancer, data)

    def _take(self, parser: HeaderParser, data: bytes) -> None:
        try:
            header = parser.feed(data)
        except HeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._parser = None
            self._took(header)

    def _took(self, header: Header) -> None:
        """Hand over; but a balancer that speaks for itself mostly only looks whether we are there: no event."""
        if header.source is not None:
            self._hand_over(_twisted_address(header.source), header.rest)
        elif header.rest:
            self._hand_over(self._balancer, header.rest)

    def _hand_over(self, address: IAddress, rest: bytes) -> None:
        self.factory.waiting.discard(self)
        self._is_counted = False
        with self.factory.crowd.replacing():
            inner = self.factory.wrapped.buildProtocol(address)
            if inner is None:
                self.transport.loseConnection()
                return
            self._inner = inner
            del self.transport.bufferSize  # and so it is Twisted's again
            inner.makeConnection(self.transport)
        if rest:
            inner.dataReceived(rest)

    def _refuse(self, reason: str) -> None:
        self._parser = None
        self.factory.waiting.discard(self)
        self.factory.say_failed(self._balancer, reason)
        self.transport.abortConnection()

    def check_time(self, now: float) -> None:
        """Wait no longer than that for a header, nor for what a balancer has to say for itself."""
        if now - self._waiting_since >= self.factory.limit_s:
            what = "no PROXY header" if self._parser else "nothing after the PROXY header"
            self._refuse(f"{what} within {self.factory.limit_s:g} s")

    def excuse(self, stall_s: float, now: float) -> None:
        """Count none of the seconds in which the gateway itself has stood still until now."""
        self._waiting_since = min(self._waiting_since + stall_s, now)

    def stop(self) -> None:
        """End: the gateway stops."""
        self.factory.waiting.discard(self)
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        """The device sends no more; what cannot be half closed (TLS) is closed, with what is on its way to it."""
        half_closeable = IHalfCloseableProtocol(self._inner, None)
        if half_closeable is None:
            self.transport.loseConnection()
        else:
            half_closeable.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Nothing more can be sent."""
        half_closeable = IHalfCloseableProtocol(self._inner, None)
        if half_closeable is not None:
            half_closeable.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever was handed the connection; that a balancer only looked at the port is no event."""
        if self._parser is not None and self._parser.began:
            self._refuse("closed before its PROXY header was whole")
        self.factory.waiting.discard(self)
        if self._is_counted:
            self.factory.crowd.left(COUNTED_IN_ALL)
        if self._inner is not None:
            self._inner.connectionLost(reason)


class ProxyFactory(Factory):
    """Takes the PROXY header off connections from ``networks`` and gives them to another factory."""

    noisy = False
    log = txaio.make_logger()

    def __init__(
        self, wrapped: IProtocolFactory, door: Door, networks: Sequence[Network], limit_s: float, clock: IReactorTime
    ) -> None:
        """``limit_s`` is how long the header may take."""
        self.wrapped, self.limit_s, self.clock = wrapped, limit_s, clock
        self._door, self.crowd = door, door.crowd
        self._networks = tuple(networks)
        self._quiet = Quiet(clock.seconds(), FAILED_AT_ONCE)
        #: Connections whose device is not known yet.
        self.waiting: set[ProxiedProtocol] = set()

    def doStart(self) -> None:
        """Tell the other factory too."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Tell the other factory too."""
        super().doStop()  # type: ignore[no-untyped-call]
        self.wrapped.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection, or have Twisted close it: None.

        It does so within the same turn of its reactor, in which it takes some hundred connections; those that are
        aborted have their descriptors until the next one.
        """
        if addr is None or not self._is_balancer(addr):
            return self.wrapped.buildProtocol(addr)  # type: ignore[arg-type]
        return ProxiedProtocol(self, addr) if self._door.lets_wait(source_of(addr)) else None

    def _is_balancer(self, address: IAddress) -> bool:
        host = getattr(address, "host", None)
        if host is None:
            return False  # a UNIX socket: it is in no network
        plain = plain_address(host.partition("%")[0])
        return any(plain in network for network in self._networks)

    def say_failed(self, balancer: IAddress, reason: str) -> None:
        """Have it logged now and then that there was no header: a balancer that sends none does so for each camera."""
        suppressed = self._quiet.ask(self.clock.seconds(), str(getattr(balancer, "host", "")))
        if suppressed is not None:
            peer = shown_address(balancer)
            log_event(self.log, Event.PROXY_FAILED, peer=peer, reason=reason, suppressed=suppressed or None)

    def sweep(self) -> None:
        """Check the time limit of all connections without a header; to be called once a second."""
        now = self.clock.seconds()
        for connection in list(self.waiting):
            connection.check_time(now)

    def excuse(self, stall_s: float, now: float) -> None:
        """Blame no balancer for a time in which the gateway itself has stood still."""
        for connection in self.waiting:
            connection.excuse(stall_s, now)

    def stop(self) -> None:
        """End all connections without a header."""
        for connection in list(self.waiting):
            connection.stop()


def _twisted_address(source: Source) -> IAddress:
    kind = IPv4Address if isinstance(source.host, PlainIPv4) else IPv6Address
    return kind("TCP", str(source.host), source.port)
