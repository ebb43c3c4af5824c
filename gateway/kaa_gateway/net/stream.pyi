"""The seam between a transport core and the adapter that carries its bytes. See stream.pyx."""

from kaa_gateway.identity.clients import ClientCertificate

class Outlet:
    @property
    def certificate(self) -> ClientCertificate | None: ...

class InputMemory:
    bytes: int
    def __init__(self, bytes_max: int = ...) -> None: ...
    def set_limit(self, bytes_max: int) -> None: ...

class Stream: ...
