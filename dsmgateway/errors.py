"""Every exception of ours, in one tree, so that one place can turn them into replies and exit codes.

Knows nothing of sockets, disks or commands; whoever raises one gives a sentence that an operator can act on.
"""


class GatewayError(Exception):
    """The root of all errors that dsmgateway raises on purpose."""


class PeerError(GatewayError):
    """The device broke the protocol; its connection ends, what it delivered is kept."""


class CommandError(PeerError):
    """A command has a field outside the range that the protocol gives it."""


class FramingError(PeerError):
    """The bytes are not commands of the protocol and no step can be found in them."""


class UnexpectedCommand(PeerError):
    """A command that is well formed but not legal in the state the session is in."""


class HeaderError(PeerError):
    """What a balancer sends first is no PROXY header."""


class StoreError(GatewayError):
    """Our disk failed: nothing may be acknowledged, the camera keeps its copy."""


class ConfigError(GatewayError):
    """An option, an environment variable or a line of the configuration file is wrong.

    ``setting`` names the one that it is about, where the message does not say where it was set.
    """

    def __init__(self, message: str, setting: str | None = None) -> None:
        super().__init__(message)
        self.setting = setting
