"""The interfaces between a protocol core and the transport that carries its bytes. See transport.pyx."""

from kaa_gateway.net.proxy import Proxied
from kaa_gateway.wire.certificate import ClientCertificate

class Transport:
    @property
    def certificate(self) -> ClientCertificate | None: ...
    @property
    def proxied(self) -> Proxied | None: ...

class ProtocolCore: ...

class ProtocolServer:
    def connect(self, transport: Transport) -> ProtocolCore: ...
