"""The door of the gateway: who is let in, when, and how often, for all connections together; and says whom it refused.

Joins what is decided in `admission` (devices), `crowd` (connections), `flapping` (takeovers) and `quota` (a device's
day). It refuses, but closes nothing: the connection does that. Log lines about the refused are rationed by `quiet`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import txaio
from twisted.internet.protocol import Protocol

from dsmgateway.addresses import network_of
from dsmgateway.admission import Admission
from dsmgateway.crowd import Crowd, Hit
from dsmgateway.events import Event, log_event
from dsmgateway.flapping import Claim, Flapping, Holder
from dsmgateway.limits import crowd_limits
from dsmgateway.quiet import Quiet
from dsmgateway.quota import Quota
from dsmgateway.settings import Settings

txaio.use_twisted()


#: Lines about connections that never said which device they are: so many at once for each reason and neighbourhood.
NAMELESS_AT_ONCE = 5
#: What garbage makes up anew each time, in a reason.
_MADE_UP = re.compile("[0-9a-f]{8}")


class RefusedProtocol(Protocol):
    """A connection that is one too many; not None, which wrappers of a factory (TLS) do not know."""

    transport: Any

    def connectionMade(self) -> None:
        """End at once."""
        self.transport.abortConnection()


class Door:
    """Decides for one gateway; every refusal is counted, and told in the log now and then."""

    log = txaio.make_logger()

    def __init__(self, settings: Settings, clock: Callable[[], float], now: Callable[[], float]) -> None:
        """``clock`` gives seconds that never go back, ``now`` seconds since 1970."""
        self._clock, self._now = clock, now
        self._cooldown_s = settings.flapping_cooldown
        self.admission = Admission(settings.admission, settings.imei_check == "luhn")
        self.crowd = Crowd(crowd_limits(settings), clock())
        self.flapping = Flapping(settings.flapping_takeovers, settings.flapping_time, settings.flapping_cooldown)
        self.quota = Quota(settings.device_bytes_per_day, settings.device_files_per_day)
        self._quiet = Quiet(clock())
        self._quiet_of_nameless = Quiet(clock(), NAMELESS_AT_ONCE)

    def bound(self, most_connections: int) -> None:
        """Let in no more than the system has open files for, unless the operator has set another limit."""
        if self.crowd.limits.in_all == sys.maxsize:
            self.crowd.limits = replace(self.crowd.limits, in_all=most_connections)

    def lets_in(self, address: str) -> bool:
        """Whether one more connection from ``address`` is taken now."""
        return self._is_let_in(address, self.crowd.refusal(address, self._clock()))

    def lets_wait(self, address: str) -> bool:
        """Whether one more may wait to say whose it is; ``address`` is that of a balancer, which has no limits."""
        return self._is_let_in(address, self.crowd.full())

    def adopts(self, address: str) -> bool:
        """Whether one that another process has let in is taken: how fast they come was looked at there."""
        return self._is_let_in(address, self.crowd.refusal_of_adopted(address))

    def _is_let_in(self, address: str, hit: Hit | None) -> bool:
        if hit is None:
            return True
        suppressed = self._quiet.ask(self._clock(), f"connections {address}")
        if suppressed is not None:
            log_event(
                self.log,
                Event.LIMIT_CONNECTIONS,
                address=address or None,
                setting=hit.setting,
                most=hit.most,
                suppressed=suppressed,
            )
        return False

    def refusal(self, imei: str, address: str, holder: Holder | None) -> str:
        """Return why a device may not begin now, empty when it may; ``holder`` is whom it would take over from."""
        reason = self.admission.refusal(imei, address, self._now())
        if reason:
            return self._refused(imei, address, reason)
        hit = self.quota.refusal(imei, self._now())
        if hit is not None:
            return self._day_is_full(imei, address, hit)
        claim = self.flapping.claim(imei, address, holder, self._clock())
        if claim is Claim.REFUSED:
            return self._refused(imei, address, "another address keeps this device for now")
        if claim is Claim.KEEPS and holder is not None:
            log_event(
                self.log,
                Event.DEVICE_FLAPPING,
                imei=imei,
                address=address or None,
                other=holder.address or None,
                cooldown=self._cooldown_s,
            )
        return ""

    def file_refusal(self, imei: str, address: str, size_bytes: int) -> str:
        """Return why a device may not deliver a file of this size today, empty when it may."""
        hit = self.quota.refusal(imei, self._now(), size_bytes)
        return "" if hit is None else self._day_is_full(imei, address, hit)

    def delivered(self, imei: str, size_bytes: int = 0, files: int = 0) -> None:
        """Count what a device delivered."""
        self.quota.count(imei, self._now(), size_bytes, files)

    def suppressed_of_nameless(self, event: Event, address: str, why: str) -> int | None:
        """Return None when no line shall be written of a connection without a device, else how many were left out.

        A few, then one a minute, for what happened, why, and the neighbourhood it comes from: those are scanners, and
        there is no end of them. Their ration is their own, so that they do not use up that of refused devices.
        """
        key = f"{event.label} {network_of(address)} {_MADE_UP.sub('', why)}"
        return self._quiet_of_nameless.ask(self._clock(), key)

    def _refused(self, imei: str, address: str, reason: str) -> str:
        suppressed = self._quiet.ask(self._clock(), f"device {imei}", f"address {address}" if address else "")
        if suppressed is not None:
            log_event(
                self.log,
                Event.DEVICE_REFUSED,
                imei=imei,
                address=address or None,
                reason=reason,
                suppressed=suppressed,
            )
        return reason

    def _day_is_full(self, imei: str, address: str, hit: Hit) -> str:
        suppressed = self._quiet.ask(self._clock(), f"day {imei}")
        if suppressed is not None:
            log_event(
                self.log,
                Event.LIMIT_DEVICE_DAY,
                imei=imei,
                address=address or None,
                setting=hit.setting,
                most=hit.most,
                suppressed=suppressed,
            )
        return f"more than {hit.setting} {hit.most}"
