"""Two senders with one IMEI are told from one device on a bad link, and one of them gets to finish."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsmgateway import flapping as flapping_module
from dsmgateway.flapping import HOLDER_SILENT_S, MAX_ADDRESSES, Claim, Flapping, Holder

WINS, KEEPS, REFUSED = Claim.WINS, Claim.KEEPS, Claim.REFUSED
A, B = "192.0.2.1", "198.51.100.1"


class Device:
    """An IMEI and who holds it; every connection lives until it is taken over."""

    def __init__(self, takeovers: int = 5) -> None:
        self.flapping = Flapping(takeovers, 600, 300)
        self.holder: str | None = None
        self.now = 0.0
        self.heard: float | None = None

    def connect(self, address: str, after_s: float = 2) -> Claim:
        """A connection, while the one before is alive and was heard of just now, or when it is said."""
        self.now += after_s
        heard = self.now if self.heard is None else self.heard
        holder = None if self.holder is None else Holder(self.holder, heard)
        claim = self.flapping.claim("1", address, holder, self.now)
        if claim is not REFUSED:
            self.holder = address
        return claim


def test_one_device_on_one_address_is_never_counted() -> None:
    device = Device()
    assert {device.connect(A) for _ in range(1000)} == {WINS}
    assert len(device.flapping) == 0


def test_a_device_whose_address_is_new_each_time_is_never_refused() -> None:
    device = Device()
    assert {device.connect(f"10.0.{number // 256}.{number % 256}") for number in range(1000)} == {WINS}


def test_a_connection_after_the_end_of_the_one_before_is_no_takeover() -> None:
    device = Device()
    for number in range(100):
        device.holder = None
        assert device.connect((A, B)[number % 2]) is WINS
    assert len(device.flapping) == 0


def test_of_two_senders_the_first_keeps_the_device_for_a_while() -> None:
    device = Device()
    claims = [device.connect((A, B)[number % 2]) for number in range(8)]
    # The first two do not come back; then five do.
    assert claims == [WINS] * 6 + [KEEPS, REFUSED]
    assert [device.connect(B) for _ in range(20)] == [REFUSED] * 20
    assert device.connect(A) is WINS
    assert device.connect("203.0.113.5") is REFUSED


def test_after_the_cooldown_it_begins_anew() -> None:
    device = Device()
    while device.connect(B if device.holder == A else A) is not KEEPS:
        pass
    assert device.connect(B, after_s=299) is REFUSED
    assert device.connect(B, after_s=1) is WINS
    claims = [device.connect((A, B)[number % 2]) for number in range(5)]
    assert KEEPS in claims


def test_returns_that_are_long_ago_do_not_count() -> None:
    device = Device()
    assert {device.connect((A, B)[number % 2], after_s=400) for number in range(50)} == {WINS}


def test_a_holder_that_is_silent_is_given_up() -> None:
    device = Device()
    while device.connect(B if device.holder == A else A) is not KEEPS:
        pass
    device.heard = device.now
    assert device.connect(B, after_s=HOLDER_SILENT_S - 0.1) is REFUSED
    assert device.connect(B, after_s=0.1) is WINS


def test_when_the_holder_has_gone_anybody_may_come_and_is_protected_in_its_place() -> None:
    device = Device()
    while device.connect(B if device.holder == A else A) is not KEEPS:
        pass
    device.holder = None
    assert device.connect(B) is WINS
    assert (device.connect(A), device.connect("203.0.113.5")) == (REFUSED, REFUSED)
    assert device.connect(B) is WINS


def test_against_somebody_with_a_new_address_each_time_the_device_wins() -> None:
    device, numbers = Device(), iter(range(1000))
    claims = {}
    for _ in range(20):
        claims[A] = device.connect(A)
        if claims[A] is KEEPS:
            break
        assert device.connect(f"10.0.0.{next(numbers)}") is WINS
    assert claims[A] is KEEPS
    assert device.connect("10.9.9.9") is REFUSED


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flapping_module, "MAX_DEVICES", 4)
    flapping = Flapping(5, 600, 300)
    for number in range(100):
        flapping.claim(str(number % 20), f"address {number}", Holder("another", number), number)
    assert len(flapping) == 4
    for number in range(100):
        flapping.claim("1", f"address {number}", Holder(f"address {number - 1}", 101), 101)
    assert len(flapping._records["1"].thrown_out) == MAX_ADDRESSES


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_somebody_always_gets_in_and_the_holder_always_may_reconnect(seed: int, takeovers: int) -> None:
    chance, device = random.Random(seed), Device(takeovers)
    for _ in range(100):
        if device.holder is not None:
            assert device.connect(device.holder, after_s=0) is WINS
        device.connect(chance.choice("ABC"), after_s=chance.choice([0, 1, 30, 200]))
        record = device.flapping._records.get("1")
        assert record is None or len(record.returns) < takeovers
