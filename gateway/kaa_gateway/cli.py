"""The entry point of `kaa-gateway`. Signals are handled before the commands are imported, which takes a second.

Without a handler, SIGHUP would end a gateway that is asked to read its configuration again in that second, and the
kernel would drop SIGTERM where the gateway is process 1, as in a container.
"""

import os
import signal
import sys

from kaa_gateway import stdio
from kaa_gateway.errors import ConfigError, GatewayError

INTERRUPTED = 130
"""Exit code after Ctrl-C before anything was started, as shells use it."""


def main() -> None:
    """Run the command line: exit code 1, and one line for each problem that a user can solve."""
    try:
        _handle_signals(sys.argv[1:2])
        stdio.protect()
        # The processes that this one starts import nothing from the caller's directory.
        os.environ["PYTHONSAFEPATH"] = "1"
        from kaa_gateway.commands import app

        sys.exit(app(sys.argv[1:]))
    except ConfigError as error:
        print(error.detail, file=sys.stderr)
    except GatewayError as error:
        print(f"kaa-gateway: {error.detail or error}", file=sys.stderr)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(1)


def _handle_signals(command: list[str]) -> None:
    """Handle signals of a command that serves, until it has handlers of its own."""
    if command in (["run"], ["dev"]):
        signal.signal(signal.SIGTERM, _end)
    if command == ["run"]:
        # The configuration is not read yet, or has just been.
        signal.signal(signal.SIGHUP, lambda number, frame: None)


def _end(number: int, frame: object) -> None:
    """End the process: nothing has been started."""
    raise SystemExit(0)
