"""The CoAP server of tests/support/coap.py behind DTLS, in the test's own process, and requests of its clients."""

import asyncio
from pathlib import Path
from typing import Any

from kaa_gateway.app.encryption import datagram_credentials
from kaa_gateway.coap.clients import dtls_clients
from kaa_gateway.config.keys import CoapDtls
from kaa_gateway.errors import IdentityError
from kaa_gateway.identity.clients import Client, Presentation
from kaa_gateway.net.dtls import DtlsSocket
from kaa_gateway.wire.coap import Message, decode, encode

from tests.support.certificates import Authority
from tests.support.coap import CON, GET, URI_PATH, RunningCoapServer
from tests.support.dtls import IDENTITY, KEY, DtlsClient

CONTENT = 0x45


class Gate:
    """An authenticator that decides when the test says so, or at once."""

    def __init__(self) -> None:
        self.seen: list[Presentation] = []
        self.answer: Client | IdentityError | None = Client()
        self.pending: list[asyncio.Future[Client]] = []

    def authenticate(self, presentation: Presentation) -> "asyncio.Future[Client]":
        self.seen.append(presentation)
        future: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self.pending.append(future)
        if isinstance(self.answer, IdentityError):
            future.set_exception(self.answer)
        elif self.answer is not None:
            future.set_result(self.answer)
        return future


class DtlsServer:
    def __init__(self, coap: RunningCoapServer, directory: Path, **settings: Any) -> None:
        self.coap = coap
        self.gate = Gate()
        self.authority = Authority(directory)
        server = self.authority.issue("gateway")
        (directory / "psk.yml").write_text(f"keys: {{{IDENTITY}: {KEY.hex()}}}\n")
        self.settings = CoapDtls(
            enabled=True,
            cert_file=server.cert_file,
            key_file=server.key_file,
            ca_file=self.authority.file,
            client_certificate="optional",
            psk_file=directory / "psk.yml",
        )
        self.credentials = credentials = datagram_credentials(("coap", "dtls"), self.settings)
        self.admitted: list[Client] = []
        admit = dtls_clients(self.gate, "coap")

        def authenticate(psk_identity: Any, certificate: Any) -> Any:
            client = admit(psk_identity, certificate)
            if isinstance(client, Client):
                self.admitted.append(client)
            return client

        limits = {"handshake_timeout": 10.0, "session_timeout": 100.0, "handshakes_max": 3, "sessions_max": 3}
        clock: Any = coap.clock
        self.socket = DtlsSocket(
            clock, coap.core, coap.counters, credentials, authenticate,
            protocol="coap", **(limits | settings)
        )  # fmt: skip

    def use(self, settings: CoapDtls) -> None:
        """Use the files as they are now."""
        credentials = datagram_credentials(("coap", "dtls"), settings)
        self.credentials.context = credentials.context

    def principals(self) -> list[str]:
        """Those of the clients that were admitted, in their order."""
        return [client.principal for client in self.admitted]

    @property
    def tables(self) -> dict[str, int]:
        return self.socket.table_sizes()

    def client(self, **settings: Any) -> DtlsClient:
        return DtlsClient(self.socket.port, **settings)

    async def settled(self) -> None:
        """Return when everything sent before is handled: the hello of a new client is answered after it."""
        probe = self.client()
        probe.step()
        await probe.datagram()
        probe.close()


def request(message_id: int = 1) -> bytes:
    options = tuple((URI_PATH, part) for part in (b".well-known", b"core"))
    return encode(Message(CON, GET, message_id, b"t", options, b""))


async def ask(client: DtlsClient, message_id: int = 1) -> None:
    client.send(request(message_id))
    answer = decode(await client.receive())
    assert (answer.code, answer.message_id) == (CONTENT, message_id)
