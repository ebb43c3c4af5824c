"""The admission of clients of CoAP and MQTT-SN over DTLS, and of CoAP over TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kaa_gateway.identity.clients import Client, Presentation

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from kaa_gateway.identity.clients import Authenticator
    from kaa_gateway.wire.certificate import ClientCertificate

    Authenticate = Callable[[str | None, ClientCertificate | None], Client | asyncio.Future[Client]]


def dtls_clients(authenticator: Authenticator, transport: str) -> Authenticate:
    """Return the function that a `DtlsSocket` of a transport asks for its clients."""

    def authenticate(
        psk_identity: str | None, certificate: ClientCertificate | None
    ) -> Client | asyncio.Future[Client]:
        if psk_identity is not None:
            # The key proves the identity: it was given to nobody else.
            return Client(f"psk:{psk_identity}")
        return authenticator.authenticate(Presentation(transport, certificate=certificate))

    return authenticate


def tls_clients(
    authenticator: Authenticator, transport: str
) -> Callable[[ClientCertificate | None], Client | asyncio.Future[Client]]:
    """Return the function that a `CoapStreamServer` asks for its clients; `transport` is `coaps+tcp` or `coaps+ws`."""

    def authenticate(certificate: ClientCertificate | None) -> Client | asyncio.Future[Client]:
        return authenticator.authenticate(Presentation(transport, certificate=certificate))

    return authenticate
