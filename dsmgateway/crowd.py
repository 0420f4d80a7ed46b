"""How many connections may be there, and how fast new ones may come: in all, from an address, from its network.

Pure: the time (seconds that never go back) is passed in, and an address is whatever text names it. What is remembered
of an address that has no connection is bounded, however many addresses there are.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dsmgateway.addresses import network_of

#: A rate may be exceeded for so long by so much: a fleet whose link or gateway comes back connects within seconds, and
#: a device that is refused five times stays away for half an hour.
BURST_S = 20.0
#: Addresses whose rate is remembered; the one that came least recently is forgotten first.
MAX_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class CrowdLimits:
    """The most of everything: connections at a time, and new ones a second (which may burst for `BURST_S`)."""

    in_all: int
    per_address: int
    per_network: int
    rate: float
    rate_per_address: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A limit that was hit: the name of its setting, and what that is."""

    setting: str
    most: float


class Bucket:
    """A token bucket: holds `BURST_S` seconds' worth of its rate when full."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._tokens, self._at = rate, max(1.0, rate * BURST_S), now

    def has(self, now: float) -> bool:
        """Whether there is a token."""
        most = max(1.0, self._rate * BURST_S)
        self._tokens = min(most, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._tokens >= 1

    def take(self) -> None:
        """Take a token that is there."""
        self._tokens -= 1


class Crowd:
    """Counts connections by where they come from; empty: counted in all only, as what comes from this machine is."""

    def __init__(self, limits: CrowdLimits, now: float) -> None:
        self.limits = limits
        self.in_all = 0
        #: Returns how many count in all besides those that are counted here, and is told how many these are.
        self.elsewhere: Callable[[], int] = lambda: 0
        self.tell: Callable[[int], object] = lambda in_all: None
        self._by_address: Counter[str] = Counter()
        self._by_network: Counter[str] = Counter()
        self._bucket = Bucket(limits.rate, now)
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """How many addresses are remembered."""
        return len(self._by_address.keys() | self._buckets.keys())

    def refusal(self, address: str, now: float) -> Hit | None:
        """Return the limit that forbids one more connection, or None and count it for the rates."""
        limits = self.limits
        hit = self.full() or self._crowded(address)
        if hit is not None:
            return hit
        of_address = self._bucket_of(address, now) if address else None
        if of_address is not None and not of_address.has(now):
            return Hit("accept-rate-per-address", limits.rate_per_address)
        if not self._bucket.has(now):
            return Hit("accept-rate", limits.rate)
        for bucket in (of_address, self._bucket):
            if bucket is not None:
                bucket.take()
        return None

    def full(self) -> Hit | None:
        """Return the limit of all connections if one more would be too many; it is counted for no rate."""
        if self.in_all + self.elsewhere() >= self.limits.in_all:
            return Hit("max-connections", self.limits.in_all)
        return None

    def refusal_of_adopted(self, address: str) -> Hit | None:
        """Return the limit that forbids one that another process has let in, where it may still be counted."""
        if self.in_all + self.elsewhere() > self.limits.in_all:
            return Hit("max-connections", self.limits.in_all)
        return self._crowded(address)

    def _crowded(self, address: str) -> Hit | None:
        """Return the limit that forbids one more connection of this address at a time."""
        limits = self.limits
        if address and self._by_address[address] >= limits.per_address:
            return Hit("max-connections-per-address", limits.per_address)
        if address and self._by_network[network_of(address)] >= limits.per_network:
            return Hit("max-connections-per-network", limits.per_network)
        return None

    def entered(self, address: str) -> None:
        """Count a connection."""
        self._counted(1)
        if address:
            self._by_address[address] += 1
            self._by_network[network_of(address)] += 1

    def left(self, address: str) -> None:
        """Count it no more; to be called once for each `entered`."""
        self._counted(-1)
        if address:
            _take_off(self._by_address, address)
            _take_off(self._by_network, network_of(address))

    @contextmanager
    def replacing(self) -> Iterator[None]:
        """Count one no more that counts in all only, and have its place for the connection that it turns out to be.

        Whoever else counts is told only afterwards, so that the place is not taken in between.
        """
        self.in_all -= 1
        try:
            yield
        finally:
            self.tell(self.in_all)

    def _counted(self, change: int) -> None:
        self.in_all += change
        self.tell(self.in_all)

    def _bucket_of(self, address: str, now: float) -> Bucket:
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = Bucket(self.limits.rate_per_address, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return bucket


def _take_off(counts: Counter[str], key: str) -> None:
    counts[key] -= 1
    if counts[key] <= 0:
        del counts[key]
