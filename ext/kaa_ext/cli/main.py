"""The entry point of `kaa-ext`. SIGTERM is handled before the commands are imported, which takes a second.

Without a handler, the kernel would drop SIGTERM where services are process 1, as in a container.
"""

import signal
import sys

from kaa_gateway import stdio

from kaa_ext.cli.exits import INTERRUPTED, fail


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] in (["run"], ["rest"]):
        signal.signal(signal.SIGTERM, _end)
    stdio.protect()
    try:
        from cyclopts import CycloptsError

        from kaa_ext.cli.app import app

        try:
            sys.exit(app(sys.argv[1:], exit_on_error=False, print_error=False))
        except CycloptsError as error:
            fail(str(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _end(number: int, frame: object) -> None:
    """End the process: no service has been started."""
    raise SystemExit(0)
