"""Conversations on a socket: pace, back-pressure, lost links."""

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase

from dsmgateway.simulator.content import BytesContent
from dsmgateway.simulator.conversation import Conversation
from dsmgateway.simulator.device import CameraFile, Device
from dsmgateway.simulator.faults import Fate, Faults, FaultSource
from dsmgateway.simulator.link import CameraLink, Ending, Pace

NAME = b"dsm/picture/251102/081601.jpg"
ASK = bytes.fromhex("000c00020000") + b"\x00\x08\x00\x1e" + NAME + b"\0" + bytes.fromhex("0002000400000000")
HEAD_BYTES = 16 + 34 + 10 + 8


class Scripted(FaultSource):
    """Faults by the number of the frame, written down by a test."""

    def __init__(self, fates: dict[int, Fate], resets: bool = False, **faults: bool) -> None:
        super().__init__(Faults(stall_s=5.0, **faults), "scripted")
        self._fates, self._frames, self._resets = fates, 0, resets

    def fate(self) -> Fate:
        self._frames += 1
        return self._fates.get(self._frames, Fate.CLEAN)

    def resets(self) -> bool:
        return self._resets

    def queued(self) -> int:
        return 3


class Transport(StringTransportWithDisconnection):
    """Remembers whether the connection was reset."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class LinkTests(SynchronousTestCase):
    """A link on a transport in memory, with a clock that the test winds."""

    def make(self, pace: Pace | None = None, faults: FaultSource | None = None, size: int = 4096) -> CameraLink:
        self.clock = Clock()
        self.transport = Transport()
        self.gone: list[CameraLink] = []
        self.device = Device("356917000000013", [CameraFile(NAME, BytesContent(bytes(size)), b"")], faults)
        link = CameraLink(Conversation(self.device), self.clock, pace or Pace(), self.gone.append)
        self.transport.protocol = link
        link.makeConnection(self.transport)
        return link

    def sent(self) -> int:
        """How many bytes were written so far."""
        return len(self.transport.value())

    def test_unlimited_link_sends_all_it_can(self) -> None:
        """Without a rate the whole file is written as long as nobody says stop."""
        self.make().dataReceived(ASK)
        self.assertEqual(self.sent(), HEAD_BYTES + 4 * 1030)

    def test_full_socket_stops_the_link(self) -> None:
        """Nothing is made while the socket's buffer is full, and it goes on where it stopped."""
        link = self.make(size=100 * 1024)
        link.pauseProducing()
        link.dataReceived(ASK)
        self.assertEqual(self.sent(), 16)
        link.resumeProducing()
        self.assertEqual(self.sent(), HEAD_BYTES + 100 * 1030)

    def test_rate_is_kept(self) -> None:
        """A camera of 1,030 bytes a second sends a frame a second."""
        link = self.make(Pace(rate_bytes_s=1030), size=50 * 1024)
        self.clock.advance(1)
        link.dataReceived(ASK)
        self.clock.pump([0.05] * 20 * 20)
        self.assertLess(abs(self.sent() - 21 * 1030), 1300)

    def test_stall_holds_everything_back(self) -> None:
        """During a stall nothing is said, not even an answer."""
        link = self.make(faults=Scripted({2: Fate.STALL}))
        link.dataReceived(ASK)
        link.dataReceived(bytes.fromhex("000a0000"))
        self.clock.advance(4.9)
        self.assertEqual(self.sent(), HEAD_BYTES + 1030)
        self.clock.advance(0.2)
        self.assertEqual(self.sent(), HEAD_BYTES + 4 * 1030 + 4)

    def test_finished_conversation_closes(self) -> None:
        """After CLOSE the device hangs up, and the link says why."""
        link = self.make()
        link.dataReceived(bytes(4))
        self.assertIs(self.successResultOf(link.ended), Ending.FINISHED)
        self.assertEqual(self.gone, [link])

    def test_cut_closes_in_the_middle_of_a_frame(self) -> None:
        """An orderly cut ends the connection at once."""
        link = self.make(faults=Scripted({2: Fate.CUT}))
        link.dataReceived(ASK)
        self.assertIs(self.successResultOf(link.ended), Ending.CUT)
        self.assertFalse(self.transport.connected)
        self.assertTrue(HEAD_BYTES + 1030 < self.sent() < HEAD_BYTES + 2060)

    def test_reset_comes_when_the_bytes_are_out(self) -> None:
        """A reset waits a moment, or the bytes before it would never leave."""
        link = self.make(faults=Scripted({2: Fate.CUT}, resets=True))
        link.dataReceived(ASK)
        self.assertIs(self.successResultOf(link.ended), Ending.CUT)
        self.assertTrue(self.transport.connected)
        self.clock.advance(0.1)
        self.assertTrue(self.transport.aborted)

    def test_silent_cut_goes_on_delivering_deaf(self) -> None:
        """The device has left, the old socket delivers what was queued, hears nothing, and closes in the end."""
        link = self.make(faults=Scripted({1: Fate.CUT}, silent_cut=True))
        link.dataReceived(ASK)
        self.assertIs(self.successResultOf(link.ended), Ending.CUT)
        first = self.sent()
        self.clock.advance(0.25)
        self.assertEqual(self.sent(), HEAD_BYTES + 1030)
        self.assertLess(first, self.sent())
        self.clock.pump([0.25] * 3)
        self.assertEqual(self.sent(), HEAD_BYTES + 4 * 1030)
        link.dataReceived(bytes.fromhex("0009"))
        self.assertEqual(len(self.device.queue), 1)
        self.assertTrue(self.transport.connected)
        self.clock.advance(5)
        self.assertFalse(self.transport.connected)

    def test_gateway_that_closes_is_noticed(self) -> None:
        """A connection that the gateway drops has ended, and no timer is left behind."""
        link = self.make(Pace(rate_bytes_s=10))
        link.dataReceived(ASK)
        self.transport.loseConnection()
        self.assertIs(self.successResultOf(link.ended), Ending.DROPPED)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silent_gateway_is_left(self) -> None:
        """A gateway that never answers is left when patience is over, not before."""
        link = self.make(Pace(patience_s=60))
        self.clock.advance(60)
        link.check_silence()
        self.assertNoResult(link.ended)
        self.clock.advance(1)
        link.check_silence()
        self.assertIs(self.successResultOf(link.ended), Ending.SILENT)
