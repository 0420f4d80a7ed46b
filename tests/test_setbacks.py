"""What a device could not deliver the last time."""

from dsmgateway.commands import Offer
from dsmgateway.setbacks import _MOST_DEVICES, Setbacks


def test_the_last_connection_counts() -> None:
    """What a device was stuck on is remembered until a connection ends otherwise."""
    setbacks = Setbacks()
    assert setbacks.of("1") == Offer(0)
    setbacks.note("1", Offer.FRONT_PHOTO)
    setbacks.note("2", Offer.FILE)
    assert (setbacks.of("1"), setbacks.of("2")) == (Offer.FRONT_PHOTO, Offer.FILE)
    setbacks.note("1", Offer(0))
    assert (setbacks.of("1"), setbacks.of("2")) == (Offer(0), Offer.FILE)


def test_the_oldest_is_forgotten() -> None:
    """Anybody can make up IMEIs; that costs no memory."""
    setbacks = Setbacks()
    for number in range(_MOST_DEVICES):
        setbacks.note(str(number), Offer.FILE)
    setbacks.note("0", Offer.FRONT_PHOTO)
    setbacks.note("new", Offer.FILE)
    assert setbacks.of("1") == Offer(0)
    assert setbacks.of("0") == Offer.FRONT_PHOTO
    assert setbacks.of("new") == Offer.FILE
