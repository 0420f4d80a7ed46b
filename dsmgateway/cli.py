"""The ``dsmgateway`` command: a table of its commands, each of which is in a module of its own.

The gateway itself is not among them: it is run by ``twistd dsmgateway``.
"""

from __future__ import annotations

from typing import Any

import click

from dsmgateway import __version__
from dsmgateway.check_command import check
from dsmgateway.decode_command import decode
from dsmgateway.devices_command import devices
from dsmgateway.export_command import export
from dsmgateway.simulator.command import simulate


class Commands(click.Group):
    """A group whose commands tell a wrong option in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; without a context an error prints no usage."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            error.ctx = None
            raise


@click.group(cls=Commands)
@click.version_option(__version__)
def main() -> None:
    """Tools beside the gateway for Teltonika cameras."""


main.add_command(check)
main.add_command(decode)
main.add_command(devices)
main.add_command(export)
main.add_command(simulate)

if __name__ == "__main__":
    main()
