"""Connections counted by where they come from, lines of the log rationed, a device's day: nothing without an end."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from dsmgateway import crowd as crowd_module
from dsmgateway import quiet as quiet_module
from dsmgateway import quota as quota_module
from dsmgateway.addresses import network_of, shown_address, source_of
from dsmgateway.crowd import BURST_S, Bucket, Crowd, CrowdLimits, Hit
from dsmgateway.quiet import LINES_PER_S, SAY_EVERY_S, Quiet
from dsmgateway.quota import Quota

LIMITS = CrowdLimits(in_all=5, per_address=2, per_network=3, rate=100, rate_per_address=100)
A, B, C, FAR = "192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"


# -- addresses


@pytest.mark.parametrize(
    ("address", "source", "network"),
    [
        (IPv4Address("TCP", "192.0.2.77", 1), "192.0.2.77", "192.0.2.0/24"),
        (IPv6Address("TCP", "2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64", "2001:db8:1::/48"),
        (IPv6Address("TCP", "::ffff:192.0.2.77", 1), "192.0.2.77", "192.0.2.0/24"),
        (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64", "fe80::/48"),
        (IPv4Address("TCP", "a.name", 1), "a.name", "a.name"),
        (UNIXAddress(b"/run/dsm"), "", ""),
        (None, "", ""),
    ],
    ids=str,
)
def test_whom_a_connection_is_counted_for(address: object, source: str, network: str) -> None:
    assert source_of(address) == source
    assert network_of(source) == network


def test_how_an_address_is_shown() -> None:
    assert shown_address(IPv4Address("TCP", "192.0.2.77", 1)) == "192.0.2.77:1"
    assert shown_address(IPv6Address("TCP", "2001:db8::1", 1)) == "[2001:db8::1]:1"
    assert (shown_address(UNIXAddress(b"/run/dsm")), shown_address(None)) == ("/run/dsm", "None")


# -- connections


def fill(crowd: Crowd, *addresses: str) -> None:
    for address in addresses:
        assert crowd.refusal(address, 0) is None
        crowd.entered(address)


def test_an_address_may_have_so_many() -> None:
    crowd = Crowd(LIMITS, 0)
    fill(crowd, A, A)
    assert crowd.refusal(A, 0) == Hit("max-connections-per-address", 2)
    assert crowd.refusal(B, 0) is None
    crowd.left(A)
    assert crowd.refusal(A, 0) is None


def test_a_network_may_have_so_many() -> None:
    crowd = Crowd(LIMITS, 0)
    fill(crowd, A, A, B)
    assert crowd.refusal(C, 0) == Hit("max-connections-per-network", 3)
    assert crowd.refusal(FAR, 0) is None


def test_all_together_may_be_so_many() -> None:
    crowd = Crowd(LIMITS, 0)
    fill(crowd, A, A, B, FAR, FAR)
    assert crowd.refusal("203.0.113.1", 0) == Hit("max-connections", 5)
    assert crowd.refusal("", 0) == Hit("max-connections", 5)


def test_this_machine_is_counted_in_all_only() -> None:
    crowd = Crowd(LIMITS, 0)
    fill(crowd, "", "", "", "")
    assert (crowd.in_all, len(crowd)) == (4, 0)
    crowd.left("")
    assert crowd.in_all == 3


def test_one_that_waits_has_its_place_when_it_is_known_whose_it_is() -> None:
    crowd, told = Crowd(LIMITS, 0), []
    crowd.tell = told.append
    fill(crowd, A, A, B, FAR, "")
    assert crowd.full() == Hit("max-connections", 5)
    with crowd.replacing():
        assert crowd.full() is None
        fill(crowd, FAR)
    assert (crowd.in_all, told) == (5, [1, 2, 3, 4, 5, 5, 5])
    crowd.left(FAR)
    crowd.entered("")
    with crowd.replacing():
        assert crowd.refusal(A, 0) == Hit("max-connections-per-address", 2)
    assert (crowd.in_all, told[7:]) == (4, [4, 5, 4])


def test_one_that_waits_is_counted_for_no_rate() -> None:
    crowd = Crowd(replace(LIMITS, rate=1 / BURST_S), 0)
    assert [crowd.full() for _ in range(3)] == [None] * 3
    assert crowd.refusal(A, 0) is None
    assert crowd.refusal(A, 0) == Hit("accept-rate", 1 / BURST_S)


def test_a_rate_may_burst_and_comes_back() -> None:
    crowd = Crowd(replace(LIMITS, rate_per_address=0.5), 0)
    assert [crowd.refusal(A, 0) for _ in range(round(0.5 * BURST_S))] == [None] * 10
    assert crowd.refusal(A, 0) == Hit("accept-rate-per-address", 0.5)
    assert crowd.refusal(B, 0) is None
    assert crowd.refusal(A, 1.9) == Hit("accept-rate-per-address", 0.5)
    assert crowd.refusal(A, 2) is None


def test_the_rate_of_all_is_not_used_up_by_one_address_that_is_refused() -> None:
    crowd = Crowd(replace(LIMITS, rate=1, rate_per_address=0.5), 0)
    answers = [crowd.refusal(A, 0) for _ in range(100)]
    assert answers.count(None) == 10
    assert [crowd.refusal(B, 0) for _ in range(10)] == [None] * 10
    assert crowd.refusal(C, 0) == Hit("accept-rate", 1)
    assert crowd.refusal("", 0) == Hit("accept-rate", 1)


def test_addresses_that_are_remembered_for_their_rate_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crowd_module, "MAX_BUCKETS", 3)
    crowd = Crowd(LIMITS, 0)
    for number in range(50):
        crowd.refusal(f"203.0.113.{number}", 0)
    assert len(crowd) == 3


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 100), max_size=50))
def test_a_bucket_never_gives_more_than_its_rate_and_burst(rate: float, waits: list[float]) -> None:
    bucket, now, taken = Bucket(rate, 0), 0.0, 0
    for wait in waits:
        now += wait
        if bucket.has(now):
            bucket.take()
            taken += 1
    assert taken <= max(1.0, rate * BURST_S) + rate * now + 1e-6


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([A, B, FAR, ""])), max_size=60))
def test_every_connection_that_comes_goes_and_nothing_is_left(steps: list[tuple[bool, str]]) -> None:
    crowd, there = Crowd(LIMITS, 0), Counter[str]()
    for enters, address in steps:
        if enters and crowd.refusal(address, 0) is None:
            crowd.entered(address)
            there[address] += 1
        elif not enters and there[address]:
            crowd.left(address)
            there[address] -= 1
        assert crowd.in_all == there.total() <= LIMITS.in_all
        assert all(there[one] <= LIMITS.per_address for one in (A, B, FAR))
        assert min(crowd._by_address.values(), default=1) > 0
    for address in there.elements():
        crowd.left(address)
    assert (crowd.in_all, crowd._by_address, crowd._by_network) == (0, Counter(), Counter())


# -- lines of the log


def test_the_same_device_is_told_once_a_minute_with_what_was_left_out() -> None:
    quiet = Quiet(0)
    assert quiet.ask(0, "device 1", "address A") == 0
    assert [quiet.ask(now, "device 1", "address A") for now in (1, 30, 59.9)] == [None] * 3
    assert quiet.ask(SAY_EVERY_S, "device 1", "address A") == 3


def test_many_devices_of_one_address_and_one_device_on_many_addresses_are_one_line() -> None:
    quiet = Quiet(0)
    assert quiet.ask(0, "device 1", "address A") == 0
    assert quiet.ask(0, "device 2", "address A") is None
    assert quiet.ask(0, "device 1", "address B") is None
    assert quiet.ask(0, "device 3", "address C") == 0
    assert quiet.ask(60, "device 9", "address A") == 1


def test_what_has_no_address_is_told_of_its_device() -> None:
    quiet = Quiet(0)
    assert (quiet.ask(0, "device 1", ""), quiet.ask(0, "device 2", "")) == (0, 0)
    assert quiet.ask(0) == 0


def test_all_lines_together_are_bounded() -> None:
    quiet = Quiet(0)
    said = [quiet.ask(0, f"device {number}") for number in range(1000)]
    assert len(said) - said.count(None) == LINES_PER_S * BURST_S
    assert quiet.ask(1, "device 999") == 1


def test_some_lines_may_come_at_once_and_after_those_one_a_minute() -> None:
    quiet = Quiet(0, at_once=3)
    assert [quiet.ask(0, "x") for _ in range(5)] == [0, 0, 0, None, None]
    assert quiet.ask(59, "x") is None
    assert [quiet.ask(60, "x"), quiet.ask(61, "x")] == [3, None]
    assert [quiet.ask(1000, "x") for _ in range(4)] == [1, 0, 0, None]


def test_what_is_remembered_of_lines_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_module, "MAX_KEYS", 7)
    quiet = Quiet(0)
    for number in range(100):
        quiet.ask(number, f"device {number}", f"address {number}")
    assert len(quiet) == 7


# -- a device's day


def test_a_device_may_deliver_so_many_bytes_and_files_a_day() -> None:
    quota = Quota(1000, 2)
    assert quota.refusal("1", 0, 1000) is None
    assert quota.refusal("1", 0, 1001) == Hit("device-bytes-per-day", 1000)
    quota.count("1", 0, 400)
    quota.count("1", 0, files=1)
    assert quota.delivered("1", 0) == (400, 1)
    assert quota.refusal("1", 0, 601) == Hit("device-bytes-per-day", 1000)
    assert quota.refusal("1", 0, 600) is None
    assert quota.refusal("2", 0, 1000) is None
    quota.count("1", 0, files=1)
    assert quota.refusal("1", 0) == Hit("device-files-per-day", 2)


def test_a_day_ends_at_midnight() -> None:
    quota = Quota(1000, 2)
    quota.count("1", 86399, 1000)
    assert quota.refusal("1", 86399.9) == Hit("device-bytes-per-day", 1000)
    assert quota.refusal("1", 86400) is None
    assert len(quota) == 0


@given(st.lists(st.tuples(st.sampled_from("123456"), st.integers(0, 10**9), st.integers(0, 3)), max_size=40))
def test_what_is_counted_is_never_negative_and_bounded(steps: list[tuple[str, int, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quota_module, "MAX_DEVICES", 3)
        quota = Quota(10**6, 10)
        for imei, size_bytes, files in steps:
            quota.count(imei, 5, size_bytes, files)
            assert min(quota.delivered(imei, 5)) >= 0
            assert quota.delivered(imei, 5) >= (size_bytes, files)
            assert len(quota) <= 3


def test_connections_elsewhere_count_in_all_and_those_here_are_told() -> None:
    crowd, told = Crowd(LIMITS, 0), []
    crowd.tell = told.append
    fill(crowd, A, B)
    crowd.left(A)
    assert told == [1, 2, 1]
    crowd.elsewhere = lambda: 3
    assert crowd.refusal(FAR, 0) is None
    crowd.elsewhere = lambda: 4
    assert crowd.refusal(FAR, 0) == Hit("max-connections", 5)


def test_one_that_another_process_has_let_in_counts_there_until_it_is_here() -> None:
    crowd = Crowd(LIMITS, 0)
    fill(crowd, A, A, B)
    crowd.elsewhere = lambda: 2
    assert crowd.refusal_of_adopted(FAR) is None
    assert crowd.refusal_of_adopted(A) == Hit("max-connections-per-address", 2)
    assert crowd.refusal_of_adopted(C) == Hit("max-connections-per-network", 3)
    crowd.elsewhere = lambda: 3
    assert crowd.refusal_of_adopted(FAR) == Hit("max-connections", 5)
