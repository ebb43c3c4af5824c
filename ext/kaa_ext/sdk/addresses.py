"""Addresses to listen on."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from kaa_ext.sdk.errors import CannotListen

ANY_ADDRESS = "0.0.0.0"
"""The default: probes and Prometheus come from other machines."""
PORT_MAX = 65_535


def host_and_port(text: str) -> tuple[str, int]:
    """Return the host and port of HOST:PORT, [IPv6 address]:PORT, or PORT for all addresses. Raise ValueError."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= PORT_MAX):
        raise ValueError(f"{text!r}: expected HOST:PORT or PORT")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{text!r}: an IPv6 address stands in brackets, as in [::]:9100")
    return host.removeprefix("[").removesuffix("]") or ANY_ADDRESS, int(port)


@contextmanager
def listening(address: tuple[str, int]) -> Iterator[None]:
    """Turn errors of the block, which listens on an address, into CannotListen."""
    try:
        yield
    except socket.gaierror as error:
        raise CannotListen(f"{address[0]}: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise CannotListen(f"{address[0]}:{address[1]}: {reason}") from error
