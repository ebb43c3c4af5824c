"""Clients that need not be asked about. See known_clients.pyx."""

from kaa_gateway.identity.authenticator import Admitted
from kaa_gateway.identity.cache import Cache

class KnownClients:
    def __init__(self, key: bytes, admitted: Cache[bytes, Admitted]) -> None: ...
