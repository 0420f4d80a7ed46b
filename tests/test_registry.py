"""Which connection speaks for which device."""

from dsmgateway.registry import Registry


def test_first_connection_takes_over_from_nobody() -> None:
    """A device that was not there has no older connection."""
    registry: Registry[str] = Registry()
    assert registry.claim("1", "first") is None
    assert len(registry) == 1


def test_newest_connection_wins() -> None:
    """Each new connection of a device is told which one it takes over from."""
    registry: Registry[str] = Registry()
    registry.claim("1", "first")
    assert registry.claim("1", "second") == "first"
    assert registry.claim("1", "third") == "second"
    assert len(registry) == 1


def test_devices_do_not_meet() -> None:
    """A device never takes over from another one."""
    registry: Registry[str] = Registry()
    registry.claim("1", "first")
    assert registry.claim("2", "second") is None
    assert len(registry) == 2


def test_release_forgets() -> None:
    """A device whose connection is gone has none."""
    registry: Registry[str] = Registry()
    registry.claim("1", "first")
    registry.release("1", "first")
    assert len(registry) == 0
    assert registry.claim("1", "second") is None


def test_late_release_of_the_old_keeps_the_new() -> None:
    """The end of a connection that was taken over leaves the newer one in place."""
    registry: Registry[str] = Registry()
    registry.claim("1", "first")
    registry.claim("1", "second")
    registry.release("1", "first")
    assert registry.claim("1", "third") == "second"


def test_release_of_a_stranger_does_nothing() -> None:
    """A connection that never said who it is can be released all the same."""
    registry: Registry[str] = Registry()
    registry.release("1", "first")
    assert len(registry) == 0
