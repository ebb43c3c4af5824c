"""The trusted proxies. See proxy.pyx."""

from collections.abc import Iterable
from typing import NamedTuple

class Proxied(NamedTuple):
    tls: bool
    server_name: str | None
    common_name: str | None

class ProxyProtocol:
    def __init__(self, networks: Iterable[str], *, refuses_others: bool, header_timeout: float) -> None: ...
    def trusts_address(self, address: bytes) -> bool: ...
