"""The error of a port that cannot be listened on: it names the key of the configuration to change."""

import contextlib
import errno
import os
from collections.abc import Iterator

from kaa_gateway.errors import GatewayError


class PortError(GatewayError):
    """A port that a listener cannot use."""


@contextlib.contextmanager
def port_errors(key: str, port: int) -> Iterator[None]:
    """Turn an OSError about the port of a listener that is started in this context into a PortError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.EADDRINUSE,
            errno.EACCES,
            errno.EADDRNOTAVAIL,
            errno.ENODEV,
            errno.ENXIO,
        ):
            raise
        sentence = "is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno).lower()
        raise PortError("port_unavailable", f"port {port} ({key}): {sentence}") from error
