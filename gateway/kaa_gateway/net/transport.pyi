"""The seam between a transport core and the adapter that carries its bytes. See transport.pyx."""

from kaa_gateway.identity.clients import ClientCertificate

class Transport:
    @property
    def certificate(self) -> ClientCertificate | None: ...

class InputMemory:
    bytes: int
    def __init__(self, bytes_max: int = ...) -> None: ...
    def set_limit(self, bytes_max: int) -> None: ...

class ProtocolCore: ...
