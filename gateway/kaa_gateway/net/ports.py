"""A port that cannot be had, said in words that tell the operator which key to change."""

import contextlib
import errno
import os
from collections.abc import Iterator

from kaa_gateway.errors import GatewayError


class PortError(GatewayError):
    """A listener cannot have its port."""


@contextlib.contextmanager
def taking(key: str, port: int) -> Iterator[None]:
    """Around the start of a listener: a port that cannot be had is a PortError that names its key."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
            raise
        sentence = "is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno).lower()
        raise PortError("port_unavailable", f"port {port} ({key}): {sentence}") from error
