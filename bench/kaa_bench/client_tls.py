"""What a client trusts and presents over TLS."""

import ssl
from dataclasses import dataclass
from functools import cache

from kaa_bench.errors import BenchError


@dataclass(frozen=True)
class ClientTls:
    """The PEM files of clients: the authority that they trust (default: the system's), certificate and key.

    {device} in the last two stands for the number of the device.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    def context(self, device: int) -> ssl.SSLContext:
        """Return the context of a device. Devices whose certificate is the same share one."""
        return _context(self.ca_file, numbered(self.cert_file, device), numbered(self.key_file, device))


def numbered(pattern: str | None, device: int) -> str | None:
    """Return a pattern with the number of a device in the place of {device}."""
    return None if pattern is None else pattern.replace("{device}", str(device))


@cache
def _context(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    name = f"ca-file {ca_file}"
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            name = f"cert-file {cert_file}"
            context.load_cert_chain(cert_file, key_file)
    except OSError as error:
        raise BenchError(f"{name} cannot be used: {error}") from None
    return context
