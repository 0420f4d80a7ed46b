"""Saying a thing seldom, with a count."""

from dsmgateway.seldom import Seldom


def test_the_first_is_said_at_once_and_the_others_together_after_the_interval() -> None:
    seldom = Seldom(60.0)
    assert seldom.due(0.0) == 0, "nothing happened"
    seldom.count()
    assert seldom.due(5.0) == 1
    for _ in range(19):
        seldom.count()
        assert seldom.due(64.9) == 0
    assert seldom.due(65.0) == 19
    assert seldom.due(200.0) == 0
    seldom.count()
    assert seldom.due(200.0) == 1
