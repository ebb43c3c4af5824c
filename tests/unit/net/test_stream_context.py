"""Contexts of tenants with OpenSSL itself: server names, chains, and resumed sessions."""

import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from kaa_gateway.app.encryption import stream_credentials
from kaa_gateway.config.keys import HttpTls, TenantTls
from kaa_gateway.errors import HandshakeError
from kaa_gateway.net.stream_context import StreamContext

from tests.support.certificates import Authority, Issued

ACME, UMBRELLA, OTHER = "acme.localhost", "umbrella.localhost", "localhost"


class Pair:
    """A server with two tenants, and a device of acme."""

    def __init__(self, directory: Path, newest: ssl.TLSVersion) -> None:
        acme, umbrella = Authority(directory, "acme-ca"), Authority(directory, "umbrella-ca")
        server = acme.issue("gateway", hosts=(ACME, UMBRELLA, OTHER))
        tenants = {
            "acme": TenantTls(ca_file=acme.file, server_names=(ACME,)),
            "umbrella": TenantTls(ca_file=umbrella.file, server_names=(UMBRELLA,)),
        }
        settings = HttpTls(
            enabled=True,
            cert_file=server.cert_file,
            key_file=server.key_file,
            client_certificate="required",
            tenants=tenants,
        )
        self._server = stream_credentials(("http", "tls"), settings).context
        self.client = ssl.create_default_context(cafile=acme.file)
        self.client.maximum_version = newest
        self.use(acme.issue("device"))

    def use(self, issued: Issued) -> None:
        self.client.load_cert_chain(issued.cert_file, issued.key_file)

    def shake_hands(
        self, server_name: str, session: ssl.SSLSession | None = None
    ) -> tuple[str | None, ssl.SSLObject]:
        """The tenant that the server finds, and the client."""
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client.wrap_bio(to_client, to_server, False, server_name, session)
        server = self._server.wrap_bio(to_server, to_client, True)
        for _ in range(4):
            for side in (client, server):
                with suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        with pytest.raises(ssl.SSLWantReadError):
            client.read(1)  # the session comes after the handshake
        leaf = server.getpeercert(True)
        assert leaf is not None
        assert isinstance(server.context, StreamContext)
        return server.context.tenant_of(server, leaf), client


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Pair:
    return Pair(tmp_path, request.param)


@pytest.mark.parametrize("server_name", [ACME, OTHER])
def test_a_resumed_session_keeps_its_tenant(pair: Pair, server_name: str) -> None:
    tenant, first = pair.shake_hands(server_name)
    assert tenant == "acme"
    tenant, again = pair.shake_hands(server_name, first.session)
    assert again.session_reused
    assert tenant == "acme"


def test_a_resumed_session_does_not_become_another_tenants(pair: Pair) -> None:
    """Of TLS 1.2, OpenSSL takes the server name of the session, whatever the client asks for now."""
    _, first = pair.shake_hands(ACME)
    if pair.client.maximum_version == ssl.TLSVersion.TLSv1_3:
        with pytest.raises(HandshakeError, match="tls_wrong_tenant"):
            pair.shake_hands(UMBRELLA, first.session)
        return
    tenant, again = pair.shake_hands(UMBRELLA, first.session)
    assert again.session_reused
    assert tenant == "acme"


def test_the_authority_of_another_tenant_is_unknown_to_a_server_name(pair: Pair) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        pair.shake_hands(UMBRELLA)
